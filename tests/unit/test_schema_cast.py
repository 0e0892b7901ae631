"""Casting on write, and rows as JSON."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from uuid import UUID

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pytest

from tailrace.tables.schema import (
    INTEGER,
    TEXT,
    FieldType,
    RowEncoder,
    ValueCastError,
    cast_value,
    compile_decoder,
    encode_rows,
    frame_to_arrow,
    json_text,
    parse_type,
    widen_column,
    widen_value,
)


class Colour(str, Enum):  # noqa: UP042 (its str() is not its value, unlike StrEnum's)
    RED = "red"


class Level(IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "type_text", "wanted"),
    [
        ("1,234", "Integer", 1234),
        (" 7 ", "Integer", 7),
        ("007", "Integer", 7),
        ("7.0", "Integer", 7),
        (7.0, "Integer", 7),
        (True, "Integer", 1),
        (np.int64(7), "Integer", 7),
        (Level.HIGH, "Integer", 3),
        *(
            (text, type_text, None)
            for text in ("", "NA", "null")
            for type_text in ("Integer", "Float", "DateTime", "Json")
        ),
        ("", "Text", ""),
        ("NA", "Text", "NA"),
        *((missing, "Text", None) for missing in (None, math.nan, pd.NaT, pd.NA, np.float64("nan"), Decimal("sNaN"))),
        (1, "Float", 1.0),
        ("1,234.5", "Float", 1234.5),
        ("-Infinity", "Float", -math.inf),
        (1.005, "Decimal(12, 2)", Decimal("1.01")),
        ("2.345", "Decimal(12, 2)", Decimal("2.35")),
        (-0.0, "Decimal(12, 2)", Decimal("0.00")),
        (2**100, "Decimal(38, 0)", Decimal(2**100)),
        ("t", "Boolean", True),
        ("F", "Boolean", False),
        (0, "Boolean", False),
        (1671053386, "DateTime", datetime(2022, 12, 14, 21, 29, 46)),
        ("1671053386.12", "DateTime", datetime(2022, 12, 14, 21, 29, 46, 120000)),
        (0, "DateTime(timezone=True)", datetime(1970, 1, 1, tzinfo=UTC)),
        ("2020-01-01T10:00:00+02:00", "DateTime", datetime(2020, 1, 1, 8)),
        ("2020-01-01T10:00:00+02:00", "DateTime(timezone=True)", datetime(2020, 1, 1, 8, tzinfo=UTC)),
        ("2020-01-01", "DateTime(timezone=True)", datetime(2020, 1, 1, tzinfo=UTC)),
        (datetime(2020, 1, 1, 0, 0, 0, 1), "DateTime", datetime(2020, 1, 1, 0, 0, 0, 1)),
        (pd.Timestamp("2020-01-01 00:00:00.123456789"), "DateTime", datetime(2020, 1, 1, 0, 0, 0, 123456)),
        (np.datetime64("2020-01-01T10:00", "ns"), "DateTime", datetime(2020, 1, 1, 10)),
        ("Wed, 21 Oct 2015 07:28:00 GMT", "DateTime", datetime(2015, 10, 21, 7, 28)),
        ("Jan 5 2020", "Date", date(2020, 1, 5)),
        (datetime(2020, 1, 1), "Date", date(2020, 1, 1)),
        ("10:30", "Time", time(10, 30)),
        (time(1, tzinfo=timezone(timedelta(hours=2))), "Time", time(23)),
        ("PT90S", "Interval", timedelta(seconds=90)),
        ("1 day, 2:03:04.5", "Interval", timedelta(1, 7384, 500000)),
        (str(timedelta(-1, 5)), "Interval", timedelta(-1, 5)),
        (90, "Interval", timedelta(seconds=90)),
        (pd.Timedelta("90s"), "Interval", timedelta(seconds=90)),
        ('{"a": 1}', "Json", {"a": 1}),
        (5, "Json", [5]),
        ("5", "Json", [5]),
        ({1: Decimal("1.50"), "t": (1, math.nan)}, "Json", {"1": "1.50", "t": [1, None]}),
        ({"at": datetime(2020, 1, 1, tzinfo=UTC)}, "Json", {"at": "2020-01-01T00:00:00.000Z"}),
        ({"n": 2**70, "a": np.array([1, 2])}, "Json", {"n": str(2**70), "a": [1, 2]}),
        (np.array([1.5, math.nan]), "Array(items=Float)", [1.5, None]),
        ([1, 2], "Array(items=Float)", [1.0, 2.0]),
        ([1.0], "Array(items=Integer)", [1]),
        ("[1, 2]", "Array(items=Integer)", [1, 2]),
        (b"abc", "Binary", b"abc"),
        ("YWJj", "Binary", b"abc"),
        (7, "Text", "7"),
        (1.0, "Text", "1.0"),
        (True, "Text", "true"),
        (Decimal("1E-7"), "Text", "0.0000001"),
        (datetime(2020, 1, 1, 10), "Text", "2020-01-01T10:00:00"),
        (timedelta(-1, 5), "Text", "-P0DT86395S"),
        (b"caf\xc3\xa9", "Text", "café"),
        (b"\xff", "Text", "/w=="),
        (UUID(int=1), "Text", "00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "Text", "red"),
        ("nul\0", "Text", "nul\0"),
        ("lone \ud83d", "Text", "lone \ufffd"),
        ("pair \ud83d\ude00", "Text", "pair \U0001f600"),
    ],
)
def test_casting(value: object, type_text: str, wanted: object) -> None:
    """One canonical value, of the canonical class, for each way a value can be written."""
    cast = cast_value(value, parse_type(type_text))
    assert cast == wanted
    assert type(cast) is type(wanted)


@pytest.mark.parametrize(
    ("value", "type_text"),
    [
        (1.5, "Integer"),
        ("abc", "Integer"),
        (2**63, "Integer"),
        (math.inf, "Integer"),
        ("1_000", "Integer"),
        ([1], "Integer"),
        (datetime(2020, 1, 1), "Integer"),
        ("1.0e999", "Float"),
        (10**400, "Float"),
        (1000, "Decimal(3, 1)"),
        (99.96, "Decimal(3, 1)"),
        (math.inf, "Decimal"),
        ("yes", "Boolean"),
        (2, "Boolean"),
        ("10:30", "DateTime"),
        (10**18, "DateTime"),
        (True, "DateTime"),
        (datetime(2020, 1, 1, 10), "Date"),
        ("soon", "Interval"),
        (timedelta.max, "Interval"),
        ("{", "Json"),
        (["a"], "Array(items=Float)"),
        ([True], "Array(items=Integer)"),
        ("not base64", "Binary"),
        ("word", "Unknown"),
    ],
)
def test_a_cast_that_would_lose_something_is_refused(value: object, type_text: str) -> None:
    """The row is dead-lettered or the field widens; nothing is cut off in silence."""
    with pytest.raises(ValueCastError) as caught:
        cast_value(value, parse_type(type_text))
    assert caught.value.value is value
    assert caught.value.type_text == str(parse_type(type_text))
    assert len(str(caught.value)) < 400


def test_documents_in_text_are_json_and_never_repr() -> None:
    """A real node hints Text for a dict and parses what the stream gives it."""
    assert json.loads(str(cast_value({"a": [1, None, True]}, TEXT))) == {"a": [1, None, True]}


def decoded(encoder: RowEncoder, rows: list[dict[str, object]], *, for_stream: bool = True) -> list[dict[str, object]]:
    body = encoder.encode(rows)
    decode = compile_decoder(encoder.fields, for_stream)
    return [decode(row) for row in orjson.loads(body)]


def shown(fields: dict[str, FieldType]) -> dict[str, str]:
    return {name: str(field_type) for name, field_type in fields.items()}


def test_fields_grow_with_the_rows() -> None:
    """New keys become fields, types widen; rows of earlier batches are widened by who reads them."""
    encoder = RowEncoder({"a": INTEGER})
    assert decoded(encoder, [{"a": 1}, {"a": 2.5, "b": "x"}]) == [{"a": 1.0, "b": None}, {"a": 2.5, "b": "x"}]
    assert shown(encoder.fields) == {"a": "Float", "b": "Text"}
    assert decoded(encoder, [{"a": "word", "b": {"k": 1}}]) == [{"a": "word", "b": '{"k":1}'}]
    assert shown(encoder.fields) == {"a": "Text", "b": "Text"}


def test_a_fixed_field_casts_and_widens_only_for_what_it_cannot_hold() -> None:
    """Declared types are kept while values can be cast, as a person would expect of a declaration."""
    encoder = RowEncoder({"id": TEXT, "n": INTEGER, "at": parse_type("DateTime")}, fixed={"id", "n", "at"})
    row = {"id": 17, "n": "1,234", "at": "2020-01-01T10:00:00Z"}
    assert decoded(encoder, [row]) == [{"id": "17", "n": 1234, "at": datetime(2020, 1, 1, 10)}]
    assert shown(encoder.fields) == {"id": "Text", "n": "Integer", "at": "DateTime"}
    assert decoded(encoder, [{"n": "many"}])[0]["n"] == "many"
    assert shown(encoder.fields)["n"] == "Text"


def test_without_growth_a_misfit_names_its_field_and_changes_nothing() -> None:
    """What cannot be held is an error, never a NULL."""
    with pytest.raises(ValueCastError, match="field 'a'") as caught:
        encode_rows([{"a": 1}, {"a": "word"}], {"a": INTEGER})
    assert caught.value.field == "a"
    assert encode_rows([{"new": Decimal("1.5")}], {"a": INTEGER}) == b'[{"new":"1.500000"}]'


@pytest.mark.parametrize("value", [2**63, 2**64, -(2**63) - 1])
def test_integers_beyond_64_bits_are_no_integers(value: int) -> None:
    """JSON takes some of them, Arrow none: the field becomes a Decimal before it is too late."""
    encoder = RowEncoder({"a": INTEGER})
    assert decoded(encoder, [{"a": 1}, {"a": value}]) == [{"a": Decimal(1)}, {"a": Decimal(value)}]
    with pytest.raises(ValueCastError, match="64 bits"):
        compile_decoder({"a": INTEGER}, True)({"a": 2**63})


def test_dict_subclasses_odd_keys_and_surrogates_are_written() -> None:
    """Objects of SDKs are appended as they are."""
    rows: list[dict[str, object]] = [OrderedDict(a=1), {7: "x\ud800", "n": {"k\ud800": {2: 3}}}]  # type: ignore[dict-item]
    assert decoded(RowEncoder({}), rows) == [
        {"a": 1, "7": None, "n": None},
        {"a": None, "7": "x\ufffd", "n": {"k\ufffd": {"2": 3}}},
    ]
    assert type(rows[0]) is OrderedDict  # what the caller gave is not touched


def test_the_rows_given_are_not_changed() -> None:
    """Node code goes on using its records."""
    row: dict[str, object] = {"at": datetime(2020, 1, 1), "n": Decimal("1.5")}
    RowEncoder({}).encode([row])
    assert row == {"at": datetime(2020, 1, 1), "n": Decimal("1.5")}


def test_decoding_orders_fills_and_keeps() -> None:
    """Schema order, None for what is missing, unknown keys at the end as they came."""
    decode = compile_decoder({"a": INTEGER, "j": parse_type("Json"), "v": parse_type("Array(items=Float)")}, False)
    got = decode({"x": [1], "v": [1, 2], "j": {"k": 1}})
    assert list(got.items()) == [("a", None), ("j", '{"k":1}'), ("v", [1.0, 2.0]), ("x", [1])]


@pytest.mark.parametrize("value", ["words", "", 5, 1.5, True, "{no document"])
def test_a_scalar_that_was_posted_is_read(value: object) -> None:
    """A webhook keeps whatever JSON came in: what cannot be a document must not make the rest unreadable."""
    fields = {"record": parse_type("Json")}
    assert compile_decoder(fields, for_stream=True)({"record": value}) == {"record": value}
    text = compile_decoder(fields, for_stream=False)({"record": value})["record"]
    assert isinstance(text, str) and orjson.loads(text) == value


def test_raw_values_are_read_by_the_type_of_the_field() -> None:
    """Webhook rows are kept as the bytes that came in; readers cast them."""
    decode = compile_decoder({"n": INTEGER, "at": parse_type("DateTime(timezone=True)"), "j": parse_type("Json")}, True)
    assert decode({"n": "1,234", "at": "2020-01-01", "j": "[1]"}) == {
        "n": 1234,
        "at": datetime(2020, 1, 1, tzinfo=UTC),
        "j": [1],
    }


def test_a_document_that_contains_itself_is_refused() -> None:
    """It would fill the memory or the stack."""
    loop: dict[str, object] = {}
    loop["self"] = loop
    with pytest.raises(ValueCastError, match="field 'a'"):
        RowEncoder({}).encode([{"a": loop}])
    with pytest.raises(ValueCastError, match="field 'a'"):
        RowEncoder({}).encode_each([{"a": [loop]}])


def test_deep_documents_are_held() -> None:
    """orjson reads 1,024 levels and writes 254: what came in must go out."""
    deep: object = math.nan
    for _ in range(300):
        deep = [deep]
    encoder = RowEncoder({})
    body = encoder.encode([{"a": deep}])
    assert body == b'[{"a":' + b"[" * 300 + b"null" + b"]" * 300 + b"}]"
    assert len(compile_decoder(encoder.fields, False)(orjson.loads(body)[0])["a"]) == 604


def test_a_frame_is_cast_by_column() -> None:
    """Declared types hold for frames as for records, and what does not fit is named."""
    frame = pd.DataFrame({"n": [1.0, None], "s": [1, 2], "j": [{"a": 1}, None], "more": [1, 2]})
    fields = {name: parse_type(text) for name, text in {"n": "Integer", "s": "Text", "j": "Json", "x": "Date"}.items()}
    assert frame_to_arrow(frame, fields).to_pylist() == [
        {"n": 1, "s": "1", "j": '{"a":1}', "x": None},
        {"n": None, "s": "2", "j": None, "x": None},
    ]
    with pytest.raises(ValueCastError, match=r"field 'n': 1\.5"):
        frame_to_arrow(pd.DataFrame({"n": [1.5]}), fields)


def test_importing_loads_nothing_heavy() -> None:
    """Every worker imports this; pandas alone takes a second."""
    code = "import sys, tailrace.tables.schema as s; print(*sorted({'pandas','pyarrow','numpy','yaml','dateutil'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_document_that_is_a_text_loses_its_quotes_whichever_way_it_is_widened() -> None:
    values = ["words", {"a": 1}, 'a "quoted" one', [1, "x"]]
    document, text = parse_type("Json"), parse_type("Text")
    column = widen_column(pa.chunked_array([[json_text(value) for value in values]]), document, text)
    assert column.to_pylist() == [widen_value(value, document, text) for value in values]
    assert column.to_pylist()[0] == "words"
