"""Values through a node's Tables: four ways in, five ways out, also after the columns have become wider, and after the
rows went into the lake."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st
from table_reading import put_into_lake, trim_behind_lake

from patterns import Table
from tailrace.lake import LakeLocation
from tailrace.tables.schema import (
    RowEncoder,
    cast_value,
    from_stored,
    is_json,
    json_text,
    make_type,
    shown_type,
    stored_schema,
)
from tailrace.testing.app import TestApp

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
MOMENTS = st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1))
COLUMNS: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
    "text": TEXTS,
    "digits": st.from_regex(r"\A[0-9]{1,4}\Z"),
    "decimal": st.decimals(-(10**9), 10**9, places=3),
    "date": st.dates(date(1700, 1, 1), date(2250, 1, 1)),
    "moment": MOMENTS,
    "aware": MOMENTS.map(lambda value: value.replace(tzinfo=UTC)),
    "time": st.times(),
    "object": st.dictionaries(TEXTS, JSON, max_size=3),
    "list": st.lists(JSON, max_size=3),
    "vector": st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4),
}


@st.composite
def records(draw: st.DrawFn, *, rows_max: int = 6) -> list[dict[str, Any]]:
    """Rows whose columns hold one kind of value each, with gaps."""
    kinds = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, max_size=4, unique=True))
    columns = {f"{kind}_{at}": st.none() | COLUMNS[kind] for at, kind in enumerate(kinds)}
    row = st.fixed_dictionaries({}, optional=columns).filter(bool)
    return draw(st.lists(row, min_size=1, max_size=rows_max))


def one_by_one(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        Table("t", "w").append(row)


def together(rows: list[dict[str, Any]]) -> None:
    Table("t", "w").append(rows)


def as_frame(rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    frame = pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names})
    Table("t", "w").append(frame)


def expected(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What reads and streams are to give."""
    encoder = RowEncoder({})
    encoder.encode(rows)
    fields = {name: shown_type(kind) for name, kind in encoder.fields.items()}
    names = list(dict.fromkeys(name for row in rows for name in row))
    streamed = [{name: cast_value(row.get(name), fields[name]) for name in names} for row in rows]
    read = [
        {
            name: json_text(value) if value is not None and is_json(fields[name]) else value
            for name, value in row.items()
        }
        for row in streamed
    ]
    return read, streamed


def without_id(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "patterns_id"} for row in rows]


def of_frame(frame: Any) -> list[dict[str, Any]]:
    """A frame's values without what pandas makes of NULL."""
    rows: list[dict[str, Any]] = frame.to_dict("records")
    return [{name: None if is_null(value) else value for name, value in row.items()} for row in rows]


def is_null(value: Any) -> bool:
    return value is None or (not isinstance(value, list | dict) and bool(pd.isna(value)))


def plain(value: Any) -> Any:
    """What a frame may show differently without being wrong."""
    if isinstance(value, pd.Timestamp):
        return value.to_pydatetime(warn=False)
    if isinstance(value, date) and not isinstance(value, datetime):
        return datetime.combine(value, time())
    if isinstance(value, Decimal | float):
        return float(value)  # decimals are float64 in frames
    return value


def check_ways_out(read: list[dict[str, Any]], streamed: list[dict[str, Any]] | None, table: str = "t") -> None:
    port = Table(table)
    assert without_id(port.read()) == read
    assert without_id(port.read_sql(f"select * from {port}")) == read
    frame = without_id(of_frame(port.read_dataframe()))
    assert [{name: plain(value) for name, value in row.items()} for row in frame] == [
        {name: plain(value) for name, value in row.items()} for row in read
    ]
    if streamed is not None:
        assert without_id(list(port.as_stream())) == streamed


@pytest.mark.parametrize("write", [one_by_one, together, as_frame])
@settings(max_examples=15)
@given(rows=records())
def test_values_come_out_as_what_they_were(
    write: Callable[[list[dict[str, Any]]], None], rows: list[dict[str, Any]]
) -> None:
    """Whatever the way in, all ways out give the values that casting gives; in the run that wrote them, and after."""
    read, streamed = expected(rows)
    with TemporaryDirectory() as folder, TestApp(folder, stores=["t"], staging=folder) as app:
        with app.inside():
            write(rows)
            check_ways_out(read, None)
        with app.inside():
            check_ways_out(read, streamed)


@settings(max_examples=12)
@given(rows=records())
def test_values_through_sql_come_out_as_what_they_were(rows: list[dict[str, Any]]) -> None:
    read, streamed = expected(rows)
    with TemporaryDirectory() as folder, TestApp(folder, stores=["t", "output_table"], staging=folder) as app:
        app.append("t", rows)
        names = ", ".join('"' + name.replace('"', '""') + '"' for name in read[0])
        (Path(folder) / "q.sql").write_text(f"select {names} from {{{{ Table('t') }}}}")
        run = app.run("q.sql")
        assert run.ok, run.outcome.traceback
        with app.inside():
            check_ways_out(read, streamed, "output_table")


@settings(max_examples=15)
@given(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=2, max_size=3), st.data())
def test_all_ways_out_agree_after_widening(kinds: list[str], data: st.DataObject) -> None:
    """One column that is given values of other kinds, by other ways, in later runs."""
    ways = [one_by_one, together, as_frame]
    with TemporaryDirectory() as folder, TestApp(folder, stores=["t"], staging=folder) as app:
        for kind in kinds:
            values = data.draw(st.lists(COLUMNS[kind], min_size=1, max_size=3))
            with app.inside():
                data.draw(st.sampled_from(ways))([{"c": value} for value in values])
        with app.inside():
            read = without_id(Table("t").read())
            check_ways_out(read, None)
            field = Table("t").schema.get_field("c")  # type: ignore[union-attr]
            streamed = without_id(list(Table("t").as_stream()))
        assert make_type(field.field_type.name) is not None
        for one, other in zip(read, streamed, strict=True):
            value = other["c"]
            if is_json(field.field_type) and value is not None:
                assert orjson.loads(one["c"]) == value
            else:
                assert one["c"] == value


@settings(max_examples=10)
@given(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=2, max_size=3), st.data())
def test_the_lake_gives_the_same_after_widening_and_a_trim(kinds: list[str], data: st.DataObject) -> None:
    """Rows in the lake and gone from the log, wider ones after them, those in the lake too: all ways out give what they
    gave, and a Delta table, as another program reads it, holds just that."""
    ways = [one_by_one, together, as_frame]
    with (
        TemporaryDirectory() as folder,
        TestApp(folder, stores=["t"], staging=folder) as app,
        TestApp(folder, stores=["t"], staging=folder) as whole,
    ):
        lake = LakeLocation.parse(f"{folder}/lake")
        for kind in kinds:
            rows = [{"c": value} for value in data.draw(st.lists(COLUMNS[kind], min_size=1, max_size=3))]
            write = data.draw(st.sampled_from(ways))
            for each in (app, whole):
                with each.inside():
                    write(rows)
            if data.draw(st.booleans()):
                put_into_lake(app, "t", lake, Path(folder))
                trim_behind_lake(app, "t")
        with whole.inside():
            read, streamed = without_id(Table("t").read()), without_id(list(Table("t").as_stream()))
        with app.inside():
            check_ways_out(read, streamed)
        put_into_lake(app, "t", lake, Path(folder))
        trim_behind_lake(app, "t")
        with app.inside():
            Table("t").as_stream().rewind()
            check_ways_out(read, streamed)
            shown = Table("t").read("arrow")
        fields = app.table("t").fold.active.view(1 << 40).fields  # type: ignore[union-attr]
        ((snapshot, where),) = app.table("t").snapshots.values()
        delta = pa.table(DeltaTable(str(where)).to_pyarrow_table()).sort_by(snapshot.id_column)
        fields = {name: kind for name, kind in fields.items() if name != snapshot.id_column}
        stored = stored_schema(fields, id_column=snapshot.id_column)
        assert [(field.name, field.type) for field in delta.schema] == [(field.name, field.type) for field in stored]
        found = from_stored(delta, fields, id_column=snapshot.id_column)
        assert found.select(list(fields)).to_pylist() == shown.select(list(fields)).to_pylist()
