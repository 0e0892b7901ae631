import pandas as pd

from patterns import Table

orders = Table("orders")
other = Table("Some_Name", "r")
frame = orders.read_dataframe()
assert isinstance(frame, pd.DataFrame) and len(frame) == 3
assert orders.read(as_format="dataframe").equals(frame)
kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
assert kinds["paid"] == "boolean" and kinds["id"] == "Int64" and kinds["amount"] == "float64", kinds
assert kinds["name"] in ("string", "object") and kinds["day"].startswith("datetime64"), kinds
assert kinds["at"].startswith("datetime64"), kinds
frame["double"] = frame["amount"] * 2
joined = frame.merge(other.read_dataframe(), left_on="id", right_on="order_id", how="left")
assert joined["note"].tolist()[0] == "first"
print(frame)
print(joined.describe())
print(joined.to_string())
