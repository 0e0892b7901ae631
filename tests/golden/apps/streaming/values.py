from datetime import datetime, timezone

from patterns import State, Table

State().reset()
(row,) = list(Table("values").as_stream())
assert row["doc"] == {"a": [1, {"b": None}]}, row
assert row["doc"]["a"][1]["b"] is None
assert row["list"] == ["x"] and row["vector"] == [1.5, 2.5]
assert row["at"] == datetime(2020, 1, 1, tzinfo=timezone.utc), row["at"]
assert str(row["ts"]) == "1671053386.12"
assert isinstance(row, dict) and row.get("nothing") is None
