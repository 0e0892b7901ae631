from datetime import datetime

from patterns import State, Table

numbers = Table("numbers")
State().reset()
groups = [row["group"] for row in numbers.as_stream(order_by="group")]
assert groups == [0] * 10 + [1] * 10 + [2] * 10
assert list(numbers.as_stream(order_by="group")) == []
rows = [row for row in numbers.as_stream("at")]
assert len(rows) == 30 and isinstance(rows[0]["at"], datetime)
assert [row["n"] for row in rows] == list(range(30)), "ties in the order of the log"
