"""Tables in, Arrow out: names, types, order, streaming, and what an error says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.dataset
import pytest

from tailrace.sql import JSON_METADATA, Database, DatabaseLimits, SqlError, engine


@pytest.fixture
def database() -> Iterator[Database]:
    with Database(DatabaseLimits(threads=1)) as database:
        yield database


def test_names_of_any_case_are_quoted(database: Database) -> None:
    database.register("Leads_01k3x9v2qd", pa.table({"Full Name (x.y)": ["a"], "order": [1]}))
    table = database.query('select *, "Full Name (x.y)" as N from "Leads_01k3x9v2qd" as t')
    assert table.to_pylist() == [{"Full Name (x.y)": "a", "order": 1, "n": "a"}]


def test_a_list_may_stand_in_parentheses_twice(database: Database) -> None:
    """A parameter that is a list prints its own, and people write `in ({{ p }})` as well as `in {{ p }}`."""
    database.register("t", pa.table({"a": [1, 2, 3]}))
    for listed in ("(1, 2)", "((1, 2))", "((1))", "(1)"):
        assert database.query(f"select count(*) from t where a in {listed}").to_pylist()[0]["count"] in (1, 2)
    assert database.query("select a from t where a not in ((1, 2))").to_pylist() == [{"a": 3}]


def test_names_that_appear_twice_are_kept(database: Database) -> None:
    database.register("t", pa.table({"a": [1, 2]}))
    table = database.query('select count(*), count(a), a as "Count" from t group by a order by a')
    assert table.schema.names == ["count", "count", "Count"]
    assert [column.to_pylist() for column in table.columns] == [[1, 1], [1, 1], [1, 2]]


def test_hidden_columns_are_found_by_name_alone(database: Database) -> None:
    database.register("t", pa.table({"pid": ["x"], "a": [1]}), hidden=("pid",))
    assert database.query("select * from t").schema.names == ["a"]
    assert database.query("select pid, t.* from t").schema.names == ["pid", "a"]


def test_json_columns_stay_marked(database: Database) -> None:
    field = pa.field("j", pa.string(), metadata=JSON_METADATA)
    database.register("t", pa.Table.from_arrays([pa.array(['{"b":1,"a":[1.50,2]}', None])], schema=pa.schema([field])))
    table = database.query("select j, j ->> 'b' as b, j -> 'a' as a, (select j from t limit 1) as again from t")
    assert [f.metadata for f in table.schema] == [JSON_METADATA, None, JSON_METADATA, JSON_METADATA]
    assert table.column("j").to_pylist() == ['{"b":1,"a":[1.50,2]}', None]
    assert table.schema.field("j").type == pa.string()


def test_broken_json_is_an_error_only_where_it_is_read(database: Database) -> None:
    field = pa.field("j", pa.string(), metadata=JSON_METADATA)
    source = pa.Table.from_arrays([pa.array(["{"]), pa.array([1])], schema=pa.schema([field, ("a", pa.int64())]))
    database.register("t", source)
    assert database.query("select a from t").num_rows == 1
    with pytest.raises(SqlError, match="JSON"):
        database.query("select j ->> 'a' from t")


def test_types_that_leave(database: Database) -> None:
    table = database.query(
        "select sum(g) as big, sum(g::bigint) as numeric, now() as moment, null as nothing, gen_random_uuid() as uuid, "
        "array_agg(g) as list, avg(g) as mean, 1::smallint as small, '\\x41'::bytea as bytes, round(0.7, 3) as r "
        "from generate_series(1, 3) g"
    )
    assert {field.name: str(field.type) for field in table.schema} == {
        "big": "int64",
        "numeric": "decimal128(38, 0)",
        "moment": "timestamp[us, tz=UTC]",
        "nothing": "string",
        "uuid": "string",
        "list": "list<item: int32>",
        "mean": "decimal128(38, 16)",
        "small": "int16",
        "bytes": "binary",
        "r": "decimal128(5, 3)",
    }
    assert str(table.column("r")[0].as_py()) == "0.700"


def test_avg_is_exact_to_sixteen_digits(database: Database) -> None:
    """A double would say 66.66666666666667 and 0.3333333333333333 with noise behind."""
    table = database.query("select 200 / 3.0 as a, 1 / 3.0 as b, 2 / 3.0 as c, -2 / 3.0 as d, 1e15 / 7 as e")
    assert [str(value) for value in table.to_pylist()[0].values()] == [
        "66.6666666666666667",
        "0.3333333333333333",
        "0.6666666666666667",
        "-0.6666666666666667",
        "142857142857142.8571428571428571",
    ]


def test_distinct_values_of_an_aggregate_come_in_their_order(database: Database) -> None:
    """PostgreSQL finds doubles by sorting; without that, each run could give another text."""
    values = "(values (3, 'c'), (1, 'b'), (2, 'a'), (3, 'b'), (null, null)) as v(n, s)"
    sql = (
        f"select string_agg(distinct s, ',') as t, array_agg(distinct n) as a, json_agg(distinct n) as j from {values}"
    )
    (row,) = database.query(sql).to_pylist()
    assert (row["t"], row["a"]) == ("a,b,c", [1, 2, 3, None]) and row["j"] == "[1,2,3,null]"


def test_row_order_is_that_of_the_source(database: Database) -> None:
    rows = list(range(200_000, 0, -1))
    database.register("t", pa.table({"a": rows}))
    assert database.query("select a from t").column(0).to_pylist() == rows
    assert database.query("select a from t where a % 2 = 0").column(0).to_pylist() == [a for a in rows if a % 2 == 0]


def test_batches_stream_in_order(database: Database) -> None:
    database.register("t", pa.table({"a": range(10_000)}))
    batches = list(database.query_batches("select a as B from t order by a desc", rows_max=3_000))
    assert all(batch.num_rows <= 3_000 for batch in batches)
    assert [a for batch in batches for a in batch.column(0).to_pylist()] == list(range(9_999, -1, -1))
    assert batches[0].schema.names == ["b"]


def test_another_query_in_the_middle_of_a_stream(database: Database) -> None:
    """Apps ask for something else for each chunk that they read."""
    database.register("t", pa.table({"a": range(50_000)}))
    seen = []
    for batch in database.query_batches("select a from t", rows_max=7_000):
        seen += batch.column(0).to_pylist()
        assert database.query(f"select count(*) from t where a <= {seen[-1]}").column(0)[0].as_py() == len(seen)
    assert seen == list(range(50_000))


def test_an_error_in_a_stream_is_ours(database: Database) -> None:
    with pytest.raises(SqlError, match="division by zero"):
        list(database.query_batches("select 1 / (g - 5000) from generate_series(1, 9000) g", rows_max=100))


@pytest.mark.parametrize("kind", ["table", "batch", "reader", "dataset", "empty"])
def test_sources(database: Database, kind: str) -> None:
    table = pa.table({"a": [1, 2], "m": pa.array([datetime(2020, 1, 1, tzinfo=UTC)] * 2, pa.timestamp("us", "UTC"))})
    sources = {
        "table": table,
        "batch": table.to_batches()[0],
        "reader": table.to_reader(),
        "dataset": pa.dataset.dataset(table),
        "empty": table.slice(0, 0),
    }
    database.register("t", sources[kind])
    expected = table.slice(0, 0) if kind == "empty" else table
    for _ in range(2):  # a reader too is read twice
        assert database.query("select * from t").to_pylist() == expected.to_pylist()


def test_a_table_is_replaced_and_forgotten(database: Database) -> None:
    database.register("t", pa.table({"a": [1]}))
    database.register("t", pa.table({"b": ["x"]}))
    assert database.query("select * from t").to_pylist() == [{"b": "x"}]
    database.unregister("t")
    with pytest.raises(SqlError, match='relation "t" does not exist'):
        database.query("select * from t")


def test_columns_that_differ_by_case_are_told_apart(database: Database) -> None:
    """Raw objects of an API have such keys; a dataset's columns cannot be renamed, so there they are refused."""
    database.register("t", pa.table({"ID": [2], "id": [1]}))
    assert database.query("select * from t").to_pylist() == [{"ID": 2, "id": 1}]
    assert database.query('select id + "ID" as both, ID from t where "ID" = 2').to_pylist() == [{"both": 3, "id": 1}]
    database.register("t", pa.table({"ID": [2], "id": [1], "place": ["x"]}), hidden=("place",))
    changed = database.changes('update t set "ID" = 5', "place").inserted
    assert changed is not None and changed.to_pylist() == [{"ID": 5, "id": 1}]
    table = pa.dataset.dataset(pa.table({"id": [1], "ID": [2]}))
    with pytest.raises(SqlError, match="ID, id of table t differ by case alone"):
        database.register("t", table)


def test_parameters_are_values(database: Database) -> None:
    database.register("t", pa.table({"s": ["a", "'; drop table t; --"]}))
    table = database.query("select s, :n + 1 as n from t where s = :s", {"s": "'; drop table t; --", "n": 1})
    assert table.to_pylist() == [{"s": "'; drop table t; --", "n": 2}]
    with pytest.raises(SqlError, match='no value for parameter "x"'):
        database.query("select :x")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select\n  nope\nfrom t", 'line 2: column "nope" does not exist'),
        ("select tset from t", 'column "tset" does not exist. Perhaps you meant "test"'),
        ("select * from\n  leads", 'line 2: relation "leads" does not exist'),
        ("select x.a from t", 'missing FROM-clause entry for table "x"'),
        ("select a from t, t as u", 'column reference "a" is ambiguous'),
        ("select t.a from t join t on true", 'table name "t" specified more than once'),
        (
            "select cuont(*) from t",
            'function cuont\\(\\) does not exist or is not supported. Perhaps you meant "count"',
        ),
        ("select round(a::float, 2) from t", "Cast to numeric: round\\(x::numeric, 2\\)"),
        ("select upper(a, a) from t", "function upper\\(bigint, bigint\\) does not exist"),
        ("select a from t order by 5", "ORDER BY position 5 is not in select list"),
        ("select 1 union select 1, 2", "same number of columns"),
        ("select (select a, test from t)", "only one column"),
        ("select a::point from t", "type point is not supported"),
        ("select 'x'::int", 'invalid input syntax for type integer: "x"'),
        ("select 2147483647 + 1", "out of range"),
        ("select * exclude (a) from t", "EXCLUDE"),
        ("select a from t qualify a > 1", "QUALIFY|syntax"),
        ("select a as x from t where x = 1", 'column "x" does not exist'),
        ("update t set a = 1", "a SELECT is expected, not update"),
    ],
)
def test_errors_say_what_and_where(database: Database, sql: str, message: str) -> None:
    database.register("t", pa.table({"a": [1], "test": [2]}))
    with pytest.raises(SqlError, match=message):
        database.query(sql)


def test_queries_of_real_apps(database: Database) -> None:
    """Shapes that SQL nodes in the wild have."""
    database.register(
        "Events_01",
        pa.table(
            {
                "Created (UTC)": pa.array([datetime(2024, 1, 5), datetime(2024, 2, 5), datetime(2024, 2, 6)], pa.timestamp("us")),
                "amount": pa.array([Decimal("1.10"), Decimal("2.25"), None], pa.decimal128(16, 6)),
                "plan.name": ["a", "b", "a"],
            }
        ),
    )  # fmt: skip
    table = database.query(
        """
        WITH monthly AS (
            SELECT date_trunc('month', "Created (UTC)") AS month, COUNT(*), sum(amount) FROM "Events_01" GROUP BY 1
        )
        select month::date, count, round(sum, 2), format('%s%%', trunc(100.0 * count / (select count(*) from "Events_01"), 1)) as share,
          row_number() over (order by month desc)
        from monthly order by month;
        """
    )
    assert table.schema.names == ["month", "count", "round", "share", "row_number"]
    assert [[str(value) for value in row.values()] for row in table.to_pylist()] == [
        ["2024-01-01", "1", "1.10", "33.3%", "2"],
        ["2024-02-01", "2", "2.25", "66.6%", "1"],
    ]


def test_sqlalchemy(database: Database) -> None:
    """`engine.connect().execute(text(sql))`, `.keys()`, iteration, and errors with `.orig`."""
    from sqlalchemy import exc, text

    database.register("Leads_01", pa.table({"n": [1, 2, None], "s": ["x", "y", "100%"]}))
    connection = engine(database).connect()
    result = connection.execute(
        text("select s, count(*) from \"Leads_01\" where n = :n or s like '%\\%' group by 1 order by 1"), {"n": 1}
    )
    assert list(result.keys()) == ["s", "count"]
    assert [tuple(row) for row in result] == [("100%", 1), ("x", 1)]
    with pytest.raises(exc.ProgrammingError) as caught:
        connection.execute(text('select nope from "Leads_01"'))
    assert str(caught.value.orig) == 'line 1: column "nope" does not exist'
    with pytest.raises(exc.ProgrammingError, match="a SELECT is expected"):
        connection.execute(text('delete from "Leads_01"'))
    connection.close()


def test_pandas_reads_through_the_engine(database: Database) -> None:
    import pandas as pd

    database.register("t", pa.table({"pid": ["p", "q"], "n": [1, 2]}), hidden=("pid",))
    assert pd.read_sql("select sum(n) from t", engine(database)).to_dict("list") == {"sum": [Decimal(3)]}
    assert pd.read_sql_table("t", engine(database)).to_dict("list") == {"n": [1, 2]}
