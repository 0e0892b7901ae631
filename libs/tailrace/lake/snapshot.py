"""A snapshot of one table version: the rows of its messages become rows of its Delta table, each of them once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrace.errors import TailraceError
from tailrace.lake.delta import TableMeta, VersionTable, id_column_of
from tailrace.lake.errors import LakeConflictError, LakeDamagedError, lake_errors
from tailrace.lake.keys import Gone
from tailrace.lake.limits import LakeLimits
from tailrace.lake.location import LakeLocation
from tailrace.lake.misfits import DeadRow, WithoutRows, find_misfits
from tailrace.lake.parts import Part, PartWriter
from tailrace.lake.plan import Kind, Step, next_step, still
from tailrace.runtime import SYSTEM, Runtime
from tailrace.tables import (
    FileSource,
    IdMaker,
    MessageSource,
    Snapshot,
    SnapshotFile,
    TableFold,
    VersionReader,
    VersionView,
    decode_messages,
)
from tailrace.tables.schema import ValueCastError, from_stored, stored_names, stored_schema, to_stored

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Snapshotted", "TopicSource", "snapshot_version"]

Bury = Callable[[Sequence[DeadRow]], None]


class TopicSource(NamedTuple):
    """One topic, as a snapshot reads it."""

    topic: str
    born_ms: int
    messages: MessageSource
    files: FileSource
    log_start: int = 0
    """The first offset that the log still has."""


class Snapshotted(NamedTuple):
    """What `snapshot_version` did."""

    kind: Kind
    snapshot: Snapshot
    """The state now; its position is the fold's, also where the Delta table may stay behind."""
    table: VersionTable
    """The open table, to be handed in the next time: opening takes longer than a small step."""
    rows: int = 0
    """Rows written, those included that a merge or rewrite wrote again."""
    dead_rows: Sequence[DeadRow] = ()
    """Rows that fit no type; `bury` has had them."""
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
     2. `lake-read`       the tail's rows lie in files that no state of the table names; `tidy` takes them away. Rows that
                          fit no type are with `bury`, which may get them once more after a crash.
     3. `lake-columns`    new columns are there, empty: for any reader the same rows as before.
     4. `lake-committed`  the point of no return: rows, position and fold became visible together.

    A rival that commits first makes the commit fail; then the table is opened again, and what is left is done.

    Args:
        table: from an earlier call; may be behind, rivals included.
        bury: takes the rows that fit no type to the table's dead letters, safely, before the commit. None: they are
            passed over.

    Raises:
        LakeUnavailableError: retriable; the lake cannot be reached or written, its disk is full, rights are missing.
        LakeConflictError: retriable; rivals were faster `limits.conflicts_max` times.
        LakeDamagedError: rejected; the Delta table or one of its files is not as we left it.

    Memory is bounded by a row group of the files, and with a key by the tail's keys.
    """
    limits = limits or LakeLimits()
    now = TableMeta.of(source.topic, source.born_ms, fold, version)
    folder = location.folder(source.topic, version)
    failed: TailraceError | None = None
    for _ in range(limits.conflicts_max):
        if table is None:
            table = VersionTable.open(location, folder, limits=limits)
        runtime.probe.reached("lake-opened")
        work = _Work(location, source, now, folder, table, bury, limits, runtime)
        try:
            return work.run()
        except LakeConflictError as error:
            failed = error
        except LakeDamagedError as error:
            if failed is not None or table is None:  # a handle that is behind names files that are gone by now
                raise
            failed = error
        table = None
    assert failed is not None
    raise failed


class _Work:
    """One attempt."""

    def __init__(
        self,
        location: LakeLocation,
        source: TopicSource,
        now: TableMeta,
        folder: str,
        table: VersionTable | None,
        bury: Bury | None,
        limits: LakeLimits,
        runtime: Runtime,
    ) -> None:
        self._location, self._source, self._now, self._folder, self._table = location, source, now, folder, table
        self._bury, self._limits, self._runtime = bury, limits, runtime
        self._before = table.meta if table else None
        self._snapshot = table.snapshot() if table else None
        self._ids = IdMaker(source.topic, source.born_ms)
        self._id_column = id_column_of(now.view)
        probe_reader = VersionReader(now.view, self._ids, source.messages, source.files)
        self._fields = probe_reader.fields
        self._schema = stored_schema(self._fields, id_column=self._id_column)
        self._done = self._before.position if self._before else 0
        """Messages before this offset are in the Delta table."""
        self._dead: list[DeadRow] = []

    def run(self) -> Snapshotted:
        step = next_step(self._now, self._before, self._snapshot, self._source.log_start)
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
        return Snapshotted(step.kind, replace(snapshot, position=position), self._table, lost=self._lost())

    def _commit(self, step: Step, parts: Sequence[Part], removed: Sequence[SnapshotFile] = ()) -> Snapshotted:
        assert self._table is not None
        self._runtime.probe.reached("lake-read")
        self._table.add_columns(self._schema)
        self._runtime.probe.reached("lake-columns")
        self._table.commit(self._now, parts=parts, removed=removed, now_ms=self._runtime.clock.now_ms())
        self._runtime.probe.reached("lake-committed")
        return self._result(step, parts)

    def _write_tail(self) -> list[Part] | None:
        """The tail's rows in new files; None where the Delta table's columns cannot hold a NULL of theirs."""
        writer = self._write(lambda messages: self._tail(self._now.view, messages), self._done)
        parts = writer.finish()
        assert self._table is not None
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
        gone = self._gone()
        parts: list[Part] = []
        removed: list[SnapshotFile] = []
        with ExitStack() as stack:
            files = self._snapshot.files
            folder = self._local(stack, files) if gone and files else None
            writer: PartWriter | None = None
            for file in files if folder is not None else ():
                assert folder is not None
                masks = self._masks(folder, file, gone)
                if masks is None:
                    if writer is not None:  # what follows has ids after this file's
                        parts += writer.finish()
                        writer = None
                    continue
                writer = writer or self._writer()
                removed.append(file)
                for chunk in _kept(folder, self._folder, file, masks):
                    writer.write(_conform(chunk, self._schema))
            if writer is not None:
                parts += writer.finish()
        return [*parts, *tail], removed

    def _rewrite(self, step: Step) -> Snapshotted:
        from tailrace.tables.snapshot import SnapshotReader

        view = self._now.view
        with ExitStack() as stack:
            snapshot = None
            start = self._source.log_start
            if step.from_snapshot and self._snapshot is not None:
                kept = replace(self._snapshot, unique_on=()) if step.keys_again else self._snapshot
                snapshot = SnapshotReader(kept, self._local(stack, kept.files))
                start = self._done

            more = {"snapshot": snapshot} if snapshot else {}

            def read(messages: MessageSource) -> Iterator[pa.Table]:
                reader = VersionReader(view, self._ids, messages, self._source.files, **more)
                return reader.tables(
                    id_column=self._id_column, **({} if snapshot is not None or start == 0 else {"start": (start, 0)})
                )

            writer = self._write(read, start)
        parts = writer.finish()
        names = stored_names(self._fields, id_column=self._id_column)
        declared = [name for name, nullable in view.settings.nullable.items() if not nullable and name in names]
        not_null = {name for name in declared if names[name] not in writer.nulls}
        schema = stored_schema(self._fields, not_null=not_null, id_column=self._id_column)
        now_ms = self._runtime.clock.now_ms()
        self._runtime.probe.reached("lake-read")
        if self._table is None:
            self._table = VersionTable.create(
                self._location, self._folder, self._now, schema, parts, now_ms=now_ms, limits=self._limits
            )
        else:
            self._table.commit(self._now, parts=parts, overwrite=schema, now_ms=now_ms)
        self._runtime.probe.reached("lake-committed")
        return self._result(step, parts)

    def _result(self, step: Step, parts: Sequence[Part]) -> Snapshotted:
        assert self._table is not None
        rows = sum(part.file.rows for part in parts)
        return Snapshotted(step.kind, self._table.snapshot(), self._table, rows, self._dead, self._lost())

    # -- reading and writing --------------------------------------------------------------------------------------

    def _tail(
        self, view: VersionView, messages: MessageSource, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        reader = VersionReader(view, self._ids, messages, self._source.files)
        return reader.tables(id_column=self._id_column, start=(self._floor, 0), columns=columns)

    @property
    def _floor(self) -> int:
        return max(self._done, self._source.log_start)

    def _write(self, read: Callable[[MessageSource], Iterator[pa.Table]], start: int) -> PartWriter:
        """Write what `read` gives, without the rows that fit no type; those at or after the table's position are buried."""
        messages: MessageSource = self._source.messages
        without: WithoutRows | None = None
        while True:
            writer = self._writer()
            try:
                for chunk in read(messages):
                    stored = to_stored(chunk, self._fields, id_column=self._id_column)
                    writer.write(stored if without is None else without.filter(stored, self._id_column))
                return writer
            except ValueCastError:
                writer.discard()
                dead = find_misfits(self._now.view, self._source.messages, self._source.files, start)
                if without is not None or not dead:
                    raise
                messages = without = WithoutRows(self._source.messages, dead, self._ids)
                self._dead = [row for row in dead if row.offset >= self._done]
                if self._bury is not None and self._dead:
                    self._bury(self._dead)
            except Exception:
                writer.discard()
                raise

    def _writer(self) -> PartWriter:
        return PartWriter(
            self._location, self._folder, self._schema, self._id_column, limits=self._limits, runtime=self._runtime
        )

    def _local(self, stack: ExitStack, files: Sequence[SnapshotFile]) -> Path:
        return stack.enter_context(self._location.local_files(self._folder, [file.path for file in files]))

    def _gone(self) -> Gone:
        """Keys of all rows of the tail, superseded and deleted ones too, and the ids that it deletes."""
        view = self._now.view
        gone = Gone(view.settings.unique_on, self._fields)
        if gone.key and set(gone.key) <= self._fields.keys():
            every = replace(view, deletes=(), settings=replace(view.settings, unique_on=()))
            messages: MessageSource = self._source.messages
            if self._dead:
                messages = WithoutRows(messages, self._dead, self._ids)
            for chunk in self._tail(every, messages, columns=gone.key):
                gone.add_keys(chunk)
        for at in view.deletes:
            if at >= self._floor:
                for batch in self._source.messages.scan(at, at + 1):
                    for doc in decode_messages(batch):
                        gone.add_ids(doc.get("ids", ()))
        return gone

    def _masks(self, folder: Path, file: SnapshotFile, gone: Gone) -> list[Any] | None:
        """For each row group which rows stay (None: all); None where the whole file stays as it is."""
        import pyarrow.parquet as pq

        names = stored_names(self._fields, id_column=self._id_column)
        wanted = [names[name] for name in gone.columns]
        masks: list[Any] = []
        with lake_errors(self._folder, file.path), pq.ParquetFile(folder / file.path) as parquet:
            there = [name for name in wanted if name in parquet.schema_arrow.names]
            for group in range(parquet.num_row_groups):
                stored = parquet.read_row_group(group, columns=[*there, self._id_column])
                renamed = _conform(stored, self._schema, [*wanted, self._id_column])
                table = from_stored(renamed, self._fields, id_column=self._id_column)
                masks.append(gone.mask(table.select([*gone.columns, self._id_column]), self._id_column))
        return masks if any(mask is not None for mask in masks) else None

    def _lost(self) -> tuple[int, int] | None:
        stop = self._source.log_start
        ranges = [
            (max(start, self._done), min(end, stop))
            for start, end in self._now.view.segments
            if max(start, self._done) < min(end, stop)
        ]
        return (ranges[0][0], ranges[-1][1]) if ranges else None


def _conform(table: pa.Table, schema: pa.Schema, names: Sequence[str] | None = None) -> pa.Table:
    """Columns of a file as of `schema`; those that it is too old to have are NULL."""
    import pyarrow as pa

    wanted = schema if names is None else pa.schema([schema.field(name) for name in names])
    there = set(table.column_names)
    columns: list[Any] = [
        table.column(field.name) if field.name in there else pa.nulls(table.num_rows, field.type) for field in wanted
    ]
    return pa.Table.from_arrays(columns, names=wanted.names).cast(wanted)


def _kept(folder: Path, table: str, file: SnapshotFile, masks: Sequence[Any]) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq

    with lake_errors(table, file.path), pq.ParquetFile(folder / file.path) as parquet:
        for group, mask in enumerate(masks):
            rows = parquet.read_row_group(group)
            yield rows if mask is None else rows.filter(mask)
