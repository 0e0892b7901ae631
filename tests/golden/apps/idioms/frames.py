from datetime import datetime

import pandas as pd

from patterns import Table

numbers, framed = Table("numbers"), Table("framed", "w")
frame = numbers.read_dataframe()
frame["processed_at"] = datetime.now()
frame["day"] = pd.to_datetime("2021-01-31")
frame["label"] = frame["n"].map(lambda n: "even" if n % 2 == 0 else None)
frame["share"] = frame["n"] / frame["n"].sum()
framed.reset()
framed.append(frame)
again = framed.read_dataframe()
assert again["n"].tolist() == list(range(12))
assert again["processed_at"].dt.year.iloc[0] >= 2020 and again["day"].dt.month.iloc[0] == 1
assert int(again["label"].isna().sum()) == 6
assert abs(again["share"].sum() - 1) < 1e-9
grouped = again.groupby(again["label"].fillna("odd"))["n"].sum()
assert grouped["even"] == 30
framed.append(grouped.reset_index().rename(columns={0: "n"}))
framed.append(again.head(0))
framed.append(pd.DataFrame([[1, 2]]))
pivot = again.pivot_table(index="label", values="n", aggfunc=["sum", "mean"])
print(pivot, frame.dtypes)
last = framed.read()[-1]
assert last["0"] == 1 and last["1"] == 2, last
