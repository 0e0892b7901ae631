"""DataFrames in and out, by column and through Arrow: never a list of a million dicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tailrace.tables.schema.arrow import (
    arrow_schema,
    arrow_type,
    conform_column,
    fields_of_arrow,
    natural_type,
    null_column,
    values_to_array,
)
from tailrace.tables.schema.errors import DuplicateColumnError
from tailrace.tables.schema.infer import infer_values
from tailrace.tables.schema.types import INTEGER, TEXT, FieldType, is_json, make_type

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["arrow_to_dataframe", "frame_to_arrow", "infer_frame"]


def infer_frame(frame: pd.DataFrame, sample_max: int | None = 100) -> dict[str, FieldType]:
    """The fields of a frame: by dtype, and for columns of objects by their first `sample_max` values (None: all).

    The index is no field. Column names become text.

    Raises:
        DuplicateColumnError: rejected; two columns have one name.
    """
    return {name: _infer_series(series, sample_max) for name, series in _columns(frame)}


def _columns(frame: pd.DataFrame) -> list[tuple[str, pd.Series[Any]]]:
    names: dict[str, None] = {}
    for column in frame.columns:
        if str(column) in names:
            raise DuplicateColumnError(str(column))
        names[str(column)] = None
    return [(name, frame.iloc[:, position]) for position, name in enumerate(names)]


def _is_objects(series: pd.Series[Any]) -> bool:
    """Whether only a look at the values tells what they are."""
    return series.dtype == object or str(series.dtype) == "category"


def _infer_series(series: pd.Series[Any], sample_max: int | None) -> FieldType:
    if _is_objects(series):
        return infer_values(iter(series), sample_max)
    if str(series.dtype) in ("uint64", "UInt64"):
        highest = series.max()
        fits = len(series) == series.isna().sum() or int(highest) < 2**63
        return INTEGER if fits else make_type("Decimal", precision=38, scale=0)
    import pyarrow as pa

    try:
        return natural_type(pa.array(series.iloc[:0], from_pandas=True).type)
    except (pa.ArrowException, TypeError, ValueError):  # periods, intervals, what others have made
        return infer_values(iter(series), sample_max)


def frame_to_arrow(frame: pd.DataFrame, fields: Mapping[str, FieldType]) -> pa.Table:
    """The frame as a table of `fields`: columns cast, missing ones NULL, others left out, the index dropped.

    Raises:
        ValueCastError: rejected; a value is none of its field's type. It names the field: `infer_frame` with
            `sample_max=None` gives types that hold every value.
        DuplicateColumnError: rejected; two columns have one name.
    """
    import pyarrow as pa

    series = dict(_columns(frame))
    columns: list[Any] = [
        _series_to_column(series[name], name, field_type) if name in series else null_column(len(frame), field_type)
        for name, field_type in fields.items()
    ]
    return pa.Table.from_arrays(columns, schema=arrow_schema(fields))


def _series_to_column(series: pd.Series[Any], name: str, field_type: FieldType) -> Any:
    import pyarrow as pa

    physical = arrow_type(field_type)
    if _is_objects(series):
        if field_type.name in ("Text", "LongText", "Float"):
            try:  # for these Arrow takes what the cast takes unchanged, and refuses the rest
                made = pa.array(series.astype(object), type=physical, from_pandas=True)
                return (
                    made if field_type.name != "Float" else conform_column(pa.chunked_array([made]), name, field_type)
                )
            except (pa.ArrowException, TypeError, ValueError):
                pass  # other objects are among them
        return values_to_array(list(series), name, field_type, canonical=False)
    try:
        made = pa.array(series, from_pandas=True)
        if isinstance(made.type, pa.BaseExtensionType):  # periods, intervals: Arrow holds how they are stored
            raise TypeError(made.type)
    except (pa.ArrowException, TypeError, ValueError):
        return values_to_array(list(series), name, field_type, canonical=False)
    column = made if isinstance(made, pa.ChunkedArray) else pa.chunked_array([made])
    return conform_column(column, name, field_type)


def arrow_to_dataframe(table: pa.Table, fields: Mapping[str, FieldType]) -> pd.DataFrame:
    """The table as a frame that can hold NULL in each column.

    Boolean is `boolean`, Integer `Int64`, Float and Decimal `float64`, Text `string`; Date and DateTime are
    `datetime64[ns]`, in UTC with timezone (`[us]` where years before 1678 or after 2261 need it); Json is `object`
    and holds JSON text, an Array `object` and lists; Time is `object`, Interval `timedelta64`.
    """
    import pandas as pd

    found = fields_of_arrow(table.schema)
    series = {
        name: _column_to_series(column, fields.get(name, found[name]))
        for name, column in zip(table.column_names, table.columns, strict=True)
    }
    return pd.DataFrame(series, columns=table.column_names, index=pd.RangeIndex(len(table)))


def _column_to_series(column: Any, field_type: FieldType) -> Any:
    import pandas as pd
    import pyarrow as pa

    extension: dict[str, Any] = {"Boolean": pd.BooleanDtype, "Integer": pd.Int64Dtype}
    name = field_type.name
    if arrow_type(field_type) == arrow_type(TEXT) and not is_json(field_type):
        extension[name] = pd.StringDtype
    if name in extension:
        return pd.Series(extension[name]().__from_arrow__(column))
    if name == "Decimal":
        # By text: Arrow's own cast multiplies, and 1.1 becomes 1.0999999999999999.
        return column.cast(pa.string()).cast(pa.float64()).to_pandas()
    if name in ("Date", "DateTime", "Interval"):
        if name == "Date":
            column = column.cast(pa.timestamp("us"))
        nanoseconds = pa.duration("ns") if name == "Interval" else pa.timestamp("ns", column.type.tz)
        try:
            column = column.cast(nanoseconds)
        except pa.ArrowInvalid:
            pass  # out of the range of 64 bits of nanoseconds: microseconds hold it
        return column.to_pandas()
    if name == "Array" and not is_json(field_type):
        return pd.Series(column.to_pylist(), dtype=object)
    return column.to_pandas()
