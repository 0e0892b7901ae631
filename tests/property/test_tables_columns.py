"""Rows to Arrow by column are what they are row by row, whoever wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tailrace.tables.messages import Messages, decode_messages, decode_rows, webhook_message
from tailrace.tables.pieces import pieces_of
from tailrace.tables.schema import (
    TYPE_NAMES,
    FieldType,
    ValueCastError,
    columns_to_arrow,
    compile_decoder,
    make_type,
    parse_type,
    rows_to_arrow,
    rows_to_columns,
)
from tailrace.tables.staged import StagedFiles

types = st.one_of(
    st.sampled_from([*sorted(TYPE_NAMES), "Unknown"]).map(make_type),
    st.sampled_from(
        ["DateTime(timezone=True)", "Decimal(9, 2)", "Decimal(38, 38)", "Array(items=Integer)", "Array(items=Float)"]
    ).map(parse_type),
)
zones = st.sampled_from(["", "Z", "+00:00", "+05:30", "-0530", "+05", "+24:00", "+00:00:01"])
moments = st.builds(
    lambda moment, sep, cut, zone: (moment.isoformat(sep)[:cut] if cut else moment.isoformat(sep)) + zone,
    st.datetimes(),
    st.sampled_from(["T", " "]),
    st.sampled_from([0, 0, 0, 10, 13, 16, 19, 23, 25]),
    zones,
)
texts = st.one_of(
    moments,
    st.dates().map(str),
    st.times().map(str),
    st.timedeltas().map(str),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.decimals(places=2, allow_nan=False, allow_infinity=False, min_value=-(10**8), max_value=10**8).map(str),
    st.sampled_from(
        [
            "",
            "null",
            "NA",
            "true",
            "1,234",
            "1.",
            ".5",
            "+2",
            " 3",
            "1e3",
            "0e99999",
            "0000-01-01",
            "0000-00-00",
            "9999-12-31T23:59:59-01:00",
            "2020-01-01T24:00:00",
            "20200101",
            "{}",
            "[1]",
            "{",
            "aGk=",
            "P1DT3S",
            "24:00",
        ]
    ),
    st.text(max_size=6).filter(lambda text: text.isprintable()),
)
numbers = st.one_of(st.integers(-5, 5), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False))
plain = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.one_of(
    plain,
    st.lists(numbers, max_size=3),
    st.lists(plain, max_size=3),
    st.dictionaries(st.sampled_from("ab"), plain, max_size=2),
)
ONE_KIND = [plain, texts, moments, numbers, st.dates().map(str), st.times().map(str), st.lists(numbers), values]


def row_by_row(rows: list[dict[str, Any]], fields: dict[str, FieldType]) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """The reference: what each row's decoder gives, and who is refused."""
    decode = compile_decoder(fields, for_stream=False)
    good, misfits = [], {}
    for number, row in enumerate(rows):
        try:
            good.append(decode(dict(row)))
        except ValueCastError as error:
            misfits[number] = str(error)
    return good, misfits


@given(types, st.data())
@settings(max_examples=300)
@example(make_type("Date"), ["0000-01-01", "2020-01-01"])
@example(make_type("Decimal", precision=38, scale=38), ["50103652.11"])
def test_a_column_holds_what_its_rows_hold(field_type: FieldType, data: st.DataObject | list[Any]) -> None:
    """Arrow's own parsers are asked only where they agree with ours."""
    if isinstance(data, list):
        column = data
    else:
        kind = data.draw(st.sampled_from(ONE_KIND))
        column = data.draw(st.lists(kind | st.none(), min_size=1, max_size=4))
    rows = orjson.loads(orjson.dumps([{"v": each if abs_ok(each) else str(each)} for each in column]))
    fields = {"v": field_type}
    good, misfits = row_by_row(rows, fields)
    table, found = columns_to_arrow(rows_to_columns(rows, ["v"]), len(rows), fields)
    assert {number: str(error) for number, error in found.items()} == misfits
    expected = rows_to_arrow(good, fields)
    assert table.equals(expected, check_metadata=True), (table, expected)


def test_what_was_posted_is_read_as_it_was_posted() -> None:
    """Spaces, the order of keys, digits: whether it was posted alone or in an array."""
    texts = ['{ "b": 1.50, "a": [1, 2] }', '{"a":1}', "[ ]", '{"n": 12345678901234567890123, "t": "\\u00e9, ]}"}']
    alone = [webhook_message({"ts": 1}, text.encode(), 1) for text in texts]
    together = [webhook_message({"ts": 1}, " , ".join(texts).encode(), len(texts))]
    fields = {"timestamp": parse_type("DateTime"), "record": parse_type("Json")}
    for messages in (alone, together):
        batch = Messages(range(len(messages)), [1] * len(messages), [*map(len, messages)], b",".join(messages))
        pieces = list(pieces_of([batch], [(0, fields)], StagedFiles(Path()), 100))
        assert [text for piece in pieces for text in piece.table.column("record").to_pylist()] == texts


def abs_ok(value: object) -> bool:
    """Whether orjson writes it."""
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.integers(0, 3) | st.just("x"), max_size=3), max_size=5))
@settings(max_examples=100)
def test_a_row_is_left_out_whole(rows: list[dict[str, Any]]) -> None:
    """Missing values are NULL, unknown keys are nobody's; one value that does not fit takes its row away."""
    fields = {"a": make_type("Integer"), "b": make_type("Text"), "c": make_type("Integer")}
    good, misfits = row_by_row(rows, fields)
    table, found = columns_to_arrow(rows_to_columns(rows, list(fields)), len(rows), fields)
    assert {number: str(error) for number, error in found.items()} == misfits
    assert table.to_pylist() == good


@given(
    st.lists(
        st.sampled_from(
            [
                b'{"kind":"rows","n":1,"rows":[{"a":1}]}',
                b'{"kind":"rows","n":7,"rows":[{"a":1},{"rows":[1]}]}',
                b'{"kind":"rows","n":0,"rows":[]}',
                b'{"kind":"rows","rows":[1],"more":[2]}',
                b'{"kind":"rows","rows":[1],"rows":[2]} ',
                b'{"kind":"rows","rows":[1',
                b'{"rows":[3],"kind":"rows"}',
                b'{"kind":"signal"}',
                b"5",
            ]
        ),
        max_size=4,
    )
)
@settings(max_examples=100)
def test_rows_without_their_heads_are_the_rows(values: list[bytes]) -> None:
    """Heads are passed over only where what is left is nothing but rows."""
    batch = Messages(range(len(values)), [0] * len(values), [len(value) for value in values], b",".join(values))
    whole, short = decode_messages(batch), decode_rows(batch)
    assert [doc.get("rows") for doc in short] == [doc.get("rows") for doc in whole]
    assert [doc.get("kind") for doc in short] == [doc.get("kind") for doc in whole]
