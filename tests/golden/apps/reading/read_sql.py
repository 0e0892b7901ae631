import json

from patterns import Table

orders = Table("orders")
other = Table("Some_Name", description="keyword-like names must be quoted")

rows = orders.read_sql(f"select id, name from {orders} where amount > 5 order by id desc")
assert rows == [{"id": 3, "name": "naïve ☃"}, {"id": 1, "name": "O'Hara"}], rows

rows = orders.read_sql("select count(*) from {{ orders }}")
assert rows == [{"count": 3}], rows
rows = orders.read_sql("select count(*), max(note) from {{ Some_Name }} as t")
assert rows == [{"count": 2, "max": "third"}], rows

both = orders.read_sql(
    f"""
    select o.id, s.note
    from {orders} as o  -- a comment with '{{{{'
    left join {other} as s on s.order_id = o.id
    order by o.id
    """
)
assert both == [{"id": 1, "note": "first"}, {"id": 2, "note": None}, {"id": 3, "note": "third"}], both

frame = orders.read_sql(f"select id, amount from {orders} order by id", as_format="dataframe")
assert list(frame.columns) == ["id", "amount"] and frame["id"].tolist() == [1, 2, 3]
assert int(frame["amount"].isna().sum()) == 1

text = orders.read_sql(f"select address from {orders} where id = 1")[0]["address"]
assert json.loads(text)["city"] == "Köln", text
assert orders.read_sql(f'select "Length (minutes)" from {orders} where id = 1') == [{"Length (minutes)": 3}]
assert "patterns_id" in orders.read_sql(f"select * from {orders}")[0]
assert orders.read_sql(f"select * from {orders} limit 0") == []
assert orders.read_sql(f"select name like 'O%' as o from {orders} order by id")[0]["o"] is True
assert [len(chunk) for chunk in orders.read_sql(f"select id from {orders}", chunksize=2)] == [2, 1]
assert orders.read_sql(f"select format('%s%%', 62), 7 / 2, id::text from {orders} limit 1") == [
    {"format": "62%", "?column?": 3, "id": "1"}
]

from sqlalchemy import text as sql  # noqa: E402

engine = orders._get_db_api().get_engine()
cursor = engine.connect().execute(sql(f"select id, name from {orders} order by id"))
assert list(cursor.keys()) == ["id", "name"]
assert [tuple(row) for row in cursor][0] == (1, "O'Hara")
try:
    engine.connect().execute(sql(f"select no_such_column from {orders}"))
except Exception as error:
    assert "no_such_column" in str(error.orig), error
else:
    raise AssertionError("a wrong column must fail")
