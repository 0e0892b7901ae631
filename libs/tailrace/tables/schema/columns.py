"""Parsed JSON rows to Arrow by column: the same values as row by row, many times as fast.

A column whose values are all of the classes that its type is written in goes to Arrow in one call: numbers as they
are, times and decimals by Arrow's own parsers. They refuse whatever they would read otherwise than `compile_decoder` does,
or are not asked. Any other column is decoded value by value, and one that its type cannot hold makes a row a misfit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from tailrace.tables.schema.arrow import arrow_schema, arrow_type, null_column, values_to_array
from tailrace.tables.schema.errors import ValueCastError
from tailrace.tables.schema.plain import json_text
from tailrace.tables.schema.rows import compile_decoder
from tailrace.tables.schema.types import ARRAY_INTEGER, FieldType, decimal_digits, is_json

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["columns_to_arrow", "rows_to_columns", "text_to_array"]

Misfits: TypeAlias = dict[int, ValueCastError]

_NONE: type = type(None)
_TEXTS: frozenset[type] = frozenset({str, _NONE})
_CLASSES: dict[str, frozenset[type]] = {
    "Boolean": frozenset({bool, _NONE}),
    "Integer": frozenset({int, _NONE}),
    "Float": frozenset({float, int, _NONE}),
    "Text": _TEXTS,
    "LongText": _TEXTS,
    "Date": _TEXTS,
    "DateTime": _TEXTS,
    "Decimal": _TEXTS,
    "Time": _TEXTS,
    "Array": frozenset({list, _NONE}),
}
"""What the values of a column that is not looked at one by one come as. NULLs alone are fine for every type."""

_DOCUMENTS = frozenset({dict, list, _NONE})
_DAY_MIN, _DAY_STOP = -719_162, 2_932_897
"""The first day of the year 1, and that after the year 9999, from 1970 on."""

_TIME = r"^[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?$"


def rows_to_columns(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    """The values of each name, None where a row does not have it."""
    columns = {}
    for name in names:
        try:
            columns[name] = list(map(itemgetter(name), rows))
        except KeyError:
            columns[name] = [row.get(name) for row in rows]
    return columns


def columns_to_arrow(
    columns: Mapping[str, list[Any] | pa.Array[Any]], count: int, fields: Mapping[str, FieldType]
) -> tuple[pa.Table, Misfits]:
    """Columns of `count` JSON values each, or canonical Arrow arrays, as a table of these fields; misfits are left out.

    Returns:
        The table, and for each row that is left out its number and the first error. Json is JSON text.
    """
    import pyarrow as pa

    misfits: Misfits = {}
    arrays: list[Any] = []
    for name, field_type in fields.items():
        values = columns.get(name)
        if values is None:
            arrays.append(null_column(count, field_type))
        elif isinstance(values, list):
            arrays.append(_to_array(values, name, field_type, misfits))
        else:
            arrays.append(values)
    if not fields:
        return pa.table({"": pa.nulls(count)}).select([]), misfits  # which still has its rows
    table = pa.Table.from_arrays(arrays, schema=arrow_schema(fields))
    if misfits:
        table = table.filter(pa.array([number not in misfits for number in range(count)], pa.bool_()))
    return table, misfits


def _to_array(values: list[Any], name: str, field_type: FieldType, misfits: Misfits) -> pa.Array[Any]:
    import pyarrow as pa

    classes = set(map(type, values))
    if classes <= {_NONE}:
        return null_column(len(values), field_type)  # type: ignore[no-any-return]
    try:
        if is_json(field_type):
            if classes <= _DOCUMENTS:
                return _documents(values)
        elif classes <= _CLASSES.get(field_type.name, frozenset()):
            made = _QUICK.get(field_type.name, _typed)(values, field_type)
            if made is not None:
                return made
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        pass  # something in it is not as we write it: one by one tells
    return _one_by_one(values, name, field_type, misfits)


def text_to_array(texts: Any, field_type: FieldType) -> pa.Array[Any] | None:
    """Dates, times and decimals that are written as text; None, or an error of Arrow's, where one of them is not as we
    write it."""
    if texts.null_count == len(texts):
        return null_column(len(texts), field_type)  # type: ignore[no-any-return]
    return _QUICK[field_type.name](texts, field_type)


def _one_by_one(values: list[Any], name: str, field_type: FieldType, misfits: Misfits) -> pa.Array[Any]:
    decode = compile_decoder({name: field_type}, for_stream=False)
    made: list[object] = []
    for number, value in enumerate(values):
        try:
            made.append(decode({name: value})[name])
        except ValueCastError as error:
            misfits.setdefault(number, error)
            made.append(None)
    return values_to_array(made, name, field_type, canonical=True)


def _typed(values: Sequence[Any], field_type: FieldType) -> pa.Array[Any] | None:
    import pyarrow as pa

    return pa.array(values, arrow_type(field_type))


def _documents(values: list[Any]) -> pa.Array[Any]:
    import pyarrow as pa

    dumps = orjson.dumps
    try:
        texts: Any = pa.array([None if each is None else dumps(each) for each in values], pa.binary())
    except orjson.JSONEncodeError:  # nested too deeply for it
        return pa.array([None if each is None else json_text(each) for each in values], pa.string())
    return texts.cast(pa.string())  # type: ignore[no-any-return]


def _moments(values: Sequence[Any], field_type: FieldType) -> pa.Array[Any] | None:
    """Dates and datetimes. Arrow knows the year 0, and a zone may lead over the last year."""
    import pyarrow as pa
    import pyarrow.compute as pc

    made: Any = pa.array(values, pa.string()).cast(arrow_type(field_type))
    day = field_type.name == "Date"
    ends: Any = pc.min_max(made.cast(pa.int32()) if day else made.cast(pa.int64())).as_py()
    unit = 1 if day else 86_400_000_000
    return made if ends["min"] >= _DAY_MIN * unit and ends["max"] < _DAY_STOP * unit else None


def _decimals(values: Sequence[Any], field_type: FieldType) -> pa.Array[Any] | None:
    precision, scale = decimal_digits(field_type)
    whole = (
        f"0*[0-9]{{1,{precision - scale}}}" if precision > scale else "0+"
    )  # Arrow overlooks some that are too large
    texts = _of_shape(values, rf"^-?{whole}(\.[0-9]{{1,38}})?$")
    return None if texts is None else texts.cast(arrow_type(field_type))


def _times(values: Sequence[Any], field_type: FieldType) -> pa.Array[Any] | None:
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = _of_shape(values, _TIME)
    if texts is None:
        return None
    moments: Any = pc.binary_join_element_wise("1970-01-01", texts, "T").cast(pa.timestamp("us"))
    return moments.cast(pa.time64("us"))  # type: ignore[no-any-return]


def _arrays(values: Sequence[Any], field_type: FieldType) -> pa.Array[Any] | None:
    items = set(map(type, chain.from_iterable(each for each in values if each is not None)))
    known = {int, _NONE} if field_type == ARRAY_INTEGER else {int, float, _NONE}
    return _typed(values, field_type) if items <= known else None


def _of_shape(values: Sequence[Any], pattern: str) -> Any:
    """The texts as an Arrow array, if all of them match."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts: Any = pa.array(values, pa.string())
    return texts if pc.all(pc.match_substring_regex(texts, pattern)).as_py() else None


_QUICK: dict[str, Callable[[Sequence[Any], FieldType], pa.Array[Any] | None]] = {
    "Date": _moments,
    "DateTime": _moments,
    "Decimal": _decimals,
    "Time": _times,
    "Array": _arrays,
}
