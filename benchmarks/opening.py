"""`open`: the first row of a table with a long history, by a node of a house that has just begun."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from benchmarks.apps import OPEN, write_app
from benchmarks.read import one_run
from benchmarks.result import Result
from tailrace.graph import load_app
from tailrace.lake import LakeLocation, SnapshotFiles, VersionTable
from tailrace.log import Append, Log, NewRecord, Offset, Partition, Place, open_log
from tailrace.runner import Deployment, Host, RunnerSettings, deploy
from tailrace.runtime import Runtime
from tailrace.snapshotter import GROUP, IndexEntry, SnapshotterSettings, TableLane, lanes_by_key
from tailrace.snapshotter.work import TableWork
from tailrace.tables import SnapshotReader, message, rows_message

__all__ = ["opening"]

HISTORY = 1_000
HISTORY_QUICK = 60
ROUNDS = 9
FIELDS = {"number": "Integer", "name": "Text"}


@dataclass(slots=True)
class _Place:
    """A data folder with one table, all of whose rows are in the lake."""

    folder: Path
    deployment: Deployment
    log: Log
    delta_folder: str = ""
    commits: int = 0
    first_ms: list[float] = field(default_factory=list)
    """From asking to the first row, in the node's first run."""
    again_ms: list[float] = field(default_factory=list)
    """The same in its second run, whose worker is warm."""
    start_ms: list[float] = field(default_factory=list)
    """From a new host's beginning to the end of the node's run."""
    delta_ms: list[float] = field(default_factory=list)
    """From opening the Delta table to its first row, with nothing else of ours."""

    @property
    def location(self) -> LakeLocation:
        return LakeLocation.parse(str(self.folder / "data" / "lake"))

    async def round(self) -> None:
        """The first row in a house that knows nothing yet."""
        files = SnapshotFiles(self.location, self.folder / "cache")
        began_s = time.perf_counter()
        host = Host(self.log, data_dir=self.folder / "data", runtime=Runtime(), fetch=files.fetch, lake_dir=files.root)
        await host.start()
        try:
            await host.deploy([self.deployment])
            self.first_ms.append(await self._run(host))
            self.start_ms.append((time.perf_counter() - began_s) * 1e3)
            self.again_ms.append(await self._run(host))
        finally:
            await host.stop()

        began_s = time.perf_counter()
        table = VersionTable.open(self.location, self.delta_folder)
        assert table is not None
        next(SnapshotReader(table.snapshot(), self.location.local_path(self.delta_folder)).tables())
        self.delta_ms.append((time.perf_counter() - began_s) * 1e3)

    async def _run(self, host: Host) -> float:
        """How long the node waited for the first row."""
        run = await one_run(host, self.deployment.graph, next(iter(self.deployment.nodes.values())).node.key)
        assert run.kind == "ok", run.error
        lines = [line.text for line in host.journal.lines(run=run.run) if line.text.startswith("{")]
        answer = orjson.loads(lines[-1])
        assert answer["row"] == {"number": 0, "name": "name-0"}, answer
        took_ms: float = answer["took_ms"]
        return took_ms


def _fill(folder: Path, versions: int, snapshots: int) -> _Place:
    """So many versions, each of which came into the lake, and so many snapshots of the last one; the log trimmed behind."""
    app = write_app(folder, OPEN)
    deployment = deploy(load_app(app), app, RunnerSettings())
    (folder / "data").mkdir()
    url = f"sqlite:///{folder / 'data' / 'tailrace.db'}"
    log = open_log(url)
    place = _Place(folder, deployment, log)
    (topic,) = (topic for topic, table in deployment.tables.items() if table.store.name == "measures")
    (lane,) = lanes_by_key([log.create_topics(deployment.topics())[topic]]).values()
    partition, index = Partition(topic), Partition(deployment.index_topic)
    settings = SnapshotterSettings(log_url=url, lake_url=place.location.url, staging_dir=str(folder / "data/staging"))

    with contextlib.closing(log.open_writer("bench")) as writer:

        def save(_: TableLane, position: int, records: Sequence[NewRecord]) -> None:
            writer.commit([Append(index, records)], {GROUP: {partition: Place(Offset(position))}})

        def lost(_: str, text: str) -> None:
            raise AssertionError(text)

        work = TableWork(
            log, lane, place.location, settings, Runtime(), entry=IndexEntry(), place=None, save=save, lost=lost
        )

        def put(*values: bytes) -> None:
            log.append(partition, [NewRecord(value) for value in values])
            assert work.step()

        for _ in range(versions):
            now_ms = time.time_ns() // 1_000_000
            put(message({"kind": "version", "ts": now_ms, "fields": FIELDS}), _row(0))
        for number in range(1, snapshots):
            put(_row(number))
    (place.delta_folder, *_) = place.location.folders(topic)[::-1]
    end = log.ends([partition])[partition]
    while log.trim(partition, end) < end:
        pass
    table = VersionTable.open(place.location, place.delta_folder)
    assert table is not None and table.snapshot().rows == snapshots
    assert len(place.location.folders(topic)) == versions
    place.commits = table.delta_version + 1
    return place


def _row(number: int) -> bytes:
    head = {"kind": "rows", "run": "", "n": 1, "fields": FIELDS}
    return rows_message(head, orjson.dumps([{"number": number, "name": f"name-{number}"}]))


def opening(*, quick: bool) -> Result:
    """A table with many versions and snapshots against one with one of each, in turns."""
    history = HISTORY_QUICK if quick else HISTORY
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        places = []
        for count in (1, history):
            folder = Path(name, str(count))
            folder.mkdir()
            places.append(_fill(folder, count, count))
        try:
            for _ in range(3 if quick else ROUNDS):
                for place in places:
                    asyncio.run(place.round())
        finally:
            for place in places:
                place.log.close()
    one, many = places
    extra: dict[str, Any] = {"commits": many.commits}
    ratios = []
    for what in ("first_ms", "again_ms", "start_ms", "delta_ms"):
        ours, theirs = statistics.median(getattr(many, what)), statistics.median(getattr(one, what))
        extra |= {what: round(ours, 1), f"{what}_baseline": round(theirs, 1), f"{what}_ratio": round(ours / theirs, 2)}
        if what != "delta_ms":  # told beside it: how many commits lie behind the last Delta checkpoint is chance
            ratios.append(ours / theirs)
    return Result(
        name="open",
        value=extra["first_ms"],
        unit="ms",
        baseline=extra["first_ms_baseline"],
        what=f"first row of a table with {history:,} versions and {history:,} snapshots, in a node of a new host",
        against="the same of a table with one",
        wanted="at most 3 times; so in a second run, and from the host's beginning on",
        met=max(ratios) <= 3,
        extra=extra,
    )
