"""`upkeep`: many snapshots of one table, with compaction, Delta checkpoints and clean-up as the snapshotter has them."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from benchmarks.result import Result
from tailrace.lake import (
    LakeLimits,
    LakeLocation,
    TopicSource,
    VersionTable,
    compact,
    files_to_join,
    snapshot_version,
    tidy,
)
from tailrace.log import Log, NewRecord, Offset, Partition, TopicSpec, open_log, scan
from tailrace.tables import Messages, SnapshotReader, StagedFiles, TableFold, rows_message

__all__ = ["upkeep"]

COMMITS = 10_000
COMMITS_QUICK = 1_000
EVENTS = Partition("bench.events")
FIELDS = {"number": "Integer", "name": "Text", "at": "DateTime"}


class _Source:
    """The topic as a snapshot reads it."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def scan(self, start: int, stop: int) -> Iterator[Messages]:
        for batch in scan(self._log, EVENTS, Offset(start), Offset(stop)):
            values = [record.value or b"" for record in batch.records]
            yield Messages(
                [record.offset for record in batch.records],
                [record.ts_ms for record in batch.records],
                [len(value) for value in values],
                b",".join(values),
            )


def upkeep(*, quick: bool) -> Result:
    """Time of a snapshot and of opening the table at the end, against those near the beginning."""
    commits = COMMITS_QUICK if quick else COMMITS
    limits = LakeLimits()
    commit_ms: list[float] = []
    commit_cpu_ms: list[float] = []
    upkeep_ms: list[float] = []
    open_ms: list[float] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        log = open_log(f"sqlite:///{name}/log.db")
        log.create_topics([TopicSpec(EVENTS.topic)])
        born_ms = log.topics()[EVENTS.topic].born_ms
        source = TopicSource(EVENTS.topic, born_ms, _Source(log), StagedFiles(Path(name)))
        lake = LakeLocation.parse(f"{name}/lake")
        fold = TableFold("events")
        table: VersionTable | None = None
        for number in range(commits):
            row = {"number": number, "name": f"name-{number}", "at": "2024-05-01T10:00:00"}
            value = rows_message({"kind": "rows", "n": 1, "fields": FIELDS}, orjson.dumps([row]))
            log.append(EVENTS, [NewRecord(value)])
            batch = log.read(EVENTS, Offset(fold.position), records_max=10)
            fold.advance(((each.offset, each.ts_ms, each.value) for each in batch.records), batch.next)
            assert fold.active is not None

            start, start_cpu = time.perf_counter(), time.process_time()
            done = snapshot_version(lake, source, fold, fold.active.name, table=table, limits=limits)
            commit_ms.append((time.perf_counter() - start) * 1000)
            commit_cpu_ms.append((time.process_time() - start_cpu) * 1000)
            table = done.table

            start = time.perf_counter()
            if files_to_join(done.snapshot.files, limits):
                compact(table, limits=limits)
            if number % limits.checkpoint_every == 0:
                tidy(table, limits=limits)
            upkeep_ms.append((time.perf_counter() - start) * 1000)

            if 100 <= number < 200 or number >= commits - 100:
                start = time.perf_counter()
                opened = VersionTable.open(lake, table.folder, limits=limits)
                assert opened is not None
                next(SnapshotReader(opened.snapshot(), lake.local_path(table.folder)).tables())
                open_ms.append((time.perf_counter() - start) * 1000)
        assert table is not None
        rows = table.snapshot().rows
        assert rows == commits, f"{rows} rows of {commits}"
        files = len(table.snapshot().files)
        log.close()
    early, late = statistics.median(commit_ms[100:200]), statistics.median(commit_ms[-100:])
    open_early, open_late = statistics.median(open_ms[:100]), statistics.median(open_ms[-100:])
    return Result(
        name="upkeep",
        value=late,
        unit="ms a snapshot",
        baseline=early,
        what=f"median of the last 100 of {commits:,} snapshots of one table",
        against="that of snapshots 100 to 200",
        wanted="at most 2 times, opening likewise",
        met=late <= 2 * early and open_late <= 2 * open_early,
        extra={
            "commits": commits,
            "cpu_ms": round(statistics.median(commit_cpu_ms[-100:]), 2),
            "cpu_ms_baseline": round(statistics.median(commit_cpu_ms[100:200]), 2),
            "open_ms": round(open_late, 2),
            "open_ms_baseline": round(open_early, 2),
            "open_ratio": round(open_late / open_early, 3),
            "upkeep_ms_mean": round(statistics.mean(upkeep_ms), 2),
            "upkeep_ms_mean_last_1000": round(statistics.mean(upkeep_ms[-1000:]), 2),
            "files": files,
        },
    )
