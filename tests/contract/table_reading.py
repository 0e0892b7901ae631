"""Tables read straight from a log, with nothing between; and those of an app in memory, put into a lake."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tailrace.lake import LakeLocation, TopicSource, snapshot_version
from tailrace.log import Log, Offset, Partition, scan
from tailrace.tables import IdMaker, Messages, StagedFiles, TableFold, VersionReader
from tailrace.testing.app import TestApp


class LogSource:
    """`MessageSource` over a log."""

    def __init__(self, log: Log, partition: Partition) -> None:
        self._log, self._partition = log, partition

    def scan(self, start: int, stop: int) -> Iterator[Messages]:
        for batch in scan(self._log, self._partition, Offset(start), Offset(stop)):
            yield Messages.of(batch.records)


def fold_topic(log: Log, partition: Partition, fold: TableFold | None = None, *, settled: bool = False) -> TableFold:
    """The fold of a topic at its end; goes on with `fold` where one is given.

    `settled`: at an end that hides nothing; on Kafka a commit shows some milliseconds after it has returned.
    """
    fold = fold or TableFold(partition.topic)
    end = (log.settled_ends if settled else log.ends)([partition])[partition]
    for batch in scan(log, partition, Offset(fold.position), end):
        fold.advance(((record.offset, record.ts_ms, record.value) for record in batch.records), batch.next)
    return fold


def reader_of(
    log: Log, partition: Partition, fold: TableFold, staging: Path = Path("/nowhere")
) -> VersionReader | None:
    """A reader of the active version; None where there is none."""
    view = fold.view()
    if view is None:
        return None
    born_ms = log.topics(partition.topic)[partition.topic].born_ms
    ids = IdMaker(partition.topic, born_ms)
    return VersionReader(view, ids, LogSource(log, partition), StagedFiles(staging))


def put_into_lake(app: TestApp, name: str, location: LakeLocation, staging: Path) -> None:
    """Snapshots of all versions of an app's table, which its readers know from then on."""
    table = app.table(name)
    source = TopicSource(table.ref.topic, table.ref.born_ms, table, StagedFiles(staging), table.log_start)
    for version in list(table.fold.versions):
        made = snapshot_version(location, source, table.fold, version)
        table.snapshots[version] = (made.snapshot, location.local_path(made.snapshot.folder))


def trim_behind_lake(app: TestApp, name: str) -> None:
    """Take from the log what is in the lake."""
    table = app.table(name)
    table.trim(max(snapshot.position for snapshot, _ in table.snapshots.values()))
