from datetime import date, datetime

from patterns import Table

facts = Table("facts", "w")
facts.replace(
    [
        {"id": n, "kind": "ab"[n % 2], "Length (minutes)": n * 10, "day": date(2021, 5, 1 + n), "at": datetime(2021, 5, 1 + n, n),
         "price": n / 4, "doc": {"k": [n]}, "epoch": 1600000000 + n}
        for n in range(6)
    ]
)
