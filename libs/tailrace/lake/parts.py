"""Parquet files of a table: rows come in in the order of their ids, files go out, each with a range of ids of its own.

No state of the table names a file before a Delta commit does; what is left of a crash is taken away by `tidy`.
"""

from __future__ import annotations

import math
import os
import re
from contextlib import suppress
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from tailrace.lake.errors import lake_errors
from tailrace.lake.limits import LakeLimits
from tailrace.lake.location import LakeLocation
from tailrace.runtime import SYSTEM, Runtime
from tailrace.tables import SnapshotFile

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["Part", "PartWriter", "conform", "is_part"]


class Part(NamedTuple):
    """A file that is written and closed, and what Delta is told of its columns."""

    file: SnapshotFile
    stats: str


_NAME = re.compile(r"part-[0-9a-f]{16}\.parquet").fullmatch


def is_part(path: str) -> bool:
    """Whether a file is named as a `PartWriter` names it."""
    return _NAME(path) is not None


class PartWriter:
    """Writes rows to as many files as they need. Not to be used after `finish` or `discard`."""

    def __init__(
        self,
        location: LakeLocation,
        folder: str,
        schema: pa.Schema,
        id_column: str,
        *,
        limits: LakeLimits | None = None,
        runtime: Runtime = SYSTEM,
        one_file: bool = False,
    ) -> None:
        """`schema` is that of the files, with `id_column` among its columns; `one_file`, whatever its size."""
        self.rows = 0
        """Rows written so far."""
        self.nulls: set[str] = set()
        """Columns in which a NULL was seen."""
        self._location, self._folder = location, folder
        self._schema, self._id_column = schema, id_column
        self._limits = limits or LakeLimits()
        self._random = runtime.random
        self._one_file = one_file
        self._buffer: list[pa.Table] = []
        self._buffer_rows = self._buffer_bytes = 0
        self._open: _OpenFile | None = None
        self._parts: list[Part] = []
        self._staging: TemporaryDirectory[str] | None = None

    def write(self, table: pa.Table) -> None:
        """Rows whose ids are greater than all before."""
        if table.num_rows == 0:
            return
        for name, column in zip(table.column_names, table.columns, strict=True):
            if column.null_count:
                self.nulls.add(name)
        self.rows += table.num_rows
        step = self._limits.row_group_rows_max
        for start in range(0, table.num_rows, step):
            part = table.slice(start, step)
            if self._buffer_rows + part.num_rows > step:
                self._write_group()
            self._buffer.append(part)
            self._buffer_rows += part.num_rows
            self._buffer_bytes += part.nbytes
            if self._buffer_bytes >= self._limits.row_group_bytes_max:
                self._write_group()

    def finish(self) -> list[Part]:
        """The files, safe on disk or in the store, in the order of their ids."""
        self._write_group()
        self._close_file()
        if self._staging is not None:
            self._staging.cleanup()
        return self._parts

    def discard(self) -> None:
        """Take back what was written: there will be no commit of it."""
        if self._open is not None:
            self._open.abandon()
        if self._staging is not None:
            self._staging.cleanup()
        if self._parts:
            with lake_errors(self._folder, self._parts[0].file.path):
                self._location.store(self._folder).delete([part.file.path for part in self._parts])
        self._parts = []

    def _write_group(self) -> None:
        import pyarrow as pa

        if not self._buffer:
            return
        group = pa.concat_tables(self._buffer).combine_chunks()
        self._buffer, self._buffer_rows, self._buffer_bytes = [], 0, 0
        if self._open is None:
            name = f"part-{self._random.getrandbits(64):016x}.parquet"
            with lake_errors(self._folder, name):
                self._open = _OpenFile(self._work_folder() / name, self._schema, self._id_column)
        with lake_errors(self._folder, self._open.path.name):
            self._open.write(group)
        if not self._one_file and self._open.size_bytes >= self._limits.file_bytes_target:
            self._close_file()

    def _close_file(self) -> None:
        if self._open is None:
            return
        path = self._open.path
        with lake_errors(self._folder, path.name):
            part = self._open.close()
            self._open = None
            if not self._location.is_local:
                self._location.store(self._folder).put(path.name, path)
                path.unlink()
        self._parts.append(part)

    def _work_folder(self) -> Path:
        if self._location.is_local:
            folder = self._location.local_path(self._folder)
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        if self._staging is None:
            self._staging = TemporaryDirectory(prefix="tailrace-lake-")
        return Path(self._staging.name)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows of a file with the columns of `schema`; those that the file is too old to have are NULL."""
    import pyarrow as pa

    there = set(table.column_names)
    columns: list[Any] = [
        table.column(field.name) if field.name in there else pa.nulls(table.num_rows, field.type) for field in schema
    ]
    return pa.Table.from_arrays(columns, names=schema.names).cast(schema)


class _OpenFile:
    """One Parquet file while rows go in."""

    def __init__(self, path: Path, schema: pa.Schema, id_column: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path, self._schema, self._id_column = path, schema, id_column
        self._rows = 0
        self._first = self._last = ""
        self._file = path.open("xb")
        self._metadata: list[pq.FileMetaData] = []
        texts = [field.name for field in schema if pa.types.is_string(field.type) and field.name != id_column]
        self._writer = pq.ParquetWriter(
            self._file,
            schema,
            compression="zstd",
            use_dictionary=texts,  # type: ignore[arg-type]  # a list of names is fine
            column_encoding={id_column: "DELTA_BYTE_ARRAY"},
            metadata_collector=self._metadata,
        )

    @property
    def size_bytes(self) -> int:
        return self._file.tell()

    def write(self, group: pa.Table) -> None:
        ids = group.column(self._id_column)
        first, last = ids[0].as_py(), ids[-1].as_py()
        assert self._last < first <= last, f"ids go backwards: {self._last} to {first} to {last}"
        self._first, self._last = self._first or first, last
        self._rows += group.num_rows
        self._writer.write_table(group.select(self._schema.names).cast(self._schema), row_group_size=group.num_rows)

    def close(self) -> Part:
        """Write the footer, and wait until it is on disk."""
        self._writer.close()
        size = self._file.tell()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        file = SnapshotFile(self.path.name, self._rows, size, self._first, self._last)
        return Part(file, _stats(self._metadata[0], file, self._id_column))

    def abandon(self) -> None:
        """Leave it as it is, and take it away."""
        self._writer.is_open = False  # else it writes a footer when it is collected, and complains where it cannot
        with suppress(OSError):  # what is still buffered goes to a full disk no more than the rest did
            self._file.close()
        self.path.unlink(missing_ok=True)


def _stats(metadata: pq.FileMetaData, file: SnapshotFile, id_column: str) -> str:
    """What Delta calls the statistics of a file: readers pass over files by them.

    Only for columns whose bounds have one form everywhere: ids, whole and broken numbers, dates.
    """
    lowest: dict[str, Any] = {id_column: file.first_id}
    highest: dict[str, Any] = {id_column: file.last_id}
    nulls: dict[str, int] = {}
    for at in range(metadata.num_columns):
        column = metadata.schema.column(at)
        groups: list[Any] = [
            metadata.row_group(group).column(at).statistics for group in range(metadata.num_row_groups)
        ]
        if column.max_repetition_level > 0 or column.path == id_column or any(each is None for each in groups):
            continue  # of lists there is nothing to say
        if all(each.has_null_count for each in groups):
            nulls[column.path] = sum(each.null_count for each in groups)
        held = [each for each in groups if each.num_values > 0]
        if held and all(each.has_min_max for each in held):
            low, high = min(each.min for each in held), max(each.max for each in held)
            if _has_one_form(low) and _has_one_form(high):
                lowest[column.path], highest[column.path] = _json(low), _json(high)
    nulls[id_column] = 0
    return orjson.dumps(
        {"numRecords": file.rows, "minValues": lowest, "maxValues": highest, "nullCount": nulls}
    ).decode()


def _has_one_form(value: object) -> bool:
    return type(value) in (int, date) or (type(value) is float and math.isfinite(value))


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value
