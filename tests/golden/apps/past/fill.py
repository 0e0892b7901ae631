import datetime as dt

from patterns import State, Table

state = State()
start = state.get_value("filled", 0)
plain = Table("plain", "w")
plain.append([{"n": n, "at": dt.time(n % 24), "doc": {"n": [n]}} for n in range(start, start + 50)])
latest = Table("latest", "w")
latest.init(unique_on="key")
latest.upsert([{"key": n % 30, "n": n} for n in range(start, start + 50)])
latest.execute_sql(f"delete from {latest} where n = {start + 7}")
state.set_value("filled", start + 50)
