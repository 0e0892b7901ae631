"""Rows for node code: as records, frames or Arrow tables, whole or in chunks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrace.errors import RejectedError
from tailrace.tables.schema import TEXT, FieldType, arrow_schema, arrow_to_dataframe, arrow_to_records

if TYPE_CHECKING:
    import pyarrow as pa

    from tailrace.node.store import RunStore

__all__ = ["FormatError", "MomentError", "Result", "check_format", "read_chunks", "read_table"]

_CHUNK_ROWS = 65_536
FORMATS = ("records", "dataframe", "polars", "arrow")


class FormatError(RejectedError, ValueError):
    """`as_format` is none that we know."""

    def __init__(self, as_format: object) -> None:
        self.as_format = as_format
        super().__init__(f'as_format is {as_format!r}: use "records", "dataframe", "polars" or "arrow"')


class MomentError(RejectedError, ValueError):
    """`at` is no moment."""

    def __init__(self, at: object) -> None:
        self.at = at
        super().__init__(
            f'at is {at!r}: give a datetime, or a text such as "2026-01-31 12:00"; without a time zone, in UTC'
        )


class Result(NamedTuple):
    """Rows as Arrow tables of these fields."""

    fields: Mapping[str, FieldType]
    tables: Iterator[pa.Table]


def check_format(as_format: str) -> None:
    """Raises `FormatError` for anything but the names of `FORMATS`."""
    if as_format not in FORMATS:
        raise FormatError(as_format)


def read_table(store: RunStore | None, as_format: str, chunksize: int | None, at: Any = None) -> Any:
    """All rows of a store's active version, or of the one that was active `at` a moment; empty for none."""
    reader = None
    if store is not None:
        reader = store.reader() if at is None else store.reader_at(moment_ms(at))
    if reader is None:
        return read_chunks(Result({}, iter(())), as_format, chunksize)
    fields = dict(reader.fields)
    id_name = reader.id_name
    if id_name:
        fields[id_name] = TEXT
    tables = reader.tables(min(chunksize or _CHUNK_ROWS, _CHUNK_ROWS), id_column=id_name)
    return read_chunks(Result(fields, tables), as_format, chunksize)


def moment_ms(at: Any) -> int:
    """A moment as milliseconds; one that names no time zone is in UTC. Raises `MomentError` for what is none."""
    if isinstance(at, str):
        with contextlib.suppress(ValueError):
            at = datetime.fromisoformat(at)
    if isinstance(at, date) and not isinstance(at, datetime):
        at = datetime.combine(at, time())
    if not isinstance(at, datetime):
        raise MomentError(at)
    return int((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000)


def read_chunks(result: Result, as_format: str, chunksize: int | None) -> Any:
    """Rows in the form that was asked for: whole, or as an iterator of `chunksize` rows each."""
    if chunksize is not None:
        if chunksize < 1:
            raise ValueError(f"chunksize is {chunksize}: it must be 1 or more")
        return _chunks(result, as_format, chunksize)
    if as_format == "records":
        records: list[dict[str, Any]] = []
        for table in result.tables:
            records += arrow_to_records(table, result.fields, for_stream=False)
        return records
    return _one(result, _joined(result), as_format)


def _joined(result: Result) -> pa.Table:
    import pyarrow as pa

    tables = list(result.tables)
    return pa.concat_tables(tables) if tables else arrow_schema(result.fields).empty_table()


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
    if as_format == "polars":
        import polars as pl

        return pl.from_arrow(table)
    return table if as_format == "arrow" else arrow_to_records(table, result.fields, for_stream=False)
