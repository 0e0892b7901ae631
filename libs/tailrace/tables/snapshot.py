"""A snapshot: the rows of one table version up to a position, as Parquet files that any reader may open.

The lake makes snapshots (they are Delta tables); readers need only what is written down here. The files hold disjoint
ranges of ids, each in the order of the log, so reading them one after the other gives log order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrace.errors import RejectedError
from tailrace.tables.schema import FieldType, from_stored, parse_type, stored_names

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["HIDDEN_ID", "Snapshot", "SnapshotFile", "SnapshotFileError", "SnapshotReader"]

HIDDEN_ID = "_patterns_id"
"""Column of the id in the files of a table that shows none: streams and cuts go by it."""


class SnapshotFile(NamedTuple):
    """One Parquet file: `path` below the snapshot's folder, and the ids that it begins and ends with."""

    path: str
    rows: int
    size_bytes: int
    first_id: str
    last_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The rows of one version that lie before `position`: one state of its Delta table."""

    version: str
    """The version's name."""
    folder: str
    """The Delta table's folder below the lake's root."""
    delta_version: int
    position: int
    """Every message before this offset is in the files, none at or after it."""
    fields: Mapping[str, FieldType]
    """The fields in force at the position, without the id; the files' columns are these as `stored` makes them."""
    unique_on: tuple[str, ...] = ()
    """The key by which the files hold one row each."""
    id_column: str = "patterns_id"
    files: tuple[SnapshotFile, ...] = ()
    """In the order of their ids."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(file.rows for file in self.files)

    def to_json(self) -> dict[str, object]:
        """For an index, or a worker."""
        return {
            "version": self.version,
            "folder": self.folder,
            "delta_version": self.delta_version,
            "position": self.position,
            "fields": {name: str(kind) for name, kind in self.fields.items()},
            "unique_on": list(self.unique_on),
            "id_column": self.id_column,
            "files": [list(file) for file in self.files],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Snapshot:
        """The inverse of `to_json`."""
        return cls(
            version=data["version"],
            folder=data["folder"],
            delta_version=data["delta_version"],
            position=data["position"],
            fields={name: parse_type(text) for name, text in data["fields"].items()},
            unique_on=tuple(data["unique_on"]),
            id_column=data["id_column"],
            files=tuple(SnapshotFile(*file) for file in data["files"]),
        )


class SnapshotFileError(RejectedError):
    """A file of a snapshot is missing, or is no Parquet file that can be read."""

    def __init__(self, version: str, path: Path, reason: str) -> None:
        self.version, self.path, self.reason = version, path, reason
        super().__init__(
            f"{path}, which holds rows of table version {version}, cannot be read: {reason}. Put the file back, or "
            "remove the version's folder and run `tailrace rebuild`: what the log still has is then written again"
        )


class SnapshotReader:
    """Reads the rows of a snapshot whose files are on this machine. Memory is bounded by a row group."""

    def __init__(self, snapshot: Snapshot, folder: Path, *, before: str | None = None) -> None:
        """`folder` is the Delta table's; rows whose ids are not less than `before` are passed over."""
        self.snapshot = snapshot
        self._folder = folder
        self._before = before

    def paths(self) -> list[Path]:
        """The files, in the order of their ids."""
        return [self._folder / file.path for file in self.snapshot.files]

    @property
    def rows(self) -> int | None:
        """Number of rows; None where it takes reading them."""
        return self.snapshot.rows if self._before is None else None

    def tables(
        self,
        *,
        columns: Collection[str] | None = None,
        ids: bool = True,
        after: str | None = None,
        before: str | None = None,
        rows_max: int = 65_536,
    ) -> Iterator[pa.Table]:
        """The rows in the order of their ids, which is that of the log, at most `rows_max` at a time.

        Args:
            columns: names of the fields to read, which come in the order of the snapshot's fields; all where None.
                Nothing else is read from disk.
            ids: whether the ids come as the last column, called `snapshot.id_column`.
            after: only rows with greater ids. Files and row groups that hold none are passed over.
            before: only rows with lesser ids.

        Returns:
            Tables of the Common Model's Arrow types, none of them empty.

        Raises:
            SnapshotFileError: rejected; a file is missing or damaged.
        """
        before = min((each for each in (before, self._before) if each is not None), default=None)
        for file in self.snapshot.files:
            if (after is not None and file.last_id <= after) or (before is not None and file.first_id >= before):
                continue
            yield from self._file(file, columns, ids, after, before, rows_max)

    def _file(
        self,
        file: SnapshotFile,
        columns: Collection[str] | None,
        ids: bool,
        after: str | None,
        before: str | None,
        rows_max: int,
    ) -> Iterator[pa.Table]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        fields, id_column = self.snapshot.fields, self.snapshot.id_column
        names = stored_names(fields, id_column=id_column)
        wanted = [stored for name, stored in names.items() if columns is None or name in columns]
        path = self._folder / file.path
        try:
            with pq.ParquetFile(path, memory_map=True) as parquet:
                for group, inside in _row_groups(parquet, id_column, after, before):
                    bounded = ids or not inside
                    there = set(parquet.schema_arrow.names)
                    read = [name for name in (*wanted, id_column) if name in there and (bounded or name != id_column)]
                    # A column more than none: a batch of no columns has no rows.
                    read = read or [id_column]
                    for batch in parquet.iter_batches(rows_max, row_groups=[group], columns=read):
                        table = pa.Table.from_batches([batch])
                        if not inside:
                            table = _between(table, id_column, after, before)
                        if table.num_rows:
                            made = from_stored(table, fields, id_column=id_column, columns=columns)
                            yield made if ids or id_column not in read else made.select(range(made.num_columns - 1))
        except (OSError, pa.ArrowException, KeyError) as error:
            raise SnapshotFileError(self.snapshot.version, path, str(error)) from error


def _row_groups(
    parquet: pq.ParquetFile, id_column: str, after: str | None, before: str | None
) -> Iterator[tuple[int, bool]]:
    """The row groups that hold ids between the two, and for each whether all of its ids lie there."""
    metadata = parquet.metadata
    at = [metadata.schema.column(number).path for number in range(metadata.num_columns)].index(id_column)
    for group in range(metadata.num_row_groups):
        if after is None and before is None:
            yield group, True
            continue
        statistics = metadata.row_group(group).column(at).statistics
        if statistics is None or not statistics.has_min_max:
            yield group, False
            continue
        lowest, highest = str(statistics.min), str(statistics.max)
        if (after is None or highest > after) and (before is None or lowest < before):
            yield group, (after is None or lowest > after) and (before is None or highest < before)


def _between(table: pa.Table, id_column: str, after: str | None, before: str | None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    ids: Any = table.column(id_column)
    # They are sorted.
    start = 0 if after is None else pc.sum(pc.less_equal(ids, pa.scalar(after))).as_py()
    stop = table.num_rows if before is None else pc.sum(pc.less(ids, pa.scalar(before))).as_py()
    return table.slice(start, max(stop - start, 0))
