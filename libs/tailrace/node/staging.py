"""Bulk writes: rows by column into Parquet files of the staging folder, one row group a message."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tailrace.tables.schema import (
    FieldType,
    arrow_schema,
    cast_arrow,
    compile_decoder,
    conform_arrow,
    fields_from_json,
    frame_to_arrow,
    infer_arrow,
    infer_frame,
    join_schemas,
    rows_to_arrow,
)
from tailrace.tables.schema.errors import ValueCastError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from tailrace.node.session import Session
    from tailrace.node.writing import Piece

__all__ = ["arrow_slices", "batches", "frame_slices", "spill_rows", "stage_tables", "table_ipc"]

ROW_GROUP_ROWS_MAX = 65_536
"""Rows of one row group, and so of one message: the row's number has 16 bits in an id."""

ROW_GROUP_BYTES_MAX = 64 << 20
"""Bytes of one row group in memory: wide rows make smaller groups, so that a reader can hold one."""

_LOOSE = frozenset({"object", "category"})
"""dtypes that do not tell what their values are."""

Slices = Callable[[int], Iterable[Any]]
"""Gives the rows as Arrow tables of at most so many rows."""


def frame_slices(
    frame: pd.DataFrame, fixed: Mapping[str, FieldType], columns: Collection[str] = ()
) -> tuple[dict[str, FieldType], Slices]:
    """The types of a frame's columns, and the frame in slices of those types.

    Types come from the dtypes, and for columns of objects from their first 100 values; where a later value does not
    fit, from all of them. Columns in `fixed` are cast to their declared type where all their values fit it; those of `columns` are there in any case.
    """
    inferred = infer_frame(frame)

    def convert(fields: Mapping[str, FieldType], start: int, rows: int) -> pa.Table:
        return frame_to_arrow(frame.iloc[start : start + rows], fields)

    def all_values(name: str) -> FieldType:
        return infer_frame(frame[[column for column in frame.columns if str(column) == name]], None)[name]

    doubtful = {str(name) for name, dtype in zip(frame.columns, frame.dtypes, strict=True) if str(dtype) in _LOOSE}
    return _slices(len(frame), inferred, fixed, columns, convert, all_values, doubtful)


def arrow_slices(
    table: pa.Table, fixed: Mapping[str, FieldType], columns: Collection[str] = ()
) -> tuple[dict[str, FieldType], Slices]:
    """The same for an Arrow table."""
    inferred = infer_arrow(table)

    def convert(fields: Mapping[str, FieldType], start: int, rows: int) -> pa.Table:
        return conform_arrow(table.slice(start, rows), fields)

    return _slices(table.num_rows, inferred, fixed, columns, convert, lambda name: inferred[name], set())


def _slices(
    rows: int,
    inferred: Mapping[str, FieldType],
    fixed: Mapping[str, FieldType],
    columns: Collection[str],
    convert: Callable[[Mapping[str, FieldType], int, int], pa.Table],
    all_values: Callable[[str], FieldType],
    doubtful: set[str],
) -> tuple[dict[str, FieldType], Slices]:
    fields = {name: kind for name, kind in fixed.items() if name in columns}
    fields |= {name: fixed.get(name, kind) for name, kind in inferred.items()}
    # One pass over the doubtful columns finds out whether every value fits; the conversion itself is made slice by
    # slice afterwards, so that no second copy of the whole is ever in memory.
    for name in inferred:
        while name in doubtful or fields[name] != inferred[name]:
            try:
                for start in range(0, rows, ROW_GROUP_ROWS_MAX):
                    convert({name: fields[name]}, start, ROW_GROUP_ROWS_MAX)
                break
            except ValueCastError:
                wider = join_schemas({name: fields[name]}, {name: all_values(name)})[name]
                if wider == fields[name]:
                    raise
                fields[name] = wider

    def slices(size: int) -> Iterator[pa.Table]:
        for start in range(0, rows, size):
            yield convert(fields, start, size)

    return fields, slices


def batches(table: pa.Table, rows_max: int) -> Iterator[pa.Table]:
    """A table in slices of at most `rows_max` rows."""
    for start in range(0, table.num_rows, rows_max):
        yield table.slice(start, rows_max)


def table_ipc(table: pa.Table) -> bytes:
    """The Arrow IPC stream of a small table."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def stage_tables(
    session: Session, fields: Mapping[str, FieldType], tables: Iterable[pa.Table]
) -> Iterator[tuple[str, int, int]]:
    """Write tables of `fields` to one staged file; gives (path below the staging folder, row group, rows) of each row
    group. The file is whole when the iteration ends, and its bytes are on disk before anything names it."""
    import os

    import pyarrow as pa
    import pyarrow.parquet as pq

    path = session.next_staged_file()
    target = Path(session.order.staging) / path
    target.parent.mkdir(parents=True, exist_ok=True)
    groups: list[tuple[str, int, int]] = []
    schema = arrow_schema(fields)
    # Numbers seldom repeat: dictionaries of them take more than half of the writing, and make the file larger.
    texts = [each.name for each in schema if pa.types.is_string(each.type)]
    with target.open("wb") as file:
        with pq.ParquetWriter(file, schema, compression="snappy", use_dictionary=texts) as writer:  # type: ignore[arg-type]
            for table in tables:
                size = ROW_GROUP_ROWS_MAX
                if table.nbytes > ROW_GROUP_BYTES_MAX:
                    size = max(1, table.num_rows * ROW_GROUP_BYTES_MAX // table.nbytes)
                for start in range(0, table.num_rows, size):
                    part = table.slice(start, size)
                    writer.write_table(part, row_group_size=part.num_rows)
                    groups.append((path, len(groups), part.num_rows))
        file.flush()
        os.fsync(file.fileno())
    return iter(groups)


def spill_rows(
    session: Session, pieces: Sequence[Piece], fields: Mapping[str, FieldType]
) -> Iterator[tuple[str, int, int]]:
    """Rows that wait as JSON, moved into a staged file; each piece's rows are read by its own types, then widened."""

    def tables() -> Iterator[pa.Table]:
        import pyarrow as pa

        waiting: list[pa.Table] = []
        count = 0
        for piece in pieces:
            written = piece.extra["fields"]
            assert isinstance(written, dict)
            own = fields_from_json(written)
            decode = compile_decoder(own, for_stream=False)
            table = rows_to_arrow([decode(row) for row in orjson.loads(piece.body)], own)
            waiting.append(cast_arrow(table, own, fields))
            count += table.num_rows
            if count >= ROW_GROUP_ROWS_MAX // 4:
                yield pa.concat_tables(waiting)
                waiting, count = [], 0
        if waiting:
            yield pa.concat_tables(waiting)

    return stage_tables(session, fields, tables())
