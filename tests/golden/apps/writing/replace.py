import pandas as pd

from patterns import Table

log = Table("log", "w")
swap = Table("swap", mode="w")
names = []
for number in range(3):
    swap.replace([{"n": number}, {"n": number + 10}])
    log.append({"n": number})
    log.flush()
    names.append(swap.get_active_version().name if swap.get_active_version() else None)
assert [row["n"] for row in swap.read()] == [2, 12]
swap.replace({"n": 99})
assert [row["n"] for row in swap.read()] == [99]
swap.write([{"n": 5}], replace=True)
assert [row["n"] for row in swap.read()] == [5]
swap.replace(pd.DataFrame({"n": [6, 7]}))
assert swap.read_dataframe()["n"].tolist() == [6, 7]
swap.truncate()
assert swap.read() == [] and swap.exists and swap.record_count == 0
swap.append({"n": 8})
swap.reset()
assert not swap.exists and swap.read() == []
swap.append({"other": "schema"})
assert list(swap.read_dataframe().columns) and "n" not in swap.read()[0], swap.read()
