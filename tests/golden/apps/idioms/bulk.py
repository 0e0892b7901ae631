import pandas as pd

from patterns import Table

bulk = Table("bulk", "w")
bulk.replace(pd.DataFrame({"n": range(100_000), "word": [f"w{n}" for n in range(100_000)]}))
assert bulk.record_count == 100_000
assert bulk.read_sql(f"select count(*), sum(n) as total from {bulk}")[0]["count"] == 100_000
sizes = [len(chunk) for chunk in bulk.read(chunksize=30_000)]
assert sizes == [30_000, 30_000, 30_000, 10_000], sizes
bulk.append([{"n": n, "late": True} for n in range(20_000)])
bulk.append({"n": -1, "word": "last"})
assert bulk.read()[-1]["word"] == "last"
