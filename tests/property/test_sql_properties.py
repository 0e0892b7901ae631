"""Any value, any name: what goes in comes out, and nothing is taken for SQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.sql import Database, DatabaseLimits, SqlError, SqlTemplateError, quote_identifier, render, sql_literal

quick = settings(max_examples=60)

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
dangerous = st.one_of(texts, st.text("'\"\\;-/*{}%$e\n: ", max_size=20))
names = st.one_of(texts, st.text("aB\"'. -;{}%é", max_size=12)).filter(bool)
moments = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with Database(DatabaseLimits(threads=1)) as database:
        yield database


def asked(database: Database, sql: str) -> Any:
    return database.query(sql).column(0)[0].as_py()


@quick
@given(text=dangerous)
def test_a_text_literal_is_that_text(database: Database, text: str) -> None:
    """Also within a template, whose own signs it may hold."""
    assert asked(database, f"select {sql_literal(text)}") == text
    sql = render("select {{ Parameter('p') }}", table=str, parameter=lambda _: text, path="x.sql")
    assert asked(database, sql) == text
    database.register("t", pa.table({"a": [text]}))
    assert asked(database, f"select count(*) from t where a = {sql_literal(text)}") == 1


@quick
@given(number=st.integers(-(2**63) + 1, 2**63 - 1))
def test_an_integer_literal_is_that_number(database: Database, number: int) -> None:
    assert asked(database, f"select 0 - {sql_literal(number)}") == -number


@quick
@given(number=st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**12), max_value=10**12))
def test_a_decimal_literal_is_that_number(database: Database, number: Decimal) -> None:
    assert asked(database, f"select {sql_literal(number)}") == number


@quick
@given(day=st.dates(date(1900, 1, 1), date(2200, 1, 1)), moment=moments)
def test_moments_are_themselves(database: Database, day: date, moment: datetime) -> None:
    assert asked(database, f"select {sql_literal(day)}::date") == day
    assert asked(database, f"select {sql_literal(moment)}::timestamp") == moment


@quick
@given(items=st.lists(dangerous, max_size=5), item=dangerous)
def test_in_a_list(database: Database, items: list[str], item: str) -> None:
    found = asked(database, f"select coalesce({sql_literal(item)} in {sql_literal(items)}, false)")
    assert found == (item in items)


@quick
@given(name=names, column=names)
def test_any_name_can_be_quoted(database: Database, name: str, column: str) -> None:
    database.register(name, pa.table({column: [1]}))
    table = database.query(f"select {quote_identifier(column)}, * from {quote_identifier(name)} as t")
    assert table.schema.names == [column, column]
    database.unregister(name)


rows = st.lists(
    st.fixed_dictionaries(
        {
            "i": st.none() | st.integers(-(2**63), 2**63 - 1),
            "f": st.none() | st.floats(allow_nan=False),
            "t": st.none() | texts,
            "b": st.none() | st.booleans(),
            "d": st.none() | st.dates(date(1900, 1, 1), date(2200, 1, 1)),
            "m": st.none() | moments,
            "n": st.none() | st.decimals(places=6, min_value=-(10**9), max_value=10**9),
            "v": st.none() | st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=3),
        }
    ),
    max_size=8,
)
SCHEMA = pa.schema(
    [
        ("i", pa.int64()),
        ("f", pa.float64()),
        ("t", pa.string()),
        ("b", pa.bool_()),
        ("d", pa.date32()),
        ("m", pa.timestamp("us")),
        ("n", pa.decimal128(16, 6)),
        ("v", pa.list_(pa.float64())),
    ]
)


@quick
@given(rows=rows)
def test_select_star_gives_the_rows_back(database: Database, rows: list[dict[str, Any]]) -> None:
    """Values, types and order, whole and streamed."""
    database.register("t", pa.Table.from_pylist(rows, schema=SCHEMA))
    table = database.query("select * from t")
    assert table.to_pylist() == rows
    assert table.schema.types == SCHEMA.types
    streamed = [row for batch in database.query_batches("select * from t", rows_max=3) for row in batch.to_pylist()]
    assert streamed == rows


@quick
@given(rows=rows)
def test_order_by_puts_nulls_where_postgres_does(database: Database, rows: list[dict[str, Any]]) -> None:
    database.register("t", pa.Table.from_pylist(rows, schema=SCHEMA))
    up = database.query("select i from t order by i").column(0).to_pylist()
    assert up == sorted((row["i"] for row in rows), key=lambda i: (i is None, i or 0))
    assert database.query("select i from t order by i desc").column(0).to_pylist() == up[::-1]


@settings(max_examples=150)
@given(
    sql=st.one_of(
        dangerous,
        st.lists(
            st.sampled_from(
                [
                    "select",
                    "from",
                    "t",
                    "where",
                    "(",
                    ")",
                    ",",
                    "*",
                    "a",
                    "'",
                    '"',
                    ";",
                    "union",
                    "1",
                    "--",
                    "/*",
                    "*/",
                    "::",
                    "[",
                    "]",
                    "as",
                    "join",
                    "order",
                    "by",
                    "limit",
                ]
            )
        ).map(" ".join),
    )
)
def test_nonsense_is_an_error_of_ours(database: Database, sql: str) -> None:
    """Whatever is asked, nothing but an `SqlError` comes out of it."""
    database.register("t", pa.table({"a": [1]}))
    try:
        database.query(sql)
    except SqlError:
        pass


@settings(max_examples=150)
@given(
    source=st.one_of(
        dangerous,
        st.lists(
            st.sampled_from(
                [
                    "{{",
                    "}}",
                    "{%",
                    "%}",
                    "Table",
                    "('a')",
                    "if",
                    "for",
                    "x",
                    "in",
                    "endif",
                    " ",
                    ".",
                    "__class__",
                    "'",
                    "|",
                    "1",
                ]
            )
        ).map("".join),
    )
)
def test_nonsense_in_a_template_is_an_error_of_ours(source: str) -> None:
    try:
        render(source, table=str, parameter=lambda _: 1, path="x.sql")
    except SqlTemplateError:
        pass
