import json
from datetime import date, datetime

from patterns import Table

orders = Table("orders")
vectors = Table("vectors")

assert orders.is_connected
assert orders.exists
assert orders.port_name == "orders"
assert orders.record_count == 3, orders.record_count
assert orders.has_active_version() is True
version = orders.get_active_version()
assert version.exists and version.record_count == 3
assert version.name.startswith("orders_"), version.name
assert orders.sql_name == str(orders) == f"{orders}"

rows = orders.read()
assert isinstance(rows, list) and len(rows) == 3
first, second, third = rows
assert [row["id"] for row in rows] == [1, 2, 3], "rows come in the order of their insertion"
assert first["name"] == "O'Hara"
assert first["amount"] == 10.5 and third["amount"] == 7.0
assert second["amount"] is None, "NaN is NULL"
assert first["paid"] is True
assert isinstance(first["tags"], str) and json.loads(first["tags"]) == ["a", "b"], first["tags"]
assert isinstance(first["address"], str) and json.loads(first["address"]) == {"city": "Köln", "lines": [{"n": 1}]}
assert json.loads(third["extra"]) == {"deep": {"deeper": [1, {"x": None}]}}
assert json.loads(second["address"]) == {} and json.loads(second["tags"]) == []
assert first["day"] == date(2021, 5, 4) and not isinstance(first["day"], datetime), repr(first["day"])
assert isinstance(first["at"], datetime) and first["at"].year == 2021
assert first["local"] == datetime(2021, 5, 4, 10, 30)
assert float(first["price"]) == 12.3
assert first["none"] is None and "none" in third
assert first["later"] is None and second["later"] == "x"
assert first["slack"] == 1671053386.12, "numeric strings become numbers"
assert first["thousands"] == 1234, first["thousands"]
assert first["Length (minutes)"] == 3
assert len(first["patterns_id"]) == 26 and first["patterns_id"] == first["patterns_id"].lower()
ids = [row["patterns_id"] for row in rows]
assert ids == sorted(set(ids))

assert vectors.read()[0]["embedding"] == [0.25, 1.0, -3.5]
assert sum(vectors.read()[1]["embedding"]) == 6.0
assert vectors.read_sql(f"select embedding from {vectors}")[0]["embedding"] == [0.25, 1.0, -3.5]

chunks = list(orders.read(chunksize=2))
assert [len(chunk) for chunk in chunks] == [2, 1] and isinstance(chunks[0], list)
frames = list(orders.read_dataframe(chunksize=2))
assert [len(frame) for frame in frames] == [2, 1]

schema = orders.schema
assert [field.name for field in schema.fields][:3] == ["id", "name", "amount"], [f.name for f in schema.fields]
types = {field.name: field.field_type.name for field in schema.fields}
assert types["id"] == "Integer" and types["amount"] == "Float" and types["paid"] == "Boolean", types
assert types["tags"] == "Json" and types["day"] == "Date" and types["at"] == "DateTime", types
assert types["slack"] == "Float" and types["thousands"] == "Integer" and types["none"] == "Text", types
assert types["price"] == "Decimal"
assert "id" in schema.field_names()
assert schema.get_field("id").nullable is True
try:
    schema.get_field("no such field")
except NameError:
    pass
else:
    raise AssertionError("get_field must raise NameError")
for value in orders.read()[0].values():
    print(type(value).__name__, value)
