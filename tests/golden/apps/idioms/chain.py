"""A queue that it fills and works off itself: it streams what it writes, so it goes on until nothing is left."""

from patterns import Table

queue, more = Table("queue"), Table("queue", "w")
if not queue.exists:
    more.append({"depth": 0})
for row in queue.as_stream():
    if row["depth"] < 4:
        more.append({"depth": row["depth"] + 1})
