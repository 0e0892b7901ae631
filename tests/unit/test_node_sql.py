"""SQL nodes and SQL from Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_apps import Nodes


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    nodes = Nodes(tmp_path, "a", "b", "output_table", "empty")
    nodes.app.append("a", [{"n": n, "kind": "odd" if n % 2 else "even"} for n in range(5)])
    return nodes


def test_a_select_makes_a_new_version_of_the_output(nodes: Nodes) -> None:
    sql = """
    -- comments may hold '{{'
    select kind, count(*), sum(n) as total from {{ Table("a") }}
    where n < {{ Parameter("limit", type=int, default=4) }} group by 1 order by kind desc;
    """
    run = nodes.ok(sql, name="q.sql", parameters={"limit": "5"})
    assert nodes.rows("output_table") == [
        {"kind": "odd", "count": 2, "total": 4},
        {"kind": "even", "count": 3, "total": 6},
    ]
    run = nodes.ok(sql, name="q.sql")
    assert nodes.rows("output_table")[1] == {"kind": "even", "count": 2, "total": 2} and run.logs == []
    nodes.ok("""
        t = Table("output_table")
        assert t.read()[0] == {"kind": "odd", "count": 2, "total": 4}
        assert [r["kind"] for r in t.as_stream()] == ["odd", "even"]
        assert [r["kind"] for r in t.as_stream(order_by="count")] != []
    """)


def test_an_empty_result_is_a_version_with_columns(nodes: Nodes) -> None:
    nodes.ok("select n, kind from {{ Table('a') }} where n > 100", name="q.sql")
    nodes.ok(
        "t = Table('output_table'); assert t.exists and t.schema.field_names() == ['n', 'kind'] and t.read() == []"
    )


def test_output_is_wired_by_the_map(nodes: Nodes) -> None:
    nodes.ok("select 1 as x", name="q.sql", outputs={"output_table": "b"}, inputs={})
    assert nodes.rows("b") == [{"x": 1}]


def test_errors_of_sql_nodes_say_where(nodes: Nodes) -> None:
    assert "'empty' has no active version" in str(nodes.run("select * from {{ Table('empty') }}", name="q.sql").error)
    alone = nodes.run("select * from {{ Table('nowhere') }}", name="q.sql")
    assert "'nowhere' is not connected to a store" in str(alone.error) and "jinja2" not in str(alone.outcome.traceback)
    assert "q.sql:2" in str(nodes.run("select n,\n  nothing from {{ Table('a') }}", name="q.sql").error)
    assert "q.sql" in str(nodes.run("select {{ Tabel('a') }}", name="q.sql").error)
    assert nodes.run("select 1/0", name="q.sql").error == "q.sql: SqlError: division by zero"
    assert nodes.app.table("output_table").records == []


def test_write_mode_tables_take_statements(nodes: Nodes) -> None:
    insert = "insert into {{ Table('b', mode='w') }} select n, kind from {{ Table('a') }} where n > 2"
    nodes.ok(insert, name="q.sql")
    nodes.ok(insert, name="q.sql")
    assert [row["n"] for row in nodes.rows("b")] == [3, 4, 3, 4]
    nodes.ok("create table {{ Table('b', 'w') }} as select 1 as one", name="c.sql")
    assert nodes.rows("b") == [{"one": 1}]


def test_the_first_insert_makes_the_columns_that_it_lists(nodes: Nodes) -> None:
    """As later ones do: an expression has no name of its own."""
    insert = (
        """insert into {{ Table('b', mode='w') }} ("N x", kind) select n * 10, kind from {{ Table('a') }} where n > 3"""
    )
    nodes.ok(insert, name="q.sql")
    nodes.ok(insert, name="q.sql")
    assert [(row["N x"], row["kind"]) for row in nodes.rows("b")] == [(40, "even")] * 2
    nodes.app.table("c")
    few = nodes.run("insert into {{ Table('c', mode='w') }} (x, y) values (1)", name="q.sql")
    assert "more target columns than expressions" in str(few.error) and nodes.rows("c") == []


def test_read_sql_joins_templates_and_frames(nodes: Nodes) -> None:
    nodes.app.append("b", [{"kind": "odd", "doc": {"x": 1}, "vec": [1.5, 2.0]}])
    nodes.ok("""
        a, b = Table("a"), Table("b")
        assert a.read_sql(f"select count(*) from {a} join {b} using (kind)") == [{"count": 2}]
        assert a.read_sql("select max(n) from {{ a }}") == [{"max": 4}]
        frame = a.read_sql(f"select n, kind from {a} order by n desc", as_format="dataframe")
        assert frame["n"].tolist() == [4, 3, 2, 1, 0]
        assert [len(c) for c in a.read_sql(f"select n from {a}", chunksize=2)] == [2, 2, 1]
        row = b.read_sql(f"select * from {b}")[0]
        assert row["doc"] == '{"x":1}' and row["vec"] == [1.5, 2.0] and len(row["patterns_id"]) == 26, row
        assert b.read()[0] == row
        try:
            a.read_sql("select * from {{ empty }}")
        except Exception as error:
            assert "empty" in str(error)
        Table("empty")
        assert a.read_sql("select n, n + 1 as n from a where n = 1") == [{"n": 2}]
    """)


def test_execute_sql_changes_rows_of_the_run_and_of_before(nodes: Nodes) -> None:
    nodes.ok("""
        t = Table("a", "w")
        t.append([{"n": 10, "kind": "own"}, {"n": 11, "kind": "own"}])
        t.execute_sql(f"update {t} set kind = 'changed', n = n + 100 where n in (1, 10)")
        t.execute_sql(f"delete from {t} where n in (0, 11)")
        t.execute_sql(f"insert into {t} (n, kind) values (7, 'new')")
        rows = sorted((r["n"], r["kind"]) for r in t.read())
        assert rows == [(2, "even"), (3, "odd"), (4, "even"), (7, "new"), (101, "changed"), (110, "changed")], rows
        assert t.record_count == 6
    """)
    assert sorted(row["n"] for row in nodes.rows("a")) == [2, 3, 4, 7, 101, 110]


def test_execute_sql_in_a_version_that_is_not_finished(nodes: Nodes) -> None:
    nodes.ok("""
        import pandas as pd
        t = Table("a", "w")
        t.reset()
        t.append([{"n": n} for n in range(4)])
        t.append(pd.DataFrame({"n": range(100, 400)}))
        t.execute_sql(f"delete from {t} where n in (2, 150) or n > 200")
        assert [r["n"] for r in t.read()] == [0, 1, 3, *range(100, 150), *range(151, 201)]
        t.execute_sql(f"truncate {t}")
        t.append({"n": 5})
    """)
    assert nodes.rows("a") == [{"n": 5}]


def test_create_table_as_from_python(nodes: Nodes) -> None:
    nodes.ok("""
        t = Table("empty", "w")
        name = str(t)
        t.execute_sql(f"create table {name} as select n * 2 as m from {Table('a')} order by n desc")
        assert [r["m"] for r in t.read_sql(f"select m from {name}")] == [8, 6, 4, 2, 0]
        assert [r["m"] for r in t.read_sql(f"select m from {t}")] == [8, 6, 4, 2, 0]
    """)
    assert [row["m"] for row in nodes.rows("empty")] == [8, 6, 4, 2, 0]


def test_create_table_with_columns(nodes: Nodes) -> None:
    """The other way in which SQL makes a table: its types are as declared, and rows come later."""
    nodes.app.table("made")
    nodes.ok("""
        t = Table("made", "w")
        t.execute_sql(f'create table {t} (id bigint primary key, "Name" varchar(9) not null, n numeric(12, 2), j jsonb)')
        assert t.exists and t.read() == []
        assert [str(f.field_type) for f in t.schema.fields] == [
            "Integer", "Text", "Decimal(precision=12, scale=2)", "Json"
        ]
        t.execute_sql(f"insert into {t} values (1, 'x', 2.5, '[1]')")
        t.execute_sql(f'insert into {t} (id, "Name") values (2, null)')
        assert t.read()[1] == {"id": 2, "Name": None, "n": None, "j": None}
    """)
    nodes.ok('create table {{ Table("made", "w") }} (a int)', name="empty.sql")
    assert nodes.rows("made") == []
    run = nodes.run("t = Table('made', 'w'); t.execute_sql(f'create table {t} (a int default 5)')")
    assert run.error is not None and "default" in run.error


def test_the_engine_of_sqlalchemy(nodes: Nodes) -> None:
    nodes.ok("""
        from sqlalchemy import text
        table = Table("a")
        engine = table._get_db_api().get_engine()
        with engine.connect() as connection:
            cursor = connection.execute(text(f"select kind, count(*) from {table} group by 1 order by 1"))
            assert list(cursor.keys()) == ["kind", "count"]
            assert [tuple(row) for row in cursor] == [("even", 3), ("odd", 2)]
            try:
                connection.execute(text("select nope from nope"))
            except Exception as error:
                assert "nope" in str(error.orig)
            else:
                assert False
    """)


def test_sql_reaches_no_table_that_it_does_not_name_and_no_file(nodes: Nodes) -> None:
    run = nodes.run("Table('a').read_sql(\"select * from read_csv('/etc/passwd')\")")
    assert run.outcome.kind == "failed"


def test_json_scalars_of_a_query_stay_what_they_are(nodes: Nodes) -> None:
    """`j -> 'x'` is 3 in PostgreSQL, not a list that holds 3."""
    nodes.app.table("docs")
    nodes.app.table("scalars")
    nodes.ok("Table('docs', 'w').append([{'id': n, 'j': {'x': n, 's': '12', 'none': None}} for n in range(3)])")
    code = "select id, j -> 'x' as x, j -> 's' as s, j -> 'none' as none from {{ Table('docs') }} order by id"
    nodes.ok(code, name="scalars.sql", outputs={"output_table": "scalars"})
    assert nodes.rows("scalars")[2] == {"id": 2, "x": "2", "s": '"12"', "none": None}
    nodes.ok("""
        t = Table("scalars")
        rows = list(t.as_stream(order_by="id"))
        assert rows[2] == {"id": 2, "x": 2, "s": "12", "none": None}, rows
        assert t.schema.get_field("x").field_type.name == "Json"
        assert t.read_sql("select x, x::text::int + 1 as y from {{ scalars }} where id = 2") == [{"x": "2", "y": 3}]
        w = Table("scalars", "w")
        w.execute_sql(f"update {w} set s = to_json('new'::text) where id = 0")
        assert [r["s"] for r in w.read_sql(f"select s from {w} order by id")] == ['"new"', '"12"', '"12"']
    """)
    run = nodes.run("for row in Table('scalars').as_stream(): raise ValueError(row['x'])", name="fails.py")
    assert not run.ok and nodes.app.dead_letters[-1].record == {"id": 1, "x": 1, "s": "12", "none": None}
