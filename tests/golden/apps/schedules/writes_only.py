"""Reads through a table in write mode, which makes no edge."""

from patterns import Table

once = Table("once", "w")
if once.exists:
    known = {row["id"] for row in once.read_sql(f"select id from {once}")}
else:
    known = set()
once.append([{"id": n} for n in range(3) if n not in known])
