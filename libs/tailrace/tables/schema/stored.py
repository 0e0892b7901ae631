"""How fields lie in the lake's files, which any reader of Delta tables may open.

Delta knows neither times of day nor durations, and no two columns whose names differ by case only; everything else is
stored as `arrow_type` has it (DateTime without zone is Delta's `timestamp_ntz`).

| type | column in the lake |
|---|---|
| Time | string: `10:30:00` or `10:30:00.000001`, whose order is that of the times |
| Interval | string: ISO 8601 duration of days and seconds, such as `P1DT3S` |
| all others | as in `arrow_type` |

A type that its column does not tell is written in the column's metadata under `tailrace.type`, a name that had to
change under `tailrace.name`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from tailrace.tables.schema.arrow import arrow_schema, arrow_type, natural_type, null_column
from tailrace.tables.schema.plain import interval_from_text, interval_text
from tailrace.tables.schema.types import FieldType

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["from_stored", "stored_names", "stored_schema", "to_stored"]


def stored_names(fields: Mapping[str, FieldType], *, id_column: str | None = None) -> dict[str, str]:
    """The column of each field, in the fields' order; `id_column` is taken by the ids.

    The first of several names that differ by case keeps it, the later ones get `_1`, `_2`... NUL, which ends a name on
    its way through Arrow's C interface, becomes `_`. Fields that come later change no name of an earlier one.
    """
    taken = {id_column.lower()} if id_column is not None else set()
    names = {}
    for name in fields:
        wanted = stored = name.replace("\0", "_")
        number = 0
        while stored.lower() in taken:
            number += 1
            stored = f"{wanted}_{number}"
        taken.add(stored.lower())
        names[name] = stored
    return names


def stored_schema(
    fields: Mapping[str, FieldType], *, not_null: Collection[str] = frozenset(), id_column: str | None = None
) -> pa.Schema:
    """The Arrow schema of the files of a version with these fields; with `id_column`, that column at the end.

    `not_null` names fields, not columns. Delta keeps the metadata of each column.
    """
    import pyarrow as pa

    names = stored_names(fields, id_column=id_column)
    columns = []
    for name, field_type in fields.items():
        physical = _stored_type(field_type)
        metadata = {}
        if natural_type(physical) != field_type:
            metadata["tailrace.type"] = str(field_type)
        if names[name] != name:
            metadata["tailrace.name"] = name
        columns.append(pa.field(names[name], physical, name not in not_null, metadata or None))
    if id_column is not None:
        columns.append(pa.field(id_column, pa.string(), nullable=False))
    return pa.schema(columns)


def to_stored(table: pa.Table, fields: Mapping[str, FieldType], *, id_column: str | None = None) -> pa.Table:
    """A table of these fields as the files hold it: columns as in `stored_schema`.

    The ids are the last column of `table`, whatever it is called there: a field may have the same name.
    """
    import pyarrow as pa

    schema = stored_schema(fields, id_column=id_column)
    assert table.num_columns == len(schema), f"{table.column_names} are not the columns of {schema.names}"
    columns: list[Any] = [
        _to_text(column, kind) if kind.name in _TEXT_FORMS else column.cast(arrow_field.type)
        for column, arrow_field, kind in zip(table.columns, schema, fields.values(), strict=False)
    ]
    if id_column is not None:
        columns.append(table.column(table.num_columns - 1))
    return pa.Table.from_arrays(columns, schema=schema)


def from_stored(
    table: pa.Table,
    fields: Mapping[str, FieldType],
    *,
    id_column: str | None = None,
    columns: Collection[str] | None = None,
) -> pa.Table:
    """The inverse of `to_stored`: a table with the columns of `arrow_schema(fields)`, and the ids at its end.

    Columns are found by name, in any order and among others; one that a file does not have (it is older than the
    field) is NULL, the ids are left out. With `columns` only these of the fields are taken.
    """
    import pyarrow as pa

    names = stored_names(fields, id_column=id_column)
    if columns is not None:
        fields = {name: kind for name, kind in fields.items() if name in columns}
    schema = arrow_schema(fields)
    there = set(table.column_names)
    arrays: list[Any] = []
    for name, kind in fields.items():
        stored = names[name]
        if stored not in there:
            arrays.append(null_column(table.num_rows, kind))
        elif kind.name in _TEXT_FORMS:
            arrays.append(_from_text(table.column(stored), kind))
        else:
            arrays.append(table.column(stored).cast(schema.field(name).type))
    if id_column is not None and id_column in there:
        schema = schema.append(pa.field(id_column, pa.string()))
        arrays.append(table.column(id_column).cast(pa.string()))
    return pa.Table.from_arrays(arrays, schema=schema)


def _stored_type(field_type: FieldType) -> pa.DataType:
    import pyarrow as pa

    if field_type.name in _TEXT_FORMS:
        return pa.string()
    physical = arrow_type(field_type)
    if pa.types.is_list(physical):  # "element" is what Parquet and Delta call what is in a list
        return pa.list_(pa.field("element", physical.value_type))
    return physical


def _time_texts(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.replace_substring_regex(column.cast(pa.string()), r"\.000000$", "")


def _interval_texts(column: Any) -> Any:
    import pyarrow as pa

    texts = [None if value is None else interval_text(value) for value in column.to_pylist()]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _intervals(column: Any) -> Any:
    import pyarrow as pa

    values = [None if text is None else interval_from_text(text) for text in column.to_pylist()]
    return pa.chunked_array([pa.array(values, pa.duration("us"))])


def _times(column: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    # Arrow parses no times of day, but moments.
    return pc.binary_join_element_wise("1970-01-01", column, "T").cast(pa.timestamp("us")).cast(pa.time64("us"))


_TEXT_FORMS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "Time": (_time_texts, _times),
    "Interval": (_interval_texts, _intervals),
}
"""Types that Delta does not know: to text, and back."""


def _to_text(column: Any, kind: FieldType) -> Any:
    return _TEXT_FORMS[kind.name][0](column)


def _from_text(column: Any, kind: FieldType) -> Any:
    import pyarrow as pa

    return _TEXT_FORMS[kind.name][1](column.cast(pa.string()))
