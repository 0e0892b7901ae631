import pandas as pd

from patterns import Table

items = Table("items", "w")
assert not items.exists
items.append({"id": 1, "name": "one"})
items.append([{"id": 2, "name": "two"}, {"id": 3, "colour": "red"}])
items.append(pd.DataFrame({"id": [4, 5], "name": ["four", None]}))
items.append([])
items.append(pd.DataFrame())
items.append(pd.DataFrame({"id": [], "name": []}))
items.write({"id": 6, "name": "six"})
items.write([{"id": 7}])
items.flush()
assert items.exists and items.record_count == 7, items.record_count
rows = items.read()
assert [row["id"] for row in rows] == [1, 2, 3, 4, 5, 6, 7], rows
assert rows[2]["colour"] == "red" and rows[0]["colour"] is None and rows[4]["name"] is None
found = items.read_sql(f"select count(*) from {items} where name is not null")
assert found == [{"count": 4}], found
assert len({row["patterns_id"] for row in rows}) == 7, rows


class Response(dict):
    """What SDKs return."""


items.append(Response(id=8, nested=Response(a=[Response(b=1)])))
items.append([Response(id=9, nested=Response(a=[]))])
items.append({"id": 10, "patterns_id": rows[0]["patterns_id"], "later": {"k": 1}})
items.append({"id": 11, "late": "added in the end"})
