from datetime import datetime

from patterns import Table

hinted = Table("hinted", "w")
hinted.init(schema_hints={"id": "Text", "body": "Text"}, add_created="created_at", unique_on="id")
hinted.append({"id": "12345678901234567890", "body": {"a": [1, 2]}, "n": "3"})
hinted.append({"id": "007", "body": ["x"], "n": "4"})
(row, second) = hinted.read()
assert row["id"] == "12345678901234567890" and second["id"] == "007"
assert row["body"].replace(" ", "") == '{"a":[1,2]}', row["body"]
assert row["n"] == 3

numbered = Table("numbered", "w")
numbered.init(add_monotonic_id="id")
numbered.append([{"n": 1}, {"n": 2}])
numbered.flush()

plain = Table("plain", "w")
plain.init(add_monotonic_id=None, schema={"n": "Integer", "word": "Text NotNull"})
plain.append({"n": "5", "word": "five", "more": 1.5})
plain.flush()
assert "patterns_id" not in plain.read()[0], plain.read()
assert plain.read()[0]["n"] == 5

ordered = Table("ordered", "w")
ordered.init(strictly_monotonic_ordering="seq", add_monotonic_id=None, something_new=["x"])
ordered.append([{"seq": 2}, {"seq": 1}, {"seq": 3}])

hinted.flush()
(row, second) = hinted.read()
assert isinstance(row["created_at"], datetime), row
(one, two) = numbered.read()
assert one["id"] < two["id"] and len(one["id"]) == 26 and "patterns_id" not in one, one
