import random
from patterns import Table


# An output (writeable) Table
table = Table("random_data", "w")

for i in range(100):
    table.append({"random": random.randint(0, 100), "index": i})
