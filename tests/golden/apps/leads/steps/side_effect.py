import pandas as pd

from patterns import Table

frame = Table("by_city").read_dataframe()
pd.set_option("display.width", 200)
print(frame)
