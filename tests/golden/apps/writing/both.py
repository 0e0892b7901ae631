"""One table, read and written by one node."""

from patterns import Table

counted_in = Table("counted")
counted = Table("counted", "w")
n = max((row["n"] for row in counted_in.read()), default=0)
counted.append({"n": n + 1})
