"""What a statement does and to which table; what it changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from tailrace.sql import Database, DatabaseLimits, SqlError, analyse


@pytest.mark.parametrize(
    ("sql", "kind", "target"),
    [
        ("select 1;", "select", None),
        ("  with x as (select 1) select * from x ; \n ", "select", None),
        ("(select 1) union select 2", "select", None),
        ("values (1)", "select", None),
        ('insert into "Some_Name" select 1', "insert", "Some_Name"),
        ("INSERT INTO Leads (a) values (1)", "insert", "leads"),
        ('create table "x_01" as select 1', "create-as", "x_01"),
        ("create table if not exists x as (select 1)", "create-as", "x"),
        ("update leads l set a = 1 from v where v.id = l.id", "update", "leads"),
        ("delete from leads where a = 1", "delete", "leads"),
        ("truncate table leads", "truncate", "leads"),
    ],
)
def test_kind_and_target(sql: str, kind: str, target: str | None) -> None:
    statement = analyse(sql)
    assert (statement.kind, statement.target) == (kind, target)
    assert not statement.sql.endswith(";")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("", "no statement"),
        (" ; ;", "no statement"),
        ("select 1; select 2", "2 statements"),
        ("drop table leads", "DROP TABLE is not allowed"),
        ("create table x (a int default 5)", "no default"),
        ("insert into other.leads select 1", "not in a schema"),
        ("truncate a, b", "TRUNCATE A, is not allowed"),
        ("selec 1", "not allowed|syntax error"),
        ("select 'unclosed", "syntax error"),
    ],
)
def test_refused(sql: str, message: str) -> None:
    with pytest.raises(SqlError, match=message):
        analyse(sql)


def test_syntax_errors_tell_the_line() -> None:
    with pytest.raises(SqlError) as caught:
        analyse("select a,\n  b c d\nfrom t")
    assert caught.value.line == 2


@pytest.fixture
def database() -> Iterator[Database]:
    rows: dict[str, list[Any]] = {"pid": ["a", "b", "c"], "n": [1, 2, None], "s": ["x", "y", "z"]}
    with Database(DatabaseLimits(threads=1)) as database:
        database.register("leads_01", pa.table(rows), hidden=("pid",))
        database.register("other", pa.table({"n": [2, 2, 9], "t": ["p", "q", "r"]}))
        yield database


def changed(database: Database, sql: str) -> tuple[str, list[dict[str, Any]] | None, list[str]]:
    changes = database.changes(sql, "pid")
    return str(changes.kind), None if changes.inserted is None else changes.inserted.to_pylist(), changes.deleted_ids


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("insert into leads_01 values (7, 'q')", ("insert", [{"n": 7, "s": "q"}], [])),
        ("insert into leads_01 (s) values ('q'), (null)", ("insert", [{"s": "q"}, {"s": None}], [])),
        ("insert into leads_01 (s, n) select t, n from other order by t desc limit 1", ("insert", [{"s": "r", "n": 9}], [])),
        ("insert into leads_01 (n) values ('5')", ("insert", [{"n": 5}], [])),
        ("with q as (select 4 as m) insert into leads_01 (n) select m from q", ("insert", [{"n": 4}], [])),
        ("delete from leads_01", ("delete", None, ["a", "b", "c"])),
        ("delete from leads_01 where n = 1 or s = 'z'", ("delete", None, ["a", "c"])),
        ("delete from leads_01 l using other o where o.n = l.n", ("delete", None, ["b"])),
        ("delete from leads_01 where n in (select n from other)", ("delete", None, ["b"])),
        ("update leads_01 set n = n * 10 where n is not null", ("update", [{"n": 10, "s": "x"}, {"n": 20, "s": "y"}], ["a", "b"])),
        ("update leads_01 set n = default, s = 'k' where s = 'x'", ("update", [{"n": None, "s": "k"}], ["a"])),
        ("update leads_01 set (n, s) = (s::int, n::text) where false", ("update", [], [])),
        ("update leads_01 as l set s = upper(l.s) || o.t from other o where o.n = l.n and o.t = 'p'", ("update", [{"n": 2, "s": "Yp"}], ["b"])),
        ("create table fresh as select n, count(*) from other group by n order by n", ("create-as", [{"n": 2, "count": 2}, {"n": 9, "count": 1}], [])),
        ("truncate leads_01", ("truncate", None, [])),
    ],
)  # fmt: skip
def test_changes(database: Database, sql: str, expected: tuple[Any, ...]) -> None:
    assert changed(database, sql) == expected


def test_an_update_by_several_rows_takes_one(database: Database) -> None:
    """As in PostgreSQL, a row changes once however many rows of FROM match it."""
    kind, rows, ids = changed(database, "update leads_01 set s = o.t from other o where o.n = leads_01.n")
    assert (kind, ids) == ("update", ["b"])
    assert rows is not None
    assert [row["s"] in ("p", "q") for row in rows] == [True]


def test_inserted_rows_have_the_tables_types(database: Database) -> None:
    inserted = database.changes("insert into leads_01 select 1.0, 5::text", "pid").inserted
    assert inserted is not None
    assert inserted.schema.types == [pa.int64(), pa.string()]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("select 1", "not a SELECT"),
        ("insert into nope values (1)", 'relation "nope" does not exist'),
        ("insert into leads_01 values (1, 'a', 2)", "more expressions than target columns"),
        ("insert into leads_01 (n, s) values (1)", "more target columns than expressions"),
        ("insert into leads_01 (nn) values (1)", 'column "nn" of relation "leads_01" does not exist.*"n"'),
        ("insert into leads_01 values (1) on conflict do nothing", "ON CONFLICT"),
        ("delete from leads_01 returning *", "RETURNING"),
        ("update leads_01 set n = 'x'", "invalid input syntax for type integer"),
        ("create table z as select 1 as a, 2 as a", 'column "a" specified more than once'),
        ("delete from other", 'no column "pid"'),
    ],
)
def test_changes_refused(database: Database, sql: str, message: str) -> None:
    with pytest.raises(SqlError, match=message):
        database.changes(sql, "pid")


def test_nothing_is_carried_out(database: Database) -> None:
    database.changes("delete from leads_01", "pid")
    assert database.query("select count(*) from leads_01").to_pylist() == [{"count": 3}]
