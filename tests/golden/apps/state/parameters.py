from datetime import date, datetime

from patterns import Connection, Parameter

number = Parameter("number", type=int)
ratio = Parameter("ratio", "how much", float)
flag = Parameter("flag", type=bool)
when = Parameter("when", type=datetime)
day = Parameter("day", type=date, default="2000-01-01")
since = Parameter("since", type=datetime, default="2000-01-01")
names = Parameter("names", type=list)
text = Parameter("text")
assert (number, ratio, flag, names, text) == (20, 0.7, True, ["a", "b"], "12"), (number, ratio, flag, names, text)
assert type(number) is int and type(flag) is bool
assert when == datetime(2021, 5, 4) and day == date(2000, 1, 1) and since == datetime(2000, 1, 1)
assert type(day) is date
assert Parameter("with.dots and spaces") == "x" and Parameter("multi") == "a\nb"
assert Parameter("none", default="fallback") == "fallback" and Parameter("none", default=None) is None
assert Parameter("absent", type=int, default=None) is None and Parameter("absent", type=int, default="7") == 7
conn = Parameter("conn", type=Connection("gmail"))
assert isinstance(conn, Connection) and isinstance(conn, dict) and not conn
assert (None or conn.get("access_token")) is None
missing = Parameter("missing", type=Connection("openai"))
assert missing.get("api_key") is None
