"""Looks up what it wrote moments ago, through the table that it writes."""

from patterns import Table

unique = Table("unique", "w")
for n in [1, 2, 2, 3, 1]:
    known = unique.read_sql(f"select n from {unique} where n = {n}") if unique.exists else []
    if not known:
        unique.append({"n": n})
    unique.flush()
assert sorted(row["n"] for row in unique.read()) == [1, 2, 3]
assert [row["n"] for row in unique.read_sql("select n from {{ unique }} order by n desc limit 1")] == [3]
unique.append({"n": 99})
assert 99 in [row["n"] for row in unique.read()], "rows that wait are read too"
