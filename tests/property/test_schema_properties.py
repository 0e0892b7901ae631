"""Types as laws: the lattice, casting, widening, and rows that come back as what they were."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tailrace.tables.schema import (
    LONG_TEXT,
    TEXT,
    TYPE_NAMES,
    UNKNOWN,
    FieldType,
    RowEncoder,
    ValueCastError,
    arrow_schema,
    arrow_to_dataframe,
    arrow_to_records,
    cast_arrow,
    cast_value,
    compile_decoder,
    conform_arrow,
    encode_rows,
    fields_of_arrow,
    frame_to_arrow,
    infer_fields,
    infer_frame,
    infer_type,
    is_json,
    join,
    json_text,
    make_type,
    parse_type,
    rows_to_arrow,
    widen_value,
)

ordinary = settings(max_examples=200)

decimals = st.builds(
    lambda digits, scale: make_type("Decimal", precision=digits, scale=min(digits, scale)),
    st.integers(1, 38),
    st.integers(0, 38),
)
types = st.one_of(
    st.sampled_from(sorted(TYPE_NAMES)).map(make_type),
    st.just(UNKNOWN),
    decimals,
    st.sampled_from(["Text(5)", "Text(9)", "LongText(9)", "Binary(3)", "DateTime(timezone=True)"]).map(parse_type),
    st.sampled_from(["Array(items=Integer)", "Array(items=Float)"]).map(parse_type),
)

zones = st.sampled_from([None, UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))])
moments = st.builds(
    lambda moment, zone: moment.replace(tzinfo=zone),
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),
    zones,
)
texts = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=12),  # lone surrogates and NUL too
    st.sampled_from(
        ["", "null", "NA", "true", "007", "1,234", "1.0", "2020-01-01", "2020-01-01T10:00:00Z", "{}", "[]"]
    ),
    st.integers().map(str),
    st.floats(allow_nan=False).map(str),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9),
    st.decimals(),
    texts,
    st.dates(),
    moments,
    st.times(),
    st.timedeltas(timedelta(days=-(10**6)), timedelta(days=10**6)),
    st.binary(max_size=6),
)
documents = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
values = st.one_of(
    scalars,
    documents,
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4),
    st.lists(st.floats(), min_size=1, max_size=4),
)


def same(a: object, b: object) -> bool:
    """Equal, of one class, and for moments of one zone."""
    if type(a) is not type(b):
        return False
    if isinstance(a, datetime) and isinstance(b, datetime):
        return a == b and a.tzinfo == b.tzinfo
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


# The lattice


@ordinary
@given(types, types, types)
def test_join_is_a_least_upper_bound(a: FieldType, b: FieldType, c: FieldType) -> None:
    """Whatever order values come in, a field ends with the same type."""
    assert join(a, b) == join(b, a)
    assert join(join(a, b), c) == join(a, join(b, c))
    assert join(a, a) == a
    assert join(a, UNKNOWN) == a
    assert join(a, join(a, b)) == join(a, b)
    assert join(a, LONG_TEXT) == LONG_TEXT


@ordinary
@given(types)
def test_the_text_of_a_type_is_read_back(field_type: FieldType) -> None:
    """Log messages and Arrow metadata carry types as text."""
    assert parse_type(str(field_type)) == field_type
    assert fields_of_arrow(arrow_schema({"x": field_type})) == {"x": field_type}


# Casting and widening


@ordinary
@given(values)
def test_a_value_fits_the_type_inferred_for_it(value: object) -> None:
    """Inference never invents a type that refuses its own evidence, and casting twice changes nothing."""
    field_type = infer_type(value)
    cast = cast_value(value, field_type)
    assert same(cast_value(cast, field_type), cast)


@settings(max_examples=500)
@given(values, types)
def test_a_value_fits_every_type_above_its_own(value: object, other: FieldType) -> None:
    """So a field that has grown holds all that made it grow."""
    joined = join(infer_type(value), other)
    cast = cast_value(value, joined)
    assert same(cast_value(cast, joined), cast)


@settings(max_examples=500)
@given(values, types, types)
def test_widening_is_defined_wherever_casting_was(value: object, a: FieldType, other: FieldType) -> None:
    """A canonical value of a type can always be taken to a wider one, and in two steps as in one."""
    try:
        cast = cast_value(value, a)
    except ValueCastError:
        assume(False)
    b = join(a, other)
    widened = widen_value(cast, a, b)
    assert same(cast_value(widened, b), widened)


# Rows


@settings(max_examples=300)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), values, max_size=3), max_size=4))
def test_rows_come_back_as_what_they_were(rows: list[dict[str, object]]) -> None:
    """value -> infer -> cast -> JSON -> parse -> decode gives the canonical value, for streams and for reads."""
    encoder = RowEncoder({})
    body = encoder.encode(rows)
    fields = encoder.fields
    assert fields == infer_fields(rows, None)
    # One huge integer or lone surrogate has all of a body written by another library, which writes 1e-9 as 1e-09.
    bodies = (encode_rows(rows, fields), body, b"[" + b",".join(encoder.encode_each(rows)) + b"]")
    assert len({repr(json.loads(each)) for each in bodies}) == 1
    for for_stream in (True, False):
        decode = compile_decoder(fields, for_stream)
        decoded = [decode(row) for row in orjson.loads(body)]
        for row, got in zip(rows, decoded, strict=True):
            assert list(got) == list(fields)
            for name, field_type in fields.items():
                wanted = cast_value(row.get(name), field_type)
                if is_json(field_type) and not for_stream and wanted is not None:
                    wanted = json_text(wanted)
                assert same(got[name], wanted), (name, field_type)


@settings(max_examples=300)
@given(st.lists(values, max_size=4), types, st.booleans())
def test_arrow_holds_what_rows_hold(given_values: list[object], other: FieldType, for_stream: bool) -> None:
    """Rows -> Arrow -> rows is the identity, and widening a column is widening its values."""
    fields = {"x": infer_fields([{"x": value} for value in given_values], None).get("x", UNKNOWN)}
    rows = [{"x": cast_value(value, fields["x"])} for value in given_values]
    table = rows_to_arrow(rows, fields)
    assert fields_of_arrow(table.schema) == fields

    def shown(value: object, field_type: FieldType) -> object:
        return json_text(value) if is_json(field_type) and not for_stream and value is not None else value

    back = arrow_to_records(table, fields, for_stream)
    assert all(same(b["x"], shown(r["x"], fields["x"])) for b, r in zip(back, rows, strict=True))
    wider = {"x": join(fields["x"], other), "y": TEXT}
    widened = arrow_to_records(cast_arrow(table, fields, wider), wider, for_stream)
    for got, row in zip(widened, rows, strict=True):
        assert same(got["x"], shown(widen_value(row["x"], fields["x"], wider["x"]), wider["x"]))
        assert got["y"] is None


@settings(max_examples=200)
@given(st.lists(values, max_size=4))
def test_a_frame_of_objects_is_written_like_records(given_values: list[object]) -> None:
    """A DataFrame's column of objects holds the same values as records with them."""
    import pandas as pd

    frame = pd.DataFrame({"x": pd.Series(given_values, dtype=object)})
    fields = infer_frame(frame, None)
    assert fields == (infer_fields([{"x": value} for value in given_values], None) or {"x": UNKNOWN})
    got = arrow_to_records(frame_to_arrow(frame, fields), fields, True)
    for row, value in zip(got, given_values, strict=True):
        assert same(row["x"], cast_value(value, fields["x"]))


@settings(max_examples=100)
@given(st.lists(values, max_size=4))
def test_a_frame_that_was_read_can_be_written_again(given_values: list[object]) -> None:
    """Read a frame, append it elsewhere: the commonest thing that batch nodes do. Json has become text by then."""
    fields = {"x": infer_fields([{"x": value} for value in given_values], None).get("x", UNKNOWN)}
    table = rows_to_arrow([{"x": cast_value(value, fields["x"])} for value in given_values], fields)
    frame = arrow_to_dataframe(table, fields)
    assert list(frame.columns) == ["x"]
    again = frame_to_arrow(frame, fields)
    if fields["x"].name == "Decimal":  # float64 in frames, by the interfaces
        for a, b in zip(arrow_to_records(again, fields, True), arrow_to_records(table, fields, True), strict=True):
            assert (a["x"] is None) == (b["x"] is None)
            assert a["x"] is None or math.isclose(a["x"], b["x"], abs_tol=1e-5)
    else:
        assert again.equals(table)


def test_casting_refuses_with_the_field_and_the_value() -> None:
    """The message is all that the author of a dead letter has."""
    decode = compile_decoder({"n": parse_type("Integer")}, True)
    with pytest.raises(ValueCastError, match=r"field 'n': 'abc' is no Integer") as caught:
        decode({"n": "abc"})
    assert caught.value.field == "n"


def test_arrow_tables_of_others_conform() -> None:
    """Whatever Arrow types come in, they become ours by column."""
    import pyarrow as pa

    table = pa.table(
        {
            "small": pa.array([1, None], pa.int8()),
            "huge": pa.array([2**63 + 5, 1], pa.uint64()),
            "half": pa.array([1.5, float("nan")], pa.float32()),
            "word": pa.array(["a", "b"]).dictionary_encode(),
            "nested": pa.array([{"a": Decimal("1.5")}, None]),
            "when": pa.array([datetime(2020, 1, 1), None], pa.timestamp("ns", "Europe/Berlin")),
            "at": pa.array([time(1, 2), None], pa.time32("s")),
            "day": pa.array([date(2020, 1, 1), None], pa.date64()),
            "list": pa.array([[1, 2], None], pa.large_list(pa.int32())),
            "nothing": pa.nulls(2),
        }
    )
    from tailrace.tables.schema import infer_arrow

    fields = infer_arrow(table)
    got: list[dict[str, Any]] = arrow_to_records(conform_arrow(table, fields), fields, True)
    assert got == [
        {
            "small": 1,
            "huge": Decimal(2**63 + 5),
            "half": 1.5,
            "word": "a",
            "nested": {"a": "1.5"},
            "when": datetime(2020, 1, 1, tzinfo=UTC),
            "at": time(1, 2),
            "day": date(2020, 1, 1),
            "list": [1, 2],
            "nothing": None,
        },
        {**dict.fromkeys(table.column_names), "huge": Decimal(1), "word": "b"},
    ]
