"""An app's index topic as the snapshotter reads and writes it: folds, and the newest snapshot of each version.

A cache: whatever stands there, Delta's own log decides what is in the lake.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from tailrace.log import Log, NewRecord, Partition, scan
from tailrace.snapshotter.topics import TableLane
from tailrace.tables import Snapshot, TableFold, index_topic

__all__ = ["IndexEntry", "fold_record", "gone_record", "index_partition", "read_index", "snapshot_record"]


@dataclass(slots=True)
class IndexEntry:
    """What an index says about one topic, or one of its several partitions."""

    fold: dict[str, Any] | None = None
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    """The newest of each version, by the version's name."""

    def table_fold(self) -> TableFold | None:
        """The fold, to go on with."""
        return TableFold.from_json(self.fold) if self.fold is not None else None


def index_partition(topic: str) -> Partition:
    """Where the index of the app is that `topic` belongs to."""
    return Partition(index_topic(topic.partition(".")[0]))


def read_index(log: Log, graph: str, lanes: Mapping[str, TableLane]) -> dict[str, IndexEntry]:
    """What the index of an app says about those lanes; what was said of older topics of the same name is passed over.

    Of several folds the one that came furthest counts, of several snapshots of a version the last one.
    """
    partition = Partition(index_topic(graph))
    if partition.topic not in log.topics(partition.topic):
        return {}
    found: dict[str, IndexEntry] = {}
    start, end = log.starts([partition])[partition], log.settled_ends([partition])[partition]
    for batch in scan(log, partition, start, end):
        for record in batch.records:
            key, at, version = (record.key or b"").decode(errors="replace").partition("@")
            if key not in lanes:
                continue
            entry = found.setdefault(key, IndexEntry())
            if record.value is None:
                entry.snapshots.pop(version, None)
                continue
            data = orjson.loads(record.value)
            if data.get("born_ms") != lanes[key].born_ms:
                continue
            if at:
                entry.snapshots[version] = Snapshot.from_json(data)
            elif entry.fold is None or entry.fold["position"] <= data["position"]:
                entry.fold = data
    return found


def fold_record(lane: TableLane, fold: TableFold) -> NewRecord:
    """A fold for the index."""
    return NewRecord(orjson.dumps({**fold.to_json(), "born_ms": lane.born_ms}), lane.key.encode())


def snapshot_record(lane: TableLane, snapshot: Snapshot) -> NewRecord:
    """A snapshot for the index."""
    value = orjson.dumps({**snapshot.to_json(), "born_ms": lane.born_ms})
    return NewRecord(value, f"{lane.key}@{snapshot.version}".encode())


def gone_record(key: str, version: str) -> NewRecord:
    """Says that a version's snapshot is gone."""
    return NewRecord(None, f"{key}@{version}".encode())


def append_all(log: Log, topic: str, records: Iterable[NewRecord]) -> None:
    """Write records into the index of the topic's app."""
    wanted = list(records)
    if wanted:
        log.append(index_partition(topic), wanted)
