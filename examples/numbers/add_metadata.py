import random
from datetime import datetime
from patterns import Table

# An input (readable) Table
messages = Table("messages")

# An output (writeable) Table
messages_with_metadata = Table("messages_with_metadata", "w")

# Use a stream to process each record incrementally just once
stream = messages.as_stream()

for record in stream.consume_records():
    record["processed_at"] = datetime.now()
    record["random"] = random.randint(0,100)
    messages_with_metadata.append(record)
