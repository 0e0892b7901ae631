"""Typed fields in Arrow: the physical types, rows to tables and back, and widening by column.

| type | Arrow |
|---|---|
| Boolean, Integer, Float | bool, int64, float64 |
| Decimal(p, s) | decimal128(p, s) |
| Text, LongText, Unknown | string |
| Json, Struct, bare Array | string: JSON text |
| Array(items=...) | list<int64> or list<double> |
| Binary, LongBinary | binary |
| Date, Time, Interval | date32, time64[us], duration[us] |
| DateTime, with timezone | timestamp[us], timestamp[us, UTC] |

A type that its physical form does not tell is written in the Arrow field's metadata under `tailrace.type`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from tailrace.tables.schema.cast import caster
from tailrace.tables.schema.errors import DuplicateColumnError, ValueCastError
from tailrace.tables.schema.plain import json_text
from tailrace.tables.schema.types import (
    ARRAY_FLOAT,
    ARRAY_INTEGER,
    BINARY,
    BOOLEAN,
    DATE,
    DATETIME,
    DATETIME_TZ,
    FLOAT,
    INTEGER,
    INTERVAL,
    JSON,
    TEXT,
    TEXT_NAMES,
    TIME,
    UNKNOWN,
    FieldType,
    decimal_digits,
    is_json,
    make_type,
    parse_type,
)
from tailrace.tables.schema.widen import join, widener

if TYPE_CHECKING:
    import pyarrow as pa

    Column: TypeAlias = pa.ChunkedArray[Any]

__all__ = [
    "arrow_schema",
    "arrow_to_records",
    "arrow_type",
    "cast_arrow",
    "conform_arrow",
    "fields_of_arrow",
    "infer_arrow",
    "null_column",
    "rows_to_arrow",
    "widen_column",
]

_TYPE_KEY = b"tailrace.type"


def arrow_type(field_type: FieldType) -> pa.DataType:
    """The physical type of a field's column."""
    import pyarrow as pa

    if field_type.name == "Decimal":
        return pa.decimal128(*decimal_digits(field_type))
    if field_type.name == "DateTime":
        return pa.timestamp("us", tz="UTC" if field_type.get("timezone") else None)
    if field_type.name == "Array" and not is_json(field_type):
        return pa.list_(pa.int64() if field_type == ARRAY_INTEGER else pa.float64())
    makers: dict[str, Callable[[], pa.DataType]] = {
        "Boolean": pa.bool_,
        "Integer": pa.int64,
        "Float": pa.float64,
        "Binary": pa.binary,
        "LongBinary": pa.binary,
        "Date": pa.date32,
        "Time": lambda: pa.time64("us"),
        "Interval": lambda: pa.duration("us"),
    }
    return makers.get(field_type.name, pa.string)()


def arrow_schema(fields: Mapping[str, FieldType]) -> pa.Schema:
    """The Arrow schema of a Table with these fields, in their order; every column is nullable."""
    import pyarrow as pa

    made = []
    for name, field_type in fields.items():
        physical = arrow_type(field_type)
        told = natural_type(physical) == field_type
        made.append(pa.field(name, physical, metadata=None if told else {_TYPE_KEY: str(field_type).encode()}))
    return pa.schema(made)


def fields_of_arrow(schema: pa.Schema) -> dict[str, FieldType]:
    """The fields of an Arrow schema: the inverse of `arrow_schema`, and for schemas of others the type that fits.

    Nested columns are Json, lists of numbers Arrays, unsigned 64-bit integers Decimal(38, 0).

    Raises:
        DuplicateColumnError: rejected; two columns have one name.
    """
    fields: dict[str, FieldType] = {}
    for each in schema:
        if each.name in fields:
            raise DuplicateColumnError(each.name)
        written = (each.metadata or {}).get(_TYPE_KEY)
        field_type = natural_type(each.type)
        if written is not None:
            declared = parse_type(written.decode())
            field_type = declared if arrow_type(declared) == each.type else field_type
        fields[each.name] = field_type
    return fields


def infer_arrow(table: pa.Table) -> dict[str, FieldType]:
    """As `fields_of_arrow`, but unsigned 64-bit columns whose values fit are Integer."""
    fields = fields_of_arrow(table.schema)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if str(column.type) == "uint64":
            fields[name] = _unsigned_type(column)
    return fields


def _unsigned_type(column: Column) -> FieldType:
    import pyarrow.compute as pc

    highest = pc.max(column).as_py()
    return INTEGER if highest is None or highest < 2**63 else make_type("Decimal", precision=38, scale=0)


def natural_type(physical: pa.DataType) -> FieldType:
    from pyarrow import types

    if types.is_dictionary(physical) or types.is_run_end_encoded(physical):
        return natural_type(physical.value_type)
    if types.is_uint64(physical):
        return make_type("Decimal", precision=38, scale=0)
    if types.is_decimal(physical):
        return make_type("Decimal", precision=min(physical.precision, 38), scale=min(max(physical.scale, 0), 38))
    if types.is_timestamp(physical):
        return DATETIME if physical.tz is None else DATETIME_TZ
    if types.is_list(physical) or types.is_large_list(physical) or types.is_fixed_size_list(physical):
        if types.is_integer(physical.value_type) and not types.is_uint64(physical.value_type):
            return ARRAY_INTEGER
        return ARRAY_FLOAT if types.is_floating(physical.value_type) else JSON
    for test, field_type in (
        (types.is_null, UNKNOWN),
        (types.is_boolean, BOOLEAN),
        (types.is_integer, INTEGER),
        (types.is_floating, FLOAT),
        (types.is_date, DATE),
        (types.is_time, TIME),
        (types.is_duration, INTERVAL),
        (types.is_interval, INTERVAL),
        (types.is_nested, JSON),
    ):
        if test(physical):
            return field_type
    binary = types.is_binary(physical) or types.is_large_binary(physical) or types.is_fixed_size_binary(physical)
    return BINARY if binary or str(physical) == "binary_view" else TEXT


def rows_to_arrow(rows: Sequence[Mapping[str, Any]], fields: Mapping[str, FieldType]) -> pa.Table:
    """Rows as the decoder gives them, as a table of these fields; other keys are left out.

    Json values may be objects or JSON text.

    Raises:
        ValueCastError: rejected; a value is none of its field's type. It names the field.
    """
    import pyarrow as pa

    schema = arrow_schema(fields)
    columns = [
        values_to_array([row.get(name) for row in rows], name, field_type, canonical=True)
        for name, field_type in fields.items()
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def values_to_array(values: list[Any], name: str, field_type: FieldType, *, canonical: bool) -> pa.Array[Any]:
    """Python values as an Arrow array; they are cast one by one unless they are `canonical` already."""
    import pyarrow as pa

    physical = arrow_type(field_type)
    if canonical:
        try:
            return pa.array(_physical_values(values, field_type), type=physical)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            pass  # not canonical after all: the slow way casts, or names the value
    cast = caster(field_type)
    try:
        values = [cast(value) for value in values]
    except ValueCastError as error:
        raise error.at(name) from error
    return pa.array(_physical_values(values, field_type), type=physical)


def _physical_values(values: list[Any], field_type: FieldType) -> list[Any]:
    if not is_json(field_type):
        return values
    return [value if value is None or type(value) is str else json_text(value) for value in values]


def arrow_to_records(table: pa.Table, fields: Mapping[str, FieldType], for_stream: bool) -> list[dict[str, Any]]:
    """The rows of a table of these fields (and maybe more columns) as Python values, None for NULL.

    Json is an object for streams and JSON text for reads; an Array is a list in both.
    """
    found = fields_of_arrow(table.schema)
    lists = [
        _column_values(column, fields.get(name, found[name]), for_stream)
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    names = table.column_names
    return (
        [dict(zip(names, values, strict=True)) for values in zip(*lists, strict=True)]
        if names
        else [{} for _ in range(len(table))]
    )


def _column_values(column: Column, field_type: FieldType, for_stream: bool) -> list[Any]:
    """Faster than `to_pylist` by a factor of 3 to 30 where NumPy has the type."""
    import pyarrow as pa

    if is_json(field_type) and for_stream:
        return [None if text is None else orjson.loads(text) for text in column.to_pylist()]
    if field_type.name == "DateTime":
        moments: list[Any] = column.cast(pa.timestamp("us")).to_numpy().tolist()
        if field_type.get("timezone"):
            return [None if moment is None else moment.replace(tzinfo=UTC) for moment in moments]
        return moments
    if field_type.name == "Date":
        return column.to_numpy().astype("datetime64[D]").tolist()  # type: ignore[no-any-return]
    if field_type.name in ("Integer", "Float", "Boolean") and column.null_count == 0:
        return column.to_numpy().tolist()  # type: ignore[no-any-return]
    return column.to_pylist()


def cast_arrow(table: pa.Table, from_fields: Mapping[str, FieldType], to_fields: Mapping[str, FieldType]) -> pa.Table:
    """A table of `from_fields` as one of `to_fields`: each column widened as `widen_value` does, missing ones NULL.

    Columns that `to_fields` does not name are left out.
    """
    import pyarrow as pa

    columns: list[Any] = []
    for name, to_type in to_fields.items():
        if name in from_fields:
            columns.append(widen_column(table.column(name), from_fields[name], to_type))
        else:
            columns.append(null_column(len(table), to_type))
    return pa.Table.from_arrays(columns, schema=arrow_schema(to_fields))


# Where Arrow's own cast gives what `widen_value` gives. Not Float to Text ("1" for 1.0), nor Decimal to Float (not
# always the nearest).
_SAME_IN_ARROW = {
    ("Integer", "Float"),
    ("Integer", "Decimal"),
    ("Integer", "Text"),
    ("Integer", "LongText"),
    ("Boolean", "Integer"),
    ("Boolean", "Float"),
    ("Boolean", "Text"),
    ("Boolean", "LongText"),
    ("Decimal", "Decimal"),
    ("Date", "DateTime"),
    ("DateTime", "DateTime"),
    ("Array", "Array"),
}


def widen_column(column: Column, from_type: FieldType, to_type: FieldType) -> Any:
    """A column of one type as one of a wider type, each value as `widen_value` makes it."""
    widen = widener(from_type, to_type)
    physical = arrow_type(to_type)
    if column.null_count == len(column):
        return null_column(len(column), to_type)
    same_text = is_json(from_type) and to_type.name in TEXT_NAMES and not _holds_texts(column)
    if widen is None or same_text or ((from_type.name, to_type.name) in _SAME_IN_ARROW and not is_json(to_type)):
        return column.cast(physical, safe=False)
    return _mapped(column, from_type, to_type, widen)


def _holds_texts(column: Column) -> bool:
    """Whether a document of a Json column is a text alone: as Text it loses its quotes."""
    import pyarrow.compute as pc

    return bool(pc.any(pc.starts_with(column, pattern='"')).as_py())


def _mapped(column: Column, from_type: FieldType, to_type: FieldType, widen: Callable[[object], object]) -> Any:
    values = [None if value is None else widen(value) for value in _column_values(column, from_type, True)]
    return values_to_array(values, "", to_type, canonical=True)


def conform_arrow(table: pa.Table, fields: Mapping[str, FieldType]) -> pa.Table:
    """A table of whatever Arrow types as one of `fields`, by column: the way in of Arrow tables.

    NaN becomes NULL, times are cut to microseconds, dictionaries are decoded, nested columns become JSON text. What is
    marked as Json keeps its scalars: they are a query's.

    Raises:
        ValueCastError: rejected; a value is none of its field's type. It names the field.
    """
    import pyarrow as pa

    found = fields_of_arrow(table.schema)
    columns: list[Any] = []
    for name, field_type in fields.items():
        if name not in found:
            columns.append(null_column(len(table), field_type))
        elif is_json(field_type) and found[name] == field_type:
            columns.append(_conform_documents(table.column(name), name, field_type))
        else:
            columns.append(conform_column(table.column(name), name, field_type))
    return pa.Table.from_arrays(columns, schema=arrow_schema(fields))


def _conform_documents(column: Column, name: str, field_type: FieldType) -> Any:
    """A column of JSON text, each as we write it; JSON's null is NULL."""
    import pyarrow as pa

    if pa.types.is_nested(column.type):
        return conform_column(column, name, field_type)
    try:
        documents = [None if text is None else orjson.loads(text) for text in column.to_pylist()]
    except orjson.JSONDecodeError:
        return conform_column(column, name, field_type)  # which names the value
    return pa.array([None if each is None else json_text(each) for each in documents], pa.string())


def null_column(count: int, field_type: FieldType) -> Any:
    """A column of nothing but NULL."""
    import pyarrow as pa

    physical: Any = arrow_type(field_type)
    return pa.nulls(count, physical)


def conform_column(column: Column, name: str, to_type: FieldType) -> Any:
    """One column of any Arrow type, cast to `to_type`."""
    import pyarrow as pa

    from_type = _unsigned_type(column) if pa.types.is_uint64(column.type) else natural_type(column.type)
    column, from_type = _natural_column(column, from_type)
    if from_type == to_type:
        return column
    if join(from_type, to_type) == to_type:
        return widen_column(column, from_type, to_type)
    if {from_type, to_type} == {DATETIME, DATETIME_TZ}:
        return column.cast(arrow_type(to_type))
    if from_type == TEXT and arrow_type(to_type) == column.type and not is_json(to_type) and to_type != UNKNOWN:
        return column
    if (from_type, to_type) == (FLOAT, INTEGER):
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            pass  # the slow way names the value
    return values_to_array(_column_values(column, from_type, True), name, to_type, canonical=False)


def _durations(column: Column) -> Column:
    """SQL's intervals as lengths of time; a month has 30 days, as where PostgreSQL compares them."""
    import pyarrow as pa

    lengths = [
        None if each is None else timedelta(days=30 * each.months + each.days, microseconds=each.nanoseconds // 1000)
        for each in column.to_pylist()
    ]
    return pa.chunked_array([pa.array(lengths, pa.duration("us"))])


def _natural_column(column: Column, natural: FieldType) -> tuple[Column, FieldType]:
    """A column of any Arrow type in the physical form of its natural type, and that type."""
    import pyarrow as pa
    import pyarrow.compute as pc

    physical = arrow_type(natural)
    if natural == FLOAT:
        column = column.cast(physical)
        return pc.if_else(pc.is_nan(column), pa.scalar(None, physical), column), natural
    if natural == JSON or (natural == ARRAY_FLOAT and pc.any(pc.is_nan(pc.list_flatten(column))).as_py()):
        made = values_to_array(column.to_pylist(), "", natural, canonical=natural == JSON)
        return pa.chunked_array([made]), natural
    if column.type == physical:
        return column, natural
    if natural == UNKNOWN:
        return pa.chunked_array([null_column(len(column), natural)]), natural
    if pa.types.is_interval(column.type):
        return _durations(column), natural
    if pa.types.is_duration(column.type) or pa.types.is_temporal(column.type):
        return column.cast(physical, safe=False), natural
    try:
        return column.cast(physical), natural
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # a decimal256 over 38 digits, or a type of somebody's own
        made = pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())
        return pa.chunked_array([made]), TEXT
