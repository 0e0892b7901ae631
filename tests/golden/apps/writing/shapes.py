"""Values and shapes that real programs write."""

import dataclasses
import json
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal

import numpy as np
import pandas as pd
from pydantic import BaseModel

from patterns import Table


class Person(BaseModel):
    name: str
    age: int | None = None


@dataclasses.dataclass
class Point:
    x: float
    y: float


shapes = Table("shapes", "w")
shapes.reset()
shapes.append(
    {
        "pydantic": Person(name="Ann", age=3).model_dump(),
        "point": dataclasses.asdict(Point(1, 2)),
        "time": time(10, 30),
        "day": date(2020, 1, 1),
        "naive": datetime(2020, 1, 1, 2, 3, 4, 567890),
        "aware": datetime(2020, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))),
        "decimal": Decimal("1.10"),
        "uuid": uuid.UUID(int=5),
        "np_int": np.int64(5),
        "np_float": np.float64(0.5),
        "np_nan": np.nan,
        "nat": pd.NaT,
        "na": pd.NA,
        "stamp": pd.Timestamp("2020-01-01T00:00:00Z"),
        "np_bool": np.bool_(True),
        "tuple": (1, 2),
        "array": np.array([1.5, 2.5]),
        "json": {"at": datetime(2020, 1, 1, tzinfo=timezone.utc), "d": Decimal("1.5"), "u": uuid.UUID(int=1)},
        "big": 2**60,
        "inf": float("inf"),
        "text date": "2020-01-01",
        "text time": "2020-01-01T10:00:00Z",
        "bool text": "true",
        "zip": "00123",
        "empty": "",
        "emoji 🎉": "🎉",
        "select": "keyword",
        "a.b": 1,
        "UPPER": 1,
    }
)
shapes.flush()
(row,) = shapes.read()
assert json.loads(row["pydantic"]) == {"name": "Ann", "age": 3}
assert json.loads(row["point"]) == {"x": 1.0, "y": 2.0}
assert row["time"] == time(10, 30), repr(row["time"])
assert row["naive"] == datetime(2020, 1, 1, 2, 3, 4, 567890), row["naive"]
assert row["aware"] == datetime(2020, 1, 1, tzinfo=timezone.utc), row["aware"]
assert row["decimal"] == Decimal("1.10"), repr(row["decimal"])
assert str(row["uuid"]) == str(uuid.UUID(int=5))
assert (row["np_int"], row["np_float"], row["np_bool"]) == (5, 0.5, True)
assert row["np_nan"] is None and row["nat"] is None and row["na"] is None
assert row["big"] == 2**60 and row["inf"] == float("inf")
assert json.loads(row["json"])["at"] == "2020-01-01T00:00:00.000Z", row["json"]
assert json.loads(row["json"])["d"] == "1.5" and json.loads(row["json"])["u"].endswith("1")
assert row["text date"] == date(2020, 1, 1), repr(row["text date"])
assert isinstance(row["text time"], datetime)
assert row["bool text"] is True and row["zip"] == 123
assert row["emoji 🎉"] == "🎉" and row["select"] == "keyword" and row["a.b"] == 1 and row["UPPER"] == 1
assert shapes.read_sql(f'select "emoji 🎉", "a.b", "UPPER", "select" from {shapes}')[0]["select"] == "keyword"

frame = pd.DataFrame(
    {
        "when": pd.to_datetime(["2020-01-01", None]),
        "count": [1, 2],
        "word": ["a", None],
        "mixed": [{"a": 1}, [1, 2]],
        "flag": pd.array([True, None], dtype="boolean"),
        "category": pd.Categorical(["x", "y"]),
    },
    index=[10, 20],
)
shapes.append(frame)
shapes.flush()
assert shapes.record_count == 3
last = shapes.read()[-1]
assert last["when"] is None and last["word"] is None and last["flag"] is None and last["category"] == "y"
assert "index" not in last

# Widening: what was a number becomes text, and stays what it was.
shapes.append([{"zip": "K1A 0B1"}, {"np_int": 2.5}])
shapes.flush()
rows = shapes.read()
assert rows[-2]["zip"] == "K1A 0B1", rows[-2]
assert rows[-1]["np_int"] == 2.5
