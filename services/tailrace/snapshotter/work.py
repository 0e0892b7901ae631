"""One Table's way into the lake (or that of one of its several partitions, which is handled as a Table), step by step: read on, fold, snapshot each version that has news, say how far it is.

Steps, each of which a crash may follow:

 1. `topic-read`        messages are folded in memory; nothing has changed.
 2. the Delta commits   one for each version with news (`tailrace.lake.snapshot` names their points): rows and position
                        become visible together, version by version. What is in there is never written again: each
                        Delta table says itself how far it is.
 3. `lake-written`      all versions are as far as the step goes.
 4. `place-committed`   the group's place and the index records, in one transaction: a lower bound and a cache. A crash
                        before repeats the reading, not the rows.

What is held in memory is a step's messages, so a step is bounded by records and bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tailrace.lake import (
    LakeDamagedError,
    LakeLimits,
    LakeLocation,
    Snapshotted,
    StagingArea,
    TopicSource,
    VersionTable,
    compact,
    files_to_join,
    rebuild_fold,
    snapshot_version,
    tidy,
)
from tailrace.log import Log, NewRecord, Offset
from tailrace.runtime import Runtime
from tailrace.snapshotter.burial import bury
from tailrace.snapshotter.cadence import News
from tailrace.snapshotter.index import IndexEntry, fold_record, gone_record, snapshot_record
from tailrace.snapshotter.settings import SnapshotterSettings, TableWish
from tailrace.snapshotter.source import RecentSource
from tailrace.snapshotter.topics import TableLane
from tailrace.tables import Snapshot, StagedFiles, TableFold

__all__ = ["TableWork"]

_READ_RECORDS_MAX = 10_000
_READ_BYTES_MAX = 8 << 20


class TableWork:
    """Brings the versions of one lane into the lake. Belongs to one thread at a time.

    Args:
        entry: what the index says about the lane.
        place: the group's place; None where it has none.
        save: commits a place and index records in one transaction.
        lost: told which rows are neither in the log nor in the lake any more.
    """

    def __init__(
        self,
        log: Log,
        lane: TableLane,
        location: LakeLocation,
        settings: SnapshotterSettings,
        runtime: Runtime,
        *,
        entry: IndexEntry,
        place: int | None,
        save: Callable[[TableLane, int, Sequence[NewRecord]], None],
        lost: Callable[[str, str], None],
    ) -> None:
        self.lane = lane
        self._log, self._location, self._settings, self._runtime = log, location, settings, runtime
        self._save, self._lost = save, lost
        self._partition = lane.partition
        staging = StagingArea(Path(settings.staging_dir), location)
        self._files = StagedFiles(staging.folder, staging.fetch)
        self.wish = settings.tables.get(lane.topic, TableWish(name=lane.topic))
        self.snapshots = dict(entry.snapshots)
        """The newest of each version that is in the lake, as far as is known."""
        self.place = place or 0
        self.record_bytes = 0
        """Of a record, on average, in the last step."""
        self._entry = entry
        self._fold: TableFold | None = None
        self._limits = LakeLimits()
        self._open: dict[str, VersionTable] = {}
        """The active version's: opening one takes longer than a small step."""
        self._commits: dict[str, int] = {}
        """Delta commits of each version when it was last looked at."""
        self._missing = self._gone_tables()
        self._strays: set[str] = set()
        """Folders of Delta tables that the index does not know: a crash came between."""

    def news(self, since_ms: int, end: int) -> News:
        """What is new, for the cadence."""
        active = self._fold.active if self._fold is not None else None
        snapshot = self.snapshots.get(active.name) if active is not None else None
        return News(
            since_ms=since_ms,
            records=max(0, end - self.place),
            record_bytes=self.record_bytes,
            keyed=bool(active is not None and active.settings.unique_on),
            rows=snapshot.rows if snapshot is not None else 0,
            freshness=self.wish.freshness,
        )

    @property
    def damaged(self) -> bool:
        """Whether tables that were there are gone, so that they must be made again."""
        return bool(self._missing)

    def first_ms(self, end: int) -> int | None:
        """When the first record came that is not in the lake; None where there is none."""
        batch = self._log.read(self._partition, Offset(self._start()), stop=Offset(end), records_max=1)
        return batch.records[0].ts_ms if batch.records else None

    def step(self) -> bool:
        """Go on by one step; True when there was nothing left at its end. Raises what the log and the lake raise."""
        reached = self._runtime.probe.reached
        fold = self._load()
        end = self._log.ends([self._partition])[self._partition]
        source = RecentSource(self._log, self._partition, self._settings.step_bytes_max)
        at = self._read(fold, source, end)
        reached("topic-read")
        records = self._write(fold, source)
        reached("lake-written")
        self._save(self.lane, fold.position, [fold_record(self.lane, fold), *records])
        reached("place-committed")
        self.place = fold.position
        self._missing.clear()
        self._strays.clear()
        if source.read_records:
            self.record_bytes = source.read_bytes // source.read_records
        return at >= end

    # -- where it begins ------------------------------------------------------------------------------------------

    def _start(self) -> int:
        return max(self.place, self._log.starts([self._partition])[self._partition])

    def _load(self) -> TableFold:
        start = self._log.starts([self._partition])[self._partition]
        # One that stood still for long may find the log trimmed past its fold: it must not pass over what was there.
        if self._fold is not None and self._fold.position >= start:
            return self._fold
        fold = self._entry.table_fold()
        if fold is None or fold.position < start:
            fold = self.lane.new_fold(self.wish.name)
            if start > 0:
                lane = self.lane
                rebuilt, found = rebuild_fold(self._location, lane.topic, lane.of_many, born_ms=lane.born_ms)
                self.snapshots = {snapshot.version: snapshot for snapshot in found}
                fold = rebuilt if rebuilt.position > 0 else fold
            if fold.position < start:
                self._lost(self.lane.key, f"records {fold.position} to {start} are neither in the log nor in the lake")
                fold.position = start
        known = {snapshot.folder for snapshot in self.snapshots.values()}
        self._strays = set(self._location.folders(self.lane.topic, self.lane.of_many)) - known
        self._fold = fold
        return fold

    def _gone_tables(self) -> set[str]:
        """Versions whose Delta tables the index knows, and whose folders are not there."""
        if not self._location.is_local:
            return set()
        return {
            name
            for name, snapshot in self.snapshots.items()
            if not (self._location.local_path(snapshot.folder) / "_delta_log").is_dir()
        }

    # -- a step ---------------------------------------------------------------------------------------------------

    def _read(self, fold: TableFold, source: RecentSource, end: int) -> int:
        """Fold on to where a step's bounds are reached, or to the end; returns how far it came."""
        settings = self._settings
        at = self._start()
        while at < end and (
            at < fold.position
            or (source.read_records < settings.step_records_max and source.read_bytes < settings.step_bytes_max)
        ):
            batch = self._log.read(
                self._partition,
                Offset(at),
                stop=Offset(end),
                records_max=_READ_RECORDS_MAX,
                bytes_max=_READ_BYTES_MAX,
            )
            if batch.next <= at:
                break
            source.keep(at, batch)
            fold.advance(((record.offset, record.ts_ms, record.value) for record in batch.records), batch.next)
            at = batch.next
        return at

    def _write(self, fold: TableFold, messages: RecentSource) -> list[NewRecord]:
        """Bring each version that has news to the fold's position; returns what the index is to say."""
        records: list[NewRecord] = []
        source = TopicSource(
            self.lane.topic,
            self.lane.born_ms,
            messages,
            self._files,
            self._log.starts([self._partition])[self._partition],
            self.lane.of_many,
        )
        open_tables: dict[str, VersionTable] = {}
        for name in self._wanted(fold):
            done = snapshot_version(
                self._location,
                source,
                fold,
                name,
                table=self._open.get(name),
                limits=self._limits,
                bury=lambda rows: bury(self._log, self.lane, rows, self._runtime.clock.now_ms()),
                runtime=self._runtime,
            )
            self._check_not_beyond(done.table, fold.position)
            if fold.active is not None and name == fold.active.name:
                open_tables[name] = done.table
            if done.lost is not None:
                start, stop = done.lost
                self._lost(self.lane.key, f"rows of {name} at offsets {start} to {stop} are in neither log nor lake")
            self.snapshots[name] = self._keep_up(done)
            records.append(snapshot_record(self.lane, self.snapshots[name]))
        for name in self._missing - fold.versions.keys():
            self.snapshots.pop(name, None)
            records.append(gone_record(self.lane.key, name))
        self._open = open_tables
        return records

    def _check_not_beyond(self, table: VersionTable, position: int) -> None:
        """A log that was put back to an earlier day gives offsets anew that the lake has rows of: the new rows would never
        get there, and be trimmed away in the end."""
        if table.position <= position:
            return
        end = self._log.ends([self._partition])[self._partition]
        if table.position > end:
            raise LakeDamagedError(
                table.folder,
                "_delta_log",
                f"goes on to offset {table.position}, where the log ends at {end}: the log is older than the lake",
                "bring the lake to the state that belongs to the log (or the log to that of the lake), or move the table's "
                "folder away: the rows that the log still has are then written anew",
            )

    def _keep_up(self, done: Snapshotted) -> Snapshot:
        """Join small files, and shorten the Delta log, as often as commits make it worth while; the snapshot then."""
        table, snapshot = done.table, done.snapshot
        limits, runtime = self._limits, self._runtime
        if files_to_join(snapshot.files, limits):
            compact(table, limits=limits, runtime=runtime)
            joined = table.snapshot()  # a rival may have gone on meanwhile
            snapshot = replace(joined, position=max(joined.position, snapshot.position))
        before = self._commits.get(snapshot.version, table.delta_version)
        self._commits[snapshot.version] = table.delta_version
        if before // limits.checkpoint_every != table.delta_version // limits.checkpoint_every:
            tidy(table, limits=limits, runtime=runtime)
        return snapshot

    def _wanted(self, fold: TableFold) -> list[str]:
        """The versions that a step has to look at: the active one, and those in the lake that were active at or after
        their last snapshot, as far as is known, or lead while none is active. Those that were superseded before any snapshot
        do not get there."""
        foremost = fold.foremost
        names = []
        for name, version in fold.versions.items():
            snapshot = self.snapshots.get(name)
            stop = version.segments[-1][1]
            leads = version is foremost and (version is fold.active or snapshot is not None)
            late = snapshot is not None and (stop is None or stop >= snapshot.position)
            stray = self._location.folder(self.lane.topic, name, self.lane.of_many) in self._strays
            if leads or late or stray or name in self._missing:
                names.append(name)
        return names
