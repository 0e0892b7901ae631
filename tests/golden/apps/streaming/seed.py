from datetime import datetime, timedelta, timezone

from patterns import Table

numbers = Table("numbers", "w")
numbers.replace([{"n": n, "group": n // 10, "word": f"w{n:02}", "at": datetime(2021, 1, 1) + timedelta(days=n // 7)} for n in range(30)])
values = Table("values", "w")
values.replace(
    [{"doc": {"a": [1, {"b": None}]}, "list": ["x"], "vector": [1.5, 2.5], "at": datetime(2020, 1, 1, tzinfo=timezone.utc), "ts": "1671053386.12"}]
)
plain = Table("plain", "w")
plain.init(add_monotonic_id=None)
plain.replace([{"n": 1}])
