"""Rows of every kind of value, from plain Python."""

from datetime import date, datetime, timezone
from decimal import Decimal

from patterns import Table

orders = Table("orders", "w")
other = Table("Some_Name", mode="w")
vectors = Table("vectors", "w")

orders.replace(
    [
        {
            "id": 1,
            "name": "O'Hara",
            "amount": 10.5,
            "paid": True,
            "tags": ["a", "b"],
            "address": {"city": "Köln", "lines": [{"n": 1}]},
            "day": date(2021, 5, 4),
            "at": datetime(2021, 5, 4, 10, 30, tzinfo=timezone.utc),
            "local": datetime(2021, 5, 4, 10, 30),
            "price": Decimal("12.30"),
            "none": None,
            "slack": "1671053386.12",
            "thousands": "1,234",
            "Length (minutes)": 3,
        },
        {"id": 2, "name": "", "amount": float("nan"), "paid": False, "later": "x", "address": {}, "tags": []},
        {"id": 3, "name": "naïve ☃", "amount": 7, "extra": {"deep": {"deeper": [1, {"x": None}]}}},
    ]
)
other.replace([{"order_id": 1, "note": "first"}, {"order_id": 3, "note": "third"}])
vectors.replace([{"text": "a", "embedding": [0.25, 1.0, -3.5]}, {"text": "b", "embedding": [1.0, 2.0, 3.0]}])
