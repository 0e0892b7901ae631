"""What a snapshotter's process does once, and answers: let go of what is old, make indexes again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from tailrace.lake import (
    LakeDamagedError,
    LakeLocation,
    LakeUnavailableError,
    RetentionLimits,
    RetentionPlan,
    StagingArea,
    TopicFacts,
    carry_out,
    decide,
    find_facts,
    finish_notes,
    rebuild_fold,
)
from tailrace.log import Log, NewRecord, Offset, Partition, Place, open_log, scan
from tailrace.runtime import Runtime, probe_from_environment
from tailrace.snapshotter.index import IndexEntry, append_all, fold_record, gone_record, read_index, snapshot_record
from tailrace.snapshotter.settings import SnapshotterSettings, TableWish
from tailrace.snapshotter.topics import GROUP, TableLane, table_lanes
from tailrace.tables import TableFold, index_topic, lane_of

__all__ = ["TASKS", "collect", "collect_all", "collect_when_due", "rebuild"]

_ROUND = b"retention-round"
"""Key of the index record that says when old things were last looked for."""


def collect(
    log: Log,
    location: LakeLocation,
    settings: SnapshotterSettings,
    runtime: Runtime,
    graph: str,
    *,
    dry_run: bool = False,
) -> Iterator[RetentionPlan]:
    """Decide what may go of one app's Tables, and let go of it; with `dry_run` only the decision."""
    lanes = table_lanes(log, [graph])
    index = Partition(index_topic(graph))
    if not lanes or index.topic not in log.topics(index.topic):
        return
    staging = StagingArea(Path(settings.staging_dir), location)
    writer = None if dry_run else log.open_writer(f"retention-{graph}")
    try:
        if writer is not None:
            yield from finish_notes(log, location, index=index, staging=staging, writer=writer, runtime=runtime)
        places = log.places(GROUP, [lane.partition for lane in lanes.values()])
        entries = read_index(log, graph, lanes)
        by_topic: dict[str, list[TableLane]] = {}
        for lane in lanes.values():
            by_topic.setdefault(lane.topic, []).append(lane)
        for topic, its_lanes in by_topic.items():
            if not any(lane.key in entries for lane in its_lanes):
                continue
            limits, now_ms = _limits(settings, topic), runtime.clock.now_ms()
            facts = [
                _facts(log, location, lane, entries.get(lane.key), places.get(lane.partition), now_ms, limits)
                for lane in its_lanes
            ]
            plan = decide(facts, now_ms, limits)
            if plan.empty:
                continue
            if writer is None:
                yield plan
            else:
                yield carry_out(
                    log,
                    location,
                    plan,
                    index=index,
                    staging=staging,
                    writer=writer,
                    limits=limits,
                    runtime=runtime,
                )
    finally:
        if writer is not None:
            writer.close()


def collect_when_due(
    log: Log, location: LakeLocation, settings: SnapshotterSettings, runtime: Runtime, graph: str
) -> None:
    """`collect`, unless that was done less than `retention_interval` ago, by whichever process."""
    index = Partition(index_topic(graph))
    if index.topic not in log.topics(index.topic):
        return
    now_ms, last_ms = runtime.clock.now_ms(), 0
    for batch in scan(log, index, log.starts([index])[index], log.settled_ends([index])[index]):
        for record in batch.records:
            if record.key == _ROUND and record.value is not None:
                last_ms = orjson.loads(record.value)["at_ms"]
    if now_ms - last_ms >= settings.retention_interval.total_seconds() * 1000:
        for _ in collect(log, location, settings, runtime, graph):
            pass
        log.append(index, [NewRecord(orjson.dumps({"at_ms": now_ms}), _ROUND)])


def _facts(
    log: Log,
    location: LakeLocation,
    lane: TableLane,
    entry: IndexEntry | None,
    place: Place | None,
    now_ms: int,
    limits: RetentionLimits,
) -> TopicFacts:
    fold = entry.table_fold() if entry is not None else None
    if entry is None or fold is None or place is None:  # nothing is known to be in the lake
        entry, fold, place = IndexEntry(), lane.new_fold(lane.topic), Place(Offset(0))
    return find_facts(
        log,
        lane.partition,
        fold,
        entry.snapshots,
        folders=location.folders(lane.topic, lane.of_many),
        in_lake=min(fold.position, place.offset),
        now_ms=now_ms,
        limits=limits,
    )


def _limits(settings: SnapshotterSettings, topic: str) -> RetentionLimits:
    wish = settings.tables.get(topic, TableWish(name=topic))
    return RetentionLimits(retention=wish.retention or settings.retention, grace=settings.grace)


def collect_all(settings: SnapshotterSettings, graphs: Sequence[str], *, dry_run: bool = False) -> list[dict[str, Any]]:
    """What goes, or would go, of those apps."""
    with _open(settings) as (log, location, runtime):
        return [
            plan.to_json()
            for graph in graphs
            for plan in collect(log, location, settings, runtime, graph, dry_run=dry_run)
        ]


def rebuild(settings: SnapshotterSettings, graphs: Sequence[str]) -> list[dict[str, Any]]:
    """Make the indexes of all Tables again, from lake and log alone; returns what was found of each.

    Of a Delta table that is damaged or cannot be read the index keeps what it says, and the others go on.
    """
    answer = []
    with _open(settings) as (log, location, _):
        for graph in graphs:
            lanes = table_lanes(log, [graph])
            entries = read_index(log, graph, lanes)
            answer += [
                _rebuild_lane(log, location, settings, lane, entries.get(key, IndexEntry()))
                for key, lane in lanes.items()
            ]
    return answer


def _rebuild_lane(
    log: Log, location: LakeLocation, settings: SnapshotterSettings, lane: TableLane, entry: IndexEntry
) -> dict[str, Any]:
    name = settings.tables.get(lane.topic, TableWish(name=lane.topic)).name
    unread: list[LakeDamagedError | LakeUnavailableError] = []
    lake_fold, snapshots = rebuild_fold(
        location, lane.topic, lane.of_many, born_ms=lane.born_ms, on_unread=unread.append
    )
    start = log.starts([lane.partition])[lane.partition]
    fold = lane.new_fold(name) if start == 0 or lake_fold.position == 0 else lake_fold
    records = [snapshot_record(lane, snapshot) for snapshot in snapshots]
    found = {snapshot.version for snapshot in snapshots}
    folders = {error.table for error in unread}
    gone = {version for version, old in entry.snapshots.items() if old.folder not in folders} - found
    records += [gone_record(lane.key, version) for version in gone]
    lost = None
    if fold.position >= start or not unread:
        if fold.position < start:
            lost = f"records {fold.position} to {start} are neither in the log nor in the lake"
            fold.position = start
        _fold_on(log, lane, fold)
        records.append(fold_record(lane, fold))
    else:  # what the log has not may be in one of those: to pass over it would lose it
        fold = entry.table_fold() or fold
    append_all(log, lane.topic, records)
    return {
        "topic": lane.key,
        "table": lane_of(name, lane.number),
        "position": fold.position,
        "versions": len(fold.versions),
        "in_lake": len(found),
        "lost": lost,
        "damaged": [str(error) for error in unread],
    }


def _fold_on(log: Log, lane: TableLane, fold: TableFold) -> None:
    """Advance a lane's fold to its end."""
    end = log.settled_ends([lane.partition])[lane.partition]
    for batch in scan(log, lane.partition, Offset(fold.position), end):
        fold.advance(((record.offset, record.ts_ms, record.value) for record in batch.records), batch.next)


@contextmanager
def _open(settings: SnapshotterSettings) -> Iterator[tuple[Log, LakeLocation, Runtime]]:
    runtime = Runtime(probe=probe_from_environment())
    location = LakeLocation.parse(settings.lake_url)
    log = open_log(settings.log_url, runtime=runtime)
    try:
        yield log, location, runtime
    finally:
        log.close()


TASKS: Mapping[str, Callable[..., Any]] = {"gc": collect_all, "rebuild": rebuild}
