"""Snapshotters that are killed under load; afterwards the lake is compared with the fold of the log, row by row."""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import deltalake
import orjson
import pyarrow as pa
from deltalake.exceptions import TableNotFoundError
from forked import Forked, fork
from table_reading import LogSource, fold_topic

from tailrace.lake import LakeLocation
from tailrace.log import Append, Log, NewRecord, Partition, TopicSpec, open_log
from tailrace.snapshotter import (
    GROUP,
    SnapshotterSettings,
    TableLane,
    TableWish,
    lanes_by_key,
    read_index,
    table_lanes,
)
from tailrace.tables import StagedFiles, TableFold, VersionReader, message, rows_message

PROGRAM = Path(__file__).with_name("lake_entry.py")
PATIENCE_S = 60.0
PLAIN, KEYED, SWAPPED, PARTED = "siege.plain", "siege.keyed", "siege.swapped", "siege.parted"
TOPICS = (PLAIN, KEYED, SWAPPED, PARTED)
PARTITIONS = 2
"""Of `PARTED`."""
FIELDS = {"number": "Integer", "text": "Text"}


class PromiseBrokenError(AssertionError):
    """What must never happen has happened."""


class LakeSiege:
    """A log with four Tables (one that grows, one with a key, one that is replaced, and one of several partitions that is
    replaced, too), and snapshotters over it."""

    def __init__(self, folder: Path, url: str, seed: int = 1, lake: str | None = None) -> None:
        """`lake`: its URL, where it is not a folder below `folder`."""
        self.folder = folder
        self.lake = LakeLocation.parse(lake or str(folder / "lake"))
        self.random = random.Random(seed)
        self.settings = SnapshotterSettings(
            log_url=url,
            lake_url=self.lake.url,
            staging_dir=str(folder / "staging"),
            graphs=("siege",),
            tables={topic: TableWish(name=topic.partition(".")[2]) for topic in TOPICS},
            freshness=timedelta(milliseconds=20),
            keyed_interval=timedelta(milliseconds=20),
            step_records_max=40,
            idle_exit=None,
            pause_max=timedelta(milliseconds=50),
            discover_interval=timedelta(seconds=1),
        )
        self.log: Log = open_log(url)
        specs = [TopicSpec(topic, PARTITIONS if topic == PARTED else 1) for topic in TOPICS]
        infos = self.log.create_topics([TopicSpec("siege._index", compacted=True), *specs])
        self.lanes: dict[str, TableLane] = lanes_by_key(infos[topic] for topic in TOPICS)
        self._begun_ms = infos[PARTED].born_ms
        self._writer = self.log.open_writer("siege")
        self.number = 0
        self._processes: list[Forked] = []
        self._over = threading.Event()
        self._load: threading.Thread | None = None

    # -- what is written ------------------------------------------------------------------------------------------

    def write(self) -> None:
        """A message or two for each Table."""
        now_ms = int(time.time() * 1000)
        chance = self.random.random
        self._rows(PLAIN, now_ms, self.random.randint(1, 5))
        if chance() < 0.002:
            self._append(PLAIN, message({"kind": "truncate", "ts": now_ms}))
        self._rows(KEYED, now_ms, self.random.randint(1, 5), key=["number"], numbers=30)
        if chance() < 0.1:
            head: dict[str, Any] = {"kind": "version", "ts": now_ms, "fields": FIELDS}
            self._append(SWAPPED, message(head))
        self._rows(SWAPPED, now_ms, 1)
        if chance() < 0.1:
            self._begun_ms += 1
            head = {"kind": "version", "ts": now_ms, "begun_ms": self._begun_ms, "fields": FIELDS}
            marker = NewRecord(message(head))
            self._writer.commit([Append(Partition(PARTED, each), [marker]) for each in range(PARTITIONS)])
        for each in range(PARTITIONS):
            self._rows(PARTED, now_ms, self.random.randint(1, 3), partition=each)

    def _rows(
        self,
        topic: str,
        now_ms: int,
        count: int,
        *,
        key: list[str] | None = None,
        numbers: int = 0,
        partition: int = 0,
    ) -> None:
        rows = []
        for _ in range(count):
            self.number += 1
            number = self.random.randrange(numbers) if numbers else self.number
            rows.append({"number": number, "text": f"row {self.number}"})
        fields = FIELDS if self.random.random() < 0.95 else {**FIELDS, f"more_{self.random.randrange(4)}": "Text"}
        head = {"kind": "rows", "ts": now_ms, "n": count, "fields": fields, **({"key": key} if key else {})}
        self._append(topic, rows_message(head, orjson.dumps(rows)), partition)

    def _append(self, topic: str, value: bytes, partition: int = 0) -> None:
        self.log.append(Partition(topic, partition), [NewRecord(value)])

    def begin_load(self) -> None:
        """Write all the time, in a thread."""

        def work() -> None:
            while not self._over.wait(0.01):
                self.write()

        self._load = threading.Thread(target=work, daemon=True)
        self._load.start()

    # -- who is killed --------------------------------------------------------------------------------------------

    def start(
        self, *faults: str, kill_at: str | None = None, order: Mapping[str, Any] | None = None, **more: Any
    ) -> Forked:
        """A snapshotter's process."""
        settings = {**self.settings.to_json(), **more}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TAILRACE_")}
        if kill_at is not None:
            environment["TAILRACE_KILL_AT"] = kill_at
        with (self.folder / "stderr").open("ab") as errors:
            process = fork(PROGRAM, *faults, env=environment, stderr=errors, pipes=True)
        assert process.stdin is not None
        process.stdin.write(json.dumps({"settings": settings, "supervised": True, **(order or {})}).encode() + b"\n")
        process.stdin.flush()
        self._processes.append(process)
        return process

    def die_at(self, point: str, *faults: str) -> None:
        """Have one die at a named point, under load."""
        process = self.start(*faults, kill_at=point)
        deadline_s = time.monotonic() + PATIENCE_S
        while process.poll() is None:
            self.write()
            assert time.monotonic() < deadline_s, f"{point} was not reached"
            time.sleep(0.01)
        assert process.returncode == -9, (process.returncode, self.errors)

    def kill_under_load(self, kills: int, *, pause_s: tuple[float, float] = (0.3, 1.5)) -> None:
        """Let one run, kill it after a while, and start the next, so often; then settle."""
        self.begin_load()
        process = self.start()
        for _ in range(kills):
            try:
                process.wait(self.random.uniform(*pause_s))
            except subprocess.TimeoutExpired:
                process.kill()
            process.wait()
            process = self.start()
        process.kill()
        self.settle()

    def task(self, name: str, *, kill_at: str | None = None, **more: Any) -> Any:
        """Have a process do one thing; what it answers, None where it was killed."""
        process = self.start(kill_at=kill_at, order={"task": name, "arguments": {"graphs": ["siege"]}}, **more)
        answer = process.communicate(timeout=PATIENCE_S)
        if kill_at is not None:
            assert process.returncode == -9, (process.returncode, answer, self.errors)
            return None
        assert process.returncode == 0, (answer, self.errors)
        return json.loads(answer)["answer"]

    @property
    def errors(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")

    def settle(self, *faults: str, patience_s: float = PATIENCE_S) -> None:
        """Stop the load, and let one that is not killed finish. Its steps are longer than those of the dead: what it reads
        again begins where theirs did, and ends elsewhere."""
        self._over.set()
        if self._load is not None:
            self._load.join()
        process = self.start(*faults, idle_exit_s=0.5, step_records_max=64)
        try:
            assert process.wait(patience_s) == 0, self.errors
        except subprocess.TimeoutExpired:
            process.kill()
            assert process.stdout is not None
            raise PromiseBrokenError(f"it does not come to an end: {process.stdout.read().decode()[-2000:]}") from None

    def wait_for_commits(self, count: int, topic: str = PLAIN, *, patience_s: float = PATIENCE_S) -> None:
        """Until the Delta tables of `topic` have got so many more commits."""
        wanted = self._commits(topic) + count
        wait_for(lambda: self._commits(topic) >= wanted, f"{count} commits for {topic}\n{self.errors}", patience_s)

    def _commits(self, topic: str) -> int:
        """The highest number of each table's Delta log; commits stay as files for a while."""
        logs = self.lake.local_path("siege").glob(f"{topic.partition('.')[2]}_*/**/_delta_log")
        return sum(max((int(file.name[:20]) + 1 for file in log.glob("0*.json")), default=0) for log in logs)

    def close(self) -> None:
        self._over.set()
        if self._load is not None:
            self._load.join()
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.close()
        self._writer.close()
        self.log.close()

    # -- what must be true ----------------------------------------------------------------------------------------

    def check(self) -> int:
        """Each version in the lake has the rows that the log says, each once, in order; returns how many rows."""
        index = read_index(self.log, "siege", table_lanes(self.log, ["siege"]))
        total = 0
        for key, lane in self.lanes.items():
            partition = lane.partition
            fold = fold_topic(self.log, partition, lane.new_fold(lane.topic.partition(".")[2]), settled=True)
            place = self.log.places(GROUP, [partition])[partition].offset
            self._demand(place == fold.position, f"{key}: the place is {place}, the end {fold.position}")
            folders = {name: LakeLocation.folder(lane.topic, name, lane.of_many) for name in fold.versions}
            there = {name: table for name, folder in folders.items() if (table := self._delta(folder)) is not None}
            assert fold.active is not None
            self._demand(fold.active.name in there, f"{key}: the active version is not in the lake")
            for name, table in there.items():
                total += self._check_version(lane, fold, name, table)
                self._demand(name in index[key].snapshots, f"{name} is not in the index")
        return total

    def _delta(self, folder: str) -> deltalake.DeltaTable | None:
        """A Delta table as others open it; None where there is none."""
        try:
            return deltalake.DeltaTable(self.lake.uri(folder), storage_options=self.lake.storage_options)
        except TableNotFoundError:
            return None

    def _check_version(self, lane: TableLane, fold: TableFold, name: str, table: deltalake.DeltaTable) -> int:
        wanted = self.rows(lane, fold, name)
        found = pa.table(table.to_pyarrow_table()).sort_by("patterns_id")
        ids = found.column("patterns_id").to_pylist()
        self._demand(len(set(ids)) == len(ids), f"{name}: {len(ids) - len(set(ids))} rows are there twice")
        names = sorted(wanted.column_names)
        self._demand(sorted(found.column_names) == names, f"{name}: columns {found.column_names}, not {names}")
        rows, truth = found.select(names).to_pylist(), wanted.select(names).to_pylist()
        self._demand(rows == truth, f"{name}: {len(rows)} rows, the log says {len(truth)}")
        return len(rows)

    def rows(self, lane: TableLane, fold: TableFold, name: str) -> pa.Table:
        """A version's rows as the log tells them."""
        view = fold.view_of(name)
        assert view is not None
        source = LogSource(self.log, lane.partition)
        reader = VersionReader(view, lane.ids, source, StagedFiles(self.folder / "staging"))
        return pa.concat_tables(reader.tables(id_column="patterns_id")).sort_by("patterns_id")

    def active_rows(self) -> dict[str, list[dict[str, Any]]]:
        """What any Delta reader sees of the active versions."""
        index = read_index(self.log, "siege", table_lanes(self.log, ["siege"]))
        found = {}
        for key in self.lanes:
            fold = index[key].table_fold()
            assert fold is not None and fold.active is not None
            table = self._delta(index[key].snapshots[fold.active.name].folder)
            assert table is not None
            found[key] = pa.table(table.to_pyarrow_table()).sort_by("patterns_id").to_pylist()
        return found

    def check_after_retention(self, active: Mapping[str, Any]) -> None:
        """The log is empty, the active versions are as they were, and of the others nothing is left."""
        self._demand(self.active_rows() == active, "the active versions are not what they were")
        index = read_index(self.log, "siege", table_lanes(self.log, ["siege"]))
        root = self.lake.local_path()
        folders = {path.relative_to(root).as_posix() for path in root.glob("*/*")}
        known = {snapshot.folder for entry in index.values() for snapshot in entry.snapshots.values()}
        wanted = {LakeLocation.version_folder(folder) for folder in known}
        self._demand(folders == wanted, f"there are {folders}, the index knows {wanted}")
        self._demand(len(wanted) == len(TOPICS), f"more than the active versions are left: {wanted}")
        partitions = [lane.partition for lane in self.lanes.values()]
        self._demand(self.log.starts(partitions) == self.log.ends(partitions), "the log was not trimmed")

    @staticmethod
    def _demand(promise: bool, what: str) -> None:
        if not promise:
            raise PromiseBrokenError(what)


def wait_for(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    deadline_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.02)
