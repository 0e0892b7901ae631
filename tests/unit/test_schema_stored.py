"""How fields lie in the lake's files: what Delta cannot hold is written as what it can, and comes back as it was."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, Schema
from hypothesis import given
from hypothesis import strategies as st

from tailrace.tables.schema import (
    TEXT,
    TYPE_NAMES,
    UNKNOWN,
    FieldType,
    from_stored,
    make_type,
    parse_type,
    rows_to_arrow,
    stored_names,
    stored_schema,
    to_stored,
)

VALUES: dict[str, list[Any]] = {
    "Boolean": [True, False],
    "Integer": [-(2**63), 2**63 - 1],
    "Float": [1.5, float("inf")],
    "Decimal": [Decimal("1.500000")],
    "Decimal(38, 38)": [Decimal(1).scaleb(-38)],
    "Decimal(38, 0)": [Decimal(10**38 - 1)],
    "Text": ["007", "ü", ""],
    "Text(5)": ["x"],
    "LongText": ["x" * 70_000],
    "Binary": [b"", b"\xff"],
    "LongBinary": [b"\x00"],
    "Date": [date(1, 1, 1), date(9999, 12, 31)],
    "DateTime": [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999)],
    "DateTime(timezone=True)": [datetime(2020, 1, 1, 10, 30, tzinfo=UTC)],
    "Time": [time(10, 30), time(23, 59, 59, 999_999), time(10, 30, 0, 100_000), time()],
    "Interval": [timedelta(microseconds=-1), timedelta(days=400, seconds=3), timedelta()],
    "Json": ['{"a":[1]}', "[]"],
    "Struct": ['{"a":1}'],
    "Array": ['["a",null]'],
    "Array(items=Integer)": [[1, None, 2**63 - 1], []],
    "Array(items=Float)": [[1.5, float("inf")]],
}
TYPES: dict[str, FieldType] = {text: parse_type(text) for text in VALUES} | {"Unknown": UNKNOWN}


def test_every_type_is_tried() -> None:
    assert {each.name for each in TYPES.values()} == TYPE_NAMES | {"Unknown"}


def test_every_type_comes_back_from_a_file(tmp_path: Path) -> None:
    """Rows of a snapshot are exactly those that the log would give."""
    for text, kind in TYPES.items():
        fields = {"v": kind}
        table = rows_to_arrow([{"v": value} for value in [*VALUES.get(text, []), None]], fields)
        pq.write_table(to_stored(table, fields), tmp_path / "a.parquet")
        back = from_stored(pq.read_table(tmp_path / "a.parquet"), fields)
        assert back.equals(table, check_metadata=True), text


def test_delta_takes_every_type_and_keeps_what_is_said_of_it(tmp_path: Path) -> None:
    """The metadata tells the type and the name where the column does not, to whoever opens the table."""
    odd = dict.fromkeys(["a b,;{}()=\n\t", "", "x.y", "`q`", "Name", "name", "name_1", "ü\x00"], TEXT)
    schema = stored_schema({**TYPES, **odd}, not_null=["Integer", "name"], id_column="_patterns_id")
    DeltaTable.create(tmp_path.as_uri(), Schema.from_arrow(schema))
    found = pa.schema(DeltaTable(tmp_path.as_uri()).schema().to_arrow())
    assert found.equals(schema, check_metadata=True)
    assert not found.field("Integer").nullable
    assert not found.field("name_1").nullable
    assert found.field("name_1").metadata == {b"tailrace.name": b"name"}
    assert found.field("Time").metadata == {b"tailrace.type": b"Time"}
    assert found.field("DateTime").metadata is None


def test_times_and_intervals_are_iso_text() -> None:
    """Other readers have something to parse, and times sort."""
    fields = {"t": make_type("Time"), "i": make_type("Interval")}
    rows = [{"t": time(10, 30), "i": timedelta(days=1, seconds=3)}, {"t": time(10, 30, 0, 1), "i": timedelta()}]
    assert to_stored(rows_to_arrow(rows, fields), fields).to_pylist() == [
        {"t": "10:30:00", "i": "P1DT3S"},
        {"t": "10:30:00.000001", "i": "P0DT0S"},
    ]


@pytest.mark.parametrize(
    ("names", "stored"),
    [
        (["a", "b"], ["a", "b"]),
        (["a", "A", "b", "a_1"], ["a", "A_1", "b", "a_1_1"]),
        (["Ü", "ü"], ["Ü", "ü_1"]),
        (["x\0", "x_"], ["x_", "x__1"]),
        (["_Patterns_ID", "_patterns_id"], ["_Patterns_ID_1", "_patterns_id_2"]),
    ],
)
def test_names_that_differ_by_case_get_numbers(names: list[str], stored: list[str]) -> None:
    """Delta refuses such columns; the column of the ids comes before all others."""
    found = stored_names(dict.fromkeys(names, TEXT), id_column="_patterns_id")
    assert list(found.items()) == list(zip(names, stored, strict=True))


@given(st.lists(st.text("aA_1", max_size=4), unique=True))
def test_a_new_field_changes_no_column(names: list[str]) -> None:
    """Files that are there already keep their columns."""
    stored = list(stored_names(dict.fromkeys(names, TEXT)).values())
    assert len({each.lower() for each in stored}) == len(names)
    for count in range(len(names)):
        assert list(stored_names(dict.fromkeys(names[:count], TEXT)).values()) == stored[:count]


def test_a_file_that_is_older_than_a_field_has_none_of_it() -> None:
    """A new column is added to the table's schema only; ids lie anywhere in a file."""
    old, new = {"a": make_type("Integer")}, {"a": make_type("Integer"), "t": make_type("Time")}
    ids = pa.table({"a": pa.array([1], pa.int64()), "id": ["x"]})
    stored = to_stored(ids, old, id_column="_patterns_id")
    assert stored.column_names == ["a", "_patterns_id"]
    stored = stored.select(["_patterns_id", "a"])
    assert from_stored(stored, new, id_column="_patterns_id").to_pylist() == [{"a": 1, "t": None, "_patterns_id": "x"}]
    assert from_stored(stored, new).to_pylist() == [{"a": 1, "t": None}]
