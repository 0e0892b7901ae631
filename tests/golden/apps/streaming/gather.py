"""Waits until enough rows have come together, and goes back as long as they have not."""

from patterns import Table

stream = Table("many").as_stream()
rows = list(stream.consume_records())
if len(rows) < 250:
    stream.rollback()
else:
    Table("gathered", "w").append({"count": len(rows)})
