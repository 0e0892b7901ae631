"""Rows for node code: as records or frames, whole or in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrace.errors import RejectedError
from tailrace.tables.schema import TEXT, FieldType, arrow_to_dataframe, arrow_to_records

if TYPE_CHECKING:
    import pyarrow as pa

    from tailrace.node.store import RunStore

__all__ = ["FormatError", "Result", "check_format", "read_chunks", "read_table"]

_CHUNK_ROWS = 65_536


class FormatError(RejectedError, ValueError):
    """`as_format` is none that we know."""

    def __init__(self, as_format: object) -> None:
        self.as_format = as_format
        super().__init__(f'as_format is {as_format!r}: use "records" or "dataframe"')


class Result(NamedTuple):
    """Rows as Arrow tables of these fields."""

    fields: Mapping[str, FieldType]
    tables: Iterator[pa.Table]


def check_format(as_format: str) -> None:
    """Raises `FormatError` for anything but "records" and "dataframe"."""
    if as_format not in ("records", "dataframe"):
        raise FormatError(as_format)


def read_table(store: RunStore | None, as_format: str, chunksize: int | None) -> Any:
    """All rows of a store's active version; empty for none."""
    reader = store.reader() if store is not None else None
    if reader is None:
        return read_chunks(Result({}, iter(())), as_format, chunksize)
    fields = dict(reader.fields)
    id_name = reader.id_name
    if id_name:
        fields[id_name] = TEXT
    tables = reader.tables(min(chunksize or _CHUNK_ROWS, _CHUNK_ROWS), id_column=id_name)
    return read_chunks(Result(fields, tables), as_format, chunksize)


def read_chunks(result: Result, as_format: str, chunksize: int | None) -> Any:
    """Rows in the form that was asked for: whole, or as an iterator of `chunksize` rows each."""
    if chunksize is not None:
        if chunksize < 1:
            raise ValueError(f"chunksize is {chunksize}: it must be 1 or more")
        return _chunks(result, as_format, chunksize)
    if as_format == "dataframe":
        return _frame(result, list(result.tables))
    records: list[dict[str, Any]] = []
    for table in result.tables:
        records += arrow_to_records(table, result.fields, for_stream=False)
    return records


def _frame(result: Result, tables: list[pa.Table]) -> Any:
    import pandas as pd
    import pyarrow as pa

    if not tables:
        from tailrace.tables.schema import arrow_schema

        return (
            arrow_to_dataframe(arrow_schema(result.fields).empty_table(), result.fields)
            if result.fields
            else pd.DataFrame()
        )
    return arrow_to_dataframe(pa.concat_tables(tables), result.fields)


def _chunks(result: Result, as_format: str, chunksize: int) -> Iterator[Any]:
    import pyarrow as pa

    waiting: list[pa.Table] = []
    count = 0
    for table in result.tables:
        waiting.append(table)
        count += table.num_rows
        while count >= chunksize:
            whole = pa.concat_tables(waiting)
            yield _one(result, whole.slice(0, chunksize), as_format)
            rest = whole.slice(chunksize)
            waiting, count = ([rest] if rest.num_rows else []), rest.num_rows
    if count:
        yield _one(result, pa.concat_tables(waiting), as_format)


def _one(result: Result, table: pa.Table, as_format: str) -> Any:
    if as_format == "dataframe":
        return arrow_to_dataframe(table, result.fields)
    return arrow_to_records(table, result.fields, for_stream=False)
