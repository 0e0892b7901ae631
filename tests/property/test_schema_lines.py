"""Arrow's own parser gives what the way by the row gives, or leaves it to that."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.tables.schema import columns_to_arrow, lines_to_arrow, parse_type, rows_to_columns

TYPES = ("Boolean", "Integer", "Float", "Text", "LongText", "Date", "DateTime", "DateTime(timezone=true)", "Time")
TYPES += ("Decimal(12,3)", "Json", "Array(Integer)")
PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "Boolean": st.booleans(),
    "Integer": st.integers(-(1 << 63), (1 << 63) - 1),
    "Float": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-10, 10),
    "Text": st.text(max_size=5),
    "Date": st.dates().map(str),
    "DateTime": st.datetimes().map(lambda at: at.isoformat()),
    "Time": st.times().map(str),
    "Decimal": st.decimals(allow_nan=False, allow_infinity=False, places=2).map(lambda each: f"{each:f}"),
    "Array": st.lists(st.integers(0, 9), max_size=3),
}
ODD = (
    st.none()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["0000-01-01", "2024-01-01", "7", "1.5", "T", "25:00:00"])
)
ODD |= st.lists(st.integers(0, 9), max_size=2) | st.dictionaries(st.text(max_size=2), st.integers(0, 9), max_size=2)


@st.composite
def messages(draw: st.DrawFn) -> tuple[dict[str, str], list[list[Any]]]:
    fields = draw(st.dictionaries(st.sampled_from(["a", "b", "ä", 'q"']), st.sampled_from(TYPES), min_size=1))
    odd = draw(st.sampled_from([0, 0, 1]))
    values = {
        name: st.none() | PLAIN.get(kind.partition("(")[0], st.text(max_size=5)) | (ODD if odd else st.none())
        for name, kind in fields.items()
    }
    row = st.fixed_dictionaries({}, optional=values)
    rows: st.SearchStrategy[Any] = (
        row if not odd else row | st.just(5) | st.dictionaries(st.text(max_size=2), ODD, max_size=2)
    )
    return fields, draw(st.lists(st.lists(rows, min_size=1, max_size=4), min_size=1, max_size=5))


@settings(max_examples=80)
@given(messages())
def test_what_arrow_parses_is_what_is_decoded(case: tuple[dict[str, str], list[list[Any]]]) -> None:
    """The same table, NULLs and all, from the same bytes."""
    fields = {name: parse_type(text) for name, text in case[0].items()}
    made = lines_to_arrow([orjson.dumps({"rows": rows}) for rows in case[1]], fields)
    if made is None:
        return
    table, counts = made
    assert list(counts) == [len(rows) for rows in case[1]]
    rows = [row for each in orjson.loads(orjson.dumps(case[1])) for row in each]
    expected, misfits = columns_to_arrow(rows_to_columns(rows, list(fields)), len(rows), fields)
    assert misfits == {}
    assert table.equals(expected), (table.to_pylist(), expected.to_pylist())


@pytest.mark.parametrize(
    "text",
    [
        b'{"rows":[{"a":"\xff","n":1}]}',
        b'{"rows":[{"a":"x","a":"y"}]}',
        b'{"rows":[{"a":"\\ud800"}]}',
        b'{"rows":[{"n":1.0}]}',
        b'{"rows":[{"n":9223372036854775808}]}',
        b'{"rows":[{"n":"5"}]}',
        b'{"rows":[{"n":NaN}]}',
        b'{"rows":[{"a":5}]}',
        b'{"rows":[{"z":NaN}]}',
        b'{"rows":[{"a":"x"}],"z":NaN}',
        b'{"rows":[{"a":"x"}],"rows":[]}',
        b'{"rows":[{"a":"x"}]} {"rows":[]}',
        b'{"rows":[null]}',
        b'{"rows":null}',
        b'{"rows":5}',
        b"{}",
        b"",
    ],
)
def test_what_is_not_as_we_write_it_is_left_to_the_other_way(text: bytes) -> None:
    """Readers that are more forgiving, or less, would show rows by one way and not by the other."""
    fields = {"a": parse_type("Text"), "n": parse_type("Integer")}
    plain = b'{"rows":[{"a":"x","n":1},{}]}'
    assert lines_to_arrow([plain, text, plain], fields) is None
    made = lines_to_arrow([plain, plain], fields)
    assert made is not None and made[0].num_rows == 4 and list(made[1]) == [2, 2]
