"""A snapshot of one table version: the rows of its messages become rows of its Delta table, each of them once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrace.errors import TailraceError
from tailrace.lake.delta import TableMeta, VersionTable, id_column_of
from tailrace.lake.errors import LakeConflictError, LakeDamagedError, LakeUnavailableError, lake_errors
from tailrace.lake.limits import LakeLimits
from tailrace.lake.location import LakeLocation
from tailrace.lake.parts import Part, PartWriter, conform
from tailrace.lake.plan import Kind, Step, next_step, still
from tailrace.runtime import SYSTEM, Runtime
from tailrace.tables import (
    BadRow,
    FileSource,
    IdMaker,
    MessageSource,
    Snapshot,
    SnapshotFile,
    SnapshotFileError,
    SnapshotReader,
    TableFold,
    VersionReader,
)
from tailrace.tables.ids import places_of
from tailrace.tables.schema import from_stored, stored_names, stored_schema, to_stored

if TYPE_CHECKING:
    import pyarrow as pa

    from tailrace.tables.live import Live

__all__ = ["Snapshotted", "TopicSource", "snapshot_version"]

Bury = Callable[[Sequence[BadRow]], None]

_READ_ROWS_MAX = 16_384
"""Rows that are decoded at a time: while they are Python objects they take twenty times the room of their messages."""

_BURIED_AT_ONCE = 1_000
"""Bad rows that wait in memory for `bury`."""


class TopicSource(NamedTuple):
    """One topic, or one of its several partitions, as a snapshot reads it."""

    topic: str
    born_ms: int
    messages: MessageSource
    files: FileSource
    log_start: int = 0
    """The first offset that the log still has."""
    lane: int | None = None
    """The partition that it is, of a topic with several."""


class Snapshotted(NamedTuple):
    """What `snapshot_version` did."""

    kind: Kind
    snapshot: Snapshot
    """The state now; its position is the fold's, also where the Delta table may stay behind."""
    table: VersionTable
    """The open table, to be handed in the next time: opening takes longer than a small step."""
    rows: int = 0
    """Rows written, those included that a merge or rewrite wrote again."""
    bad_rows: int = 0
    """Rows that no type of theirs can hold, and that are left out; `bury` has had them."""
    lost: tuple[int, int] | None = None
    """Half-open range of offsets of the version that neither the lake nor the log has any more."""


def snapshot_version(
    location: LakeLocation,
    source: TopicSource,
    fold: TableFold,
    version: str,
    *,
    table: VersionTable | None = None,
    bury: Bury | None = None,
    limits: LakeLimits | None = None,
    runtime: Runtime = SYSTEM,
) -> Snapshotted:
    """Bring the Delta table of `version` to the position of `fold`, the fold of its topic.

     1. `lake-opened`     nothing has changed yet.
     2. `lake-created`    of a version that is new to the lake: its Delta table is there, empty, at position 0.
     3. `lake-read`       the tail's rows lie in files that no state of the table names; `tidy` takes them away. Rows that
                          no type can hold are with `bury`, which may get them once more after a crash.
     4. `lake-columns`    new columns are there, empty: for any reader the same rows as before.
     5. `lake-committed`  the point of no return: rows, position and fold became visible together.

    A rival that commits first makes the commit fail; then the table is opened again, and what is left is done.

    Args:
        table: from an earlier call; may be behind, rivals included.
        bury: takes some rows that their types cannot hold to the table's dead letters, safely, before the commit; called
            as often as need be. None: they are only counted.

    Raises:
        LakeUnavailableError: retriable; the lake cannot be reached or written, its disk is full, rights are missing.
        LakeConflictError: retriable; rivals were faster `limits.conflicts_max` times.
        LakeDamagedError: rejected; the Delta table or one of its files is not as we left it.

    Memory is bounded by a row group of the files; with a key by the keys of the tail, or of a table that is rewritten.
    """
    limits = limits or LakeLimits()
    now = TableMeta.of(source.topic, source.born_ms, fold, version, source.lane)
    folder = location.folder(source.topic, version, source.lane)
    graves = _Graves(bury)
    failed: TailraceError | None = None
    for _ in range(limits.conflicts_max):
        if table is None:
            table = VersionTable.open(location, folder, limits=limits)
        runtime.probe.reached("lake-opened")
        try:
            return _Work(location, source, now, folder, table, graves, limits, runtime).run()
        except LakeConflictError as error:
            failed = error
        except (LakeDamagedError, SnapshotFileError) as error:
            if failed is not None or table is None:  # a handle that is behind names files that are gone by now
                raise
            failed = error
        table = None
    assert failed is not None
    raise failed


class _Graves:
    """Hands bad rows on, each of them once, though a tail may be read more than once."""

    def __init__(self, bury: Bury | None) -> None:
        self.count = 0
        self._bury = bury
        self._waiting: list[BadRow] = []
        self._last = (-1, -1)

    def add(self, bad: BadRow) -> None:
        if (bad.offset, bad.row) > self._last:
            self._last = (bad.offset, bad.row)
            self.count += 1
            self._waiting.append(bad)
            if len(self._waiting) >= _BURIED_AT_ONCE:
                self.close()

    def close(self) -> None:
        """All that came are with `bury` now."""
        waiting, self._waiting = self._waiting, []
        if waiting and self._bury is not None:
            self._bury(waiting)


class _Work:
    """One attempt."""

    def __init__(
        self,
        location: LakeLocation,
        source: TopicSource,
        now: TableMeta,
        folder: str,
        table: VersionTable | None,
        graves: _Graves,
        limits: LakeLimits,
        runtime: Runtime,
    ) -> None:
        self._location, self._source, self._now, self._folder, self._table = location, source, now, folder, table
        self._graves, self._limits, self._runtime = graves, limits, runtime
        self._before = table.meta if table else None
        self._snapshot = table.snapshot() if table else None
        self._id_column = id_column_of(now.view)
        self._fields = self._reader().fields
        self._schema = stored_schema(self._fields, id_column=self._id_column)
        self._done = self._before.position if self._before else 0
        """Messages before this offset are in the Delta table."""
        self._writers: list[PartWriter] = []
        self._committing = False
        if self._before is not None and self._before.born_ms != source.born_ms:
            raise LakeDamagedError(
                folder,
                "_delta_log",
                f"belongs to a topic {self._before.topic} that was born at {self._before.born_ms} ms, ours at {source.born_ms}",
                "move the table's folder away: the rows that the log still has are then written anew",
            )

    def run(self) -> Snapshotted:
        """Do what there is to do; what a failure leaves behind is taken back where it cannot be in a commit."""
        try:
            return self._run()
        except Exception:
            if not self._committing:  # else the commit may be there though it failed: a store's answer can get lost
                for writer in self._writers:
                    with suppress(LakeUnavailableError):
                        writer.discard()
            raise

    def _run(self) -> Snapshotted:
        step = next_step(self._now, self._before, self._snapshot)
        if step.kind == "append":
            parts = self._write_tail()
            if parts is not None:
                return self._commit(step, parts) if parts else self._still()
        elif step.kind == "merge":
            merged = self._merge()
            if merged is not None:
                return self._commit(step, *merged) if any(merged) else self._still()
        elif step.kind != "rewrite":
            return self._end(step)
        if step.kind != "rewrite":
            step = Step("rewrite", "a NULL in a column that was declared NOT NULL")
        return self._rewrite(step)

    # -- the steps ------------------------------------------------------------------------------------------------

    def _still(self) -> Snapshotted:
        assert self._before is not None
        return self._end(still(self._now, self._before))

    def _end(self, step: Step) -> Snapshotted:
        assert self._table is not None
        if step.kind == "note":
            self._table.commit(self._now, now_ms=self._runtime.clock.now_ms())
            self._runtime.probe.reached("lake-committed")
        snapshot = self._table.snapshot()
        position = max(snapshot.position, self._now.position)
        return Snapshotted(
            step.kind, replace(snapshot, position=position), self._table, bad_rows=self._graves.count, lost=self._lost()
        )

    def _commit(self, step: Step, parts: Sequence[Part], removed: Sequence[SnapshotFile] = ()) -> Snapshotted:
        assert self._table is not None
        self._runtime.probe.reached("lake-read")
        self._table.add_columns(self._schema)
        self._runtime.probe.reached("lake-columns")
        self._committing = True
        self._table.commit(self._now, parts=parts, removed=removed, now_ms=self._runtime.clock.now_ms())
        self._runtime.probe.reached("lake-committed")
        return self._result(step, parts)

    def _write_tail(self) -> list[Part] | None:
        """The tail's rows in new files; None where the Delta table's columns cannot hold a NULL of theirs."""
        assert self._table is not None
        writer = self._write(self._reader().tables(_READ_ROWS_MAX, id_column=self._id_column, start=(self._floor, 0)))
        parts = writer.finish()
        refused = {name for name, nullable in self._table.columns.items() if not nullable}
        if refused & writer.nulls:
            writer.discard()
            return None
        return parts

    def _merge(self) -> tuple[list[Part], list[SnapshotFile]] | None:
        """New files, and those that they stand for; None as of `_write_tail`."""
        assert self._snapshot is not None
        tail = self._write_tail()
        if tail is None:
            return None
        superseding = self._reader().superseding((self._floor, 0))
        parts: list[Part] = []
        removed: list[SnapshotFile] = []
        writer: PartWriter | None = None
        with ExitStack() as stack:
            files = [] if superseding.everything else self._snapshot.files
            folder = self._local(stack, files)
            for file in files:
                masks = self._masks(folder, file, superseding)
                if masks is not None:
                    removed.append(file)
                    writer = writer or self._writer()
                    for chunk in _kept(folder, self._folder, file, masks):
                        writer.write(conform(chunk, self._schema))
                elif writer is not None:  # what follows has ids after this file's
                    parts += writer.finish()
                    writer = None
            if writer is not None:
                parts += writer.finish()
        return [*parts, *tail], removed

    def _rewrite(self, step: Step) -> Snapshotted:
        if self._table is None:
            self._table = VersionTable.create(
                self._location, self._folder, self._now, self._schema, limits=self._limits
            )
            if self._table.position > 0:
                raise LakeConflictError(self._folder, "a rival made it first")
            self._runtime.probe.reached("lake-created")
        with ExitStack() as stack:
            past, start = None, self._source.log_start
            if step.from_snapshot and self._snapshot is not None:
                past, start = SnapshotReader(self._snapshot, self._local(stack, self._snapshot.files)), 0
            reader = self._reader(past)
            writer = self._write(
                reader.tables(_READ_ROWS_MAX, id_column=self._id_column, start=(start, 0) if start else None)
            )
        parts = writer.finish()
        names = stored_names(self._fields, id_column=self._id_column)
        declared = [
            name for name, nullable in self._now.view.settings.nullable.items() if not nullable and name in names
        ]
        not_null = {name for name in declared if names[name] not in writer.nulls}
        schema = stored_schema(self._fields, not_null=not_null, id_column=self._id_column)
        now_ms = self._runtime.clock.now_ms()
        self._runtime.probe.reached("lake-read")
        self._committing = True
        self._table.commit(self._now, parts=parts, overwrite=schema, now_ms=now_ms)
        self._runtime.probe.reached("lake-committed")
        return self._result(step, parts)

    def _result(self, step: Step, parts: Sequence[Part]) -> Snapshotted:
        assert self._table is not None
        rows = sum(part.file.rows for part in parts)
        return Snapshotted(step.kind, self._table.snapshot(), self._table, rows, self._graves.count, self._lost())

    # -- reading and writing --------------------------------------------------------------------------------------

    def _reader(self, past: SnapshotReader | None = None) -> VersionReader:
        return VersionReader(
            self._now.view,
            IdMaker(self._source.topic, self._source.born_ms, self._source.lane or 0),
            self._source.messages,
            self._source.files,
            snapshot=past,
            log_start=self._source.log_start,
            on_bad_row=self._bad,
        )

    def _bad(self, row: BadRow) -> None:
        if row.offset >= self._done:  # those before it are buried
            self._graves.add(row)

    @property
    def _floor(self) -> int:
        return max(self._done, self._source.log_start)

    def _write(self, chunks: Iterator[pa.Table]) -> PartWriter:
        writer = self._writer()
        for chunk in chunks:
            writer.write(to_stored(chunk, self._fields, id_column=self._id_column))
        self._graves.close()
        return writer

    def _writer(self) -> PartWriter:
        writer = PartWriter(
            self._location, self._folder, self._schema, self._id_column, limits=self._limits, runtime=self._runtime
        )
        self._writers.append(writer)
        return writer

    def _local(self, stack: ExitStack, files: Sequence[SnapshotFile]) -> Path:
        return stack.enter_context(self._location.local_files(self._folder, [file.path for file in files]))

    def _masks(self, folder: Path, file: SnapshotFile, superseding: Live) -> list[Any] | None:
        """For each row group which rows stay (None: all); None where the whole file stays as it is."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        key = superseding.key if superseding.newer is not None else ()
        if not key and not _names_any(superseding, file):
            return None
        names = stored_names(self._fields, id_column=self._id_column)
        masks: list[Any] = []
        with lake_errors(self._folder, file.path), pq.ParquetFile(folder / file.path) as parquet:
            there = [names[name] for name in key if name in names and names[name] in parquet.schema_arrow.names]
            for group in range(parquet.num_row_groups):
                stored = parquet.read_row_group(group, columns=[*there, self._id_column])
                table = from_stored(stored, self._fields, id_column=self._id_column, columns=key)
                newer = superseding.newer_mask(table, self._fields)
                gone = superseding.mask(places_of(stored.column(self._id_column)))
                mask = gone if newer is None else newer if gone is None else newer & gone
                masks.append(None if mask is None or mask.all() else pa.array(mask))
        return masks if any(mask is not None for mask in masks) else None

    def _lost(self) -> tuple[int, int] | None:
        stop = self._source.log_start
        ranges = [
            (max(start, self._done), min(end, stop))
            for start, end in self._now.view.segments
            if max(start, self._done) < min(end, stop)
        ]
        return (ranges[0][0], ranges[-1][1]) if ranges else None


def _names_any(superseding: Live, file: SnapshotFile) -> bool:
    """Whether one of the deleted places lies in the file."""
    import numpy as np
    import pyarrow as pa

    first, last = places_of(pa.array([file.first_id, file.last_id]))
    start, stop = np.searchsorted(superseding.gone, (first, last + 1))
    return bool(start < stop)


def _kept(folder: Path, table: str, file: SnapshotFile, masks: Sequence[Any]) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq

    with lake_errors(table, file.path), pq.ParquetFile(folder / file.path) as parquet:
        for group, mask in enumerate(masks):
            rows = parquet.read_row_group(group)
            yield rows if mask is None else rows.filter(mask)
