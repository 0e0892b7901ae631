"""Whatever is written to a Table, or to one of its several partitions, and whatever is done to the lake: a Delta table holds
what the fold of the log says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st
from table_reading import LogSource, fold_topic

from tailrace.lake import (
    LakeLimits,
    LakeLocation,
    Snapshotted,
    TopicSource,
    VersionTable,
    compact,
    rebuild_fold,
    snapshot_version,
    tidy,
)
from tailrace.lake.delta import id_column_of
from tailrace.log import Log, NewRecord, Offset, Partition, Record, TopicSpec, open_log
from tailrace.runtime import Crash, CrashAt, Probe, Runtime
from tailrace.tables import (
    IdMaker,
    Messages,
    MessageSource,
    Snapshot,
    SnapshotReader,
    StagedFiles,
    TableFold,
    VersionReader,
    message,
    rows_message,
)
from tailrace.tables.schema import from_stored

ORDERS = Partition("shop.orders")
LIMITS = LakeLimits(
    file_bytes_target=40_000,
    row_group_rows_max=5,
    files_joined_min=2,
    checkpoint_every=3,
    commits_kept=6,
    removed_kept=timedelta(0),
)
POINTS = ("lake-opened", "lake-created", "lake-read", "lake-columns", "lake-committed")
MEMORY = Path("/dev/shm")
MANY = 50
"""Lives of one part of the long test: `make chaos ARGS="-n 2"` shares them among processes, and each counts for itself."""
UPKEEP_POINTS = ("compact-read", "compact-committed", "tidy-checkpoint", "tidy-log", "tidy-files")


@dataclass
class House:
    """A log, a lake, and what a snapshotter keeps between its rounds."""

    log: Log
    lake: LakeLocation
    lane: int | None = None
    """The partition, of a topic with several."""
    begun: int = 0
    """Versions that markers have begun."""
    tables: dict[str, VersionTable] = field(default_factory=dict)
    stale: dict[str, VersionTable] = field(default_factory=dict)
    """Handles as they were some rounds ago: those of a rival."""
    checked: dict[str, int] = field(default_factory=dict)
    """Delta versions that were found right, by folder."""
    records: list[Record] = field(default_factory=list)
    """All that was ever written, for the log is trimmed."""

    def put(self, value: bytes) -> None:
        written = self.log.append(self.partition, [NewRecord(value)])
        self.records += self.log.read(self.partition, written.start, records_max=1).records

    def rows(self, rows: Sequence[Mapping[str, Any]], fields: Mapping[str, str], **head: Any) -> None:
        full = {"kind": "rows", "n": len(rows), "fields": dict(fields), **head}
        self.put(rows_message(full, orjson.dumps(list(rows))))

    def fold(self, stop: int = 1 << 40) -> TableFold:
        fold = TableFold("orders", None if self.lane is None else self.born_ms)
        for record in self.records:
            if record.offset < stop:
                fold.advance([(record.offset, record.ts_ms, record.value)], record.offset + 1)
        return fold

    def scan(self, start: int, stop: int) -> Iterator[Messages]:
        """All that was ever written, as a source of messages."""
        yield Messages.of([record for record in self.records if start <= record.offset < stop])

    @property
    def partition(self) -> Partition:
        return Partition(ORDERS.topic, self.lane or 0)

    def next_begun_ms(self) -> int:
        """When the next version begins."""
        self.begun += 10
        return self.born_ms + self.begun

    @property
    def born_ms(self) -> int:
        return self.log.topics()[ORDERS.topic].born_ms

    def source(self) -> TopicSource:
        return TopicSource(
            ORDERS.topic,
            self.born_ms,
            LogSource(self.log, self.partition),
            StagedFiles(Path("/nowhere")),
            self.log.starts([self.partition])[self.partition],
            self.lane,
        )

    def snapshot(self, *, probe: Probe | None = None, rival: bool = False) -> list[Snapshotted]:
        fold = self.fold()
        runtime = Runtime(probe=probe or Probe())
        done = []
        for name in list(fold.versions):
            table = (self.stale if rival else self.tables).get(name)
            result = snapshot_version(self.lake, self.source(), fold, name, table=table, limits=LIMITS, runtime=runtime)
            self.tables[name] = result.table
            done.append(result)
        return done

    def trim(self, share: float) -> None:
        """Cut off a share of the log that is in the lake."""
        done = self.snapshot()
        assert all(each.lost is None for each in done), "nothing that is in the lake is lost by a trim"
        self.log.trim(self.partition, Offset(int(self.fold().position * share)))

    def upkeep(self, probe: Probe | None = None) -> None:
        runtime = Runtime(probe=probe or Probe())
        for table in self.tables.values():
            compact(table, limits=LIMITS, runtime=runtime)
            tidy(table, limits=LIMITS, runtime=runtime)

    def expected(self, name: str, position: int) -> pa.Table:
        """The rows of a version at a position, folded from the log, with ids."""
        reader = self.reader(name, position, self)
        return reader.table(id_column=id_column_of(reader.view))

    def reader(self, name: str, position: int, source: MessageSource, **past: Any) -> VersionReader:
        """Of a version as of a position."""
        view = self.fold(position).view_of(name)
        assert view is not None
        ids = IdMaker(ORDERS.topic, self.born_ms, self.lane or 0)
        return VersionReader(view, ids, source, StagedFiles(Path("/nowhere")), **past)

    def check_reads(self, snapshot: Snapshot, cut: int) -> None:
        """The Delta table and what the log still has after it are the log as of the cut, read and streamed."""
        past = SnapshotReader(snapshot, self.lake.local_path(snapshot.folder))
        start = self.log.starts([self.partition])[self.partition]
        tail = LogSource(self.log, self.partition)
        both = self.reader(snapshot.version, cut, tail, snapshot=past, log_start=start)
        whole = self.reader(snapshot.version, cut, self)
        for id_column in (None, id_column_of(whole.view)):
            assert both.table(id_column=id_column).to_pylist() == whole.table(id_column=id_column).to_pylist()
        assert _streamed(both) == _streamed(whole)

    def check(self) -> None:
        """Each Delta table that is there equals the fold at its position, file by file in the order of ids.

        One that stands where it was found right is not read again.
        """
        end = self.fold()
        newest = 0
        for folder in self.lake.folders(ORDERS.topic, self.lane):
            table = VersionTable.open(self.lake, folder, limits=LIMITS)
            if table is None or table.position == 0:
                continue  # a death before the first rows
            newest = max(newest, table.position)
            if end.active is not None and table.meta.view.name == end.active.name:
                for cut in {table.position, (table.position + end.position) // 2, end.position}:
                    self.check_reads(table.snapshot(), cut)
            if self.checked.get(folder) == table.delta_version:
                continue
            snapshot = table.snapshot()
            expected = self.expected(snapshot.version, snapshot.position)
            found = [
                from_stored(
                    pq.read_table(self.lake.local_path(folder) / file.path),
                    snapshot.fields,
                    id_column=snapshot.id_column,
                )
                for file in snapshot.files
            ]
            rows = pa.concat_tables(found) if found else expected.slice(0, 0)
            assert rows.to_pylist() == expected.to_pylist()
            assert dict(table.meta.fold().to_json()) == self.fold(table.position).to_json()
            whole = pa.table(DeltaTable(self.lake.uri(folder)).to_pyarrow_table())
            assert sorted(whole.column(snapshot.id_column).to_pylist()) == [
                row[snapshot.id_column] for row in expected.to_pylist()
            ]
            view = end.view_of(snapshot.version)
            assert view is not None
            assert table.meta.view.name == view.name
            self.checked[folder] = table.delta_version
        rebuilt, snapshots = rebuild_fold(self.lake, ORDERS.topic, self.lane, limits=LIMITS)
        assert rebuilt.position == newest
        assert len(snapshots) <= len(end.versions)
        if newest:
            assert fold_topic(self.log, self.partition, rebuilt).to_json() == end.to_json()


def _streamed(reader: VersionReader) -> list[tuple[dict[str, Any], tuple[int, int]]]:
    return [each for batch in reader.stream(0, 0) for each in zip(batch.rows, batch.places, strict=True)]


# -- what may happen -------------------------------------------------------------------------------------------------

PLAIN = {"k": "Integer", "v": "Text"}
values = st.one_of(st.none(), st.sampled_from(["a", "b", "na"]))
some_rows = st.lists(st.fixed_dictionaries({"k": st.one_of(st.none(), st.integers(0, 6)), "v": values}), max_size=8)
wide_rows = st.lists(st.fixed_dictionaries({"k": st.floats(0, 3, width=16), "t": values}), min_size=1, max_size=3)

steps = st.one_of(
    st.tuples(st.just("append"), some_rows),
    st.tuples(st.just("append"), some_rows),
    st.tuples(st.just("upsert"), some_rows, st.sampled_from([["k"], ["k", "v"], ["v"]])),
    st.tuples(st.just("column"), some_rows, st.sampled_from(["w", "K", "x"])),
    st.tuples(st.just("widen"), wide_rows),
    st.tuples(st.just("delete"), st.lists(st.integers(0, 30), max_size=4)),
    st.tuples(st.just("replace"), some_rows, st.sampled_from([{}, {"id": None}, {"key": ["k"]}, {"id": "no"}])),
    st.tuples(st.just("late"), some_rows),
    st.tuples(st.just("marker"), st.sampled_from(["reset", "truncate", "signal"])),
    st.tuples(st.just("activate"), st.integers(0, 5)),
    st.tuples(st.just("snapshot")),
    st.tuples(st.just("snapshot")),
    st.tuples(st.just("rival")),
    st.tuples(st.just("reopen")),
    st.tuples(st.just("upkeep")),
    st.tuples(st.just("trim"), st.sampled_from([0.5, 1.0])),
    st.tuples(st.just("crash"), st.sampled_from(POINTS), st.integers(1, 2)),
    st.tuples(st.just("crash-upkeep"), st.sampled_from(UPKEEP_POINTS)),
)


def take(house: House, step: tuple[Any, ...]) -> None:
    kind, *rest = step
    if kind == "append":
        house.rows(rest[0], PLAIN)
    elif kind == "upsert":
        house.rows(rest[0], PLAIN, key=rest[1])
    elif kind == "column":
        house.rows([{**row, rest[1]: 1.5} for row in rest[0]], {**PLAIN, rest[1]: "Float"})
    elif kind == "widen":
        house.rows(rest[0], {"k": "Float", "t": "Time" if all(r["t"] is None for r in rest[0]) else "Text"})
    elif kind == "delete":
        _delete(house, rest[0])
    elif kind == "replace":
        head = {"ts": 1_700_000_000_000, "begun_ms": house.next_begun_ms(), "settings": rest[1], "fields": PLAIN}
        house.put(message({"kind": "version", **head}))
        house.rows(rest[0], PLAIN)
    elif kind == "late":
        begun_ms = house.born_ms + house.begun - 5
        house.put(message({"kind": "version", "begun_ms": begun_ms, "run": "late", "fields": PLAIN}))
        house.rows(rest[0], PLAIN, run="late")
    elif kind == "marker":
        house.put(message({"kind": rest[0], "begun_ms": house.next_begun_ms()}))
    elif kind == "activate":
        names = list(house.fold().versions)
        house.put(message({"kind": "activate", "name": names[rest[0] % len(names)] if names else "none"}))
    elif kind == "snapshot":
        house.stale = {name: _again(table) for name, table in house.tables.items()}
        house.snapshot()
    elif kind == "rival":
        house.snapshot(rival=True)
    elif kind == "reopen":
        house.tables = {}
    elif kind == "trim":
        house.trim(rest[0])
    elif kind == "upkeep":
        house.upkeep()
    else:
        probe = CrashAt(*rest)
        try:
            house.snapshot(probe=probe) if kind == "crash" else house.upkeep(probe)
        except Crash:
            house.tables = {}


def _again(table: VersionTable) -> VersionTable:
    opened = VersionTable.open(table.location, table.folder, limits=LIMITS)
    assert opened is not None
    return opened


def _delete(house: House, numbers: Sequence[int]) -> None:
    fold = house.fold()
    view = fold.view()
    if view is not None and numbers:
        rows = house.expected(view.name, fold.position)
        ids = rows.column(rows.num_columns - 1).to_pylist()
        wanted = [ids[number % len(ids)] for number in numbers] if ids else []
        house.put(message({"kind": "delete", "ids": wanted}))


@contextmanager
def new_house(lane: int | None) -> Iterator[House]:
    """One for a single life. It is in memory where the machine has room there: nobody pulls the plug here, and disks take
    most of a life to say that all is safe."""
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        log = open_log(f"sqlite:///{folder}/log.db")
        try:
            log.create_topics([TopicSpec(ORDERS.topic, 1 if lane is None else lane + 1)])
            yield House(log, LakeLocation.parse(f"{folder}/lake"), lane)
        finally:
            log.close()


def run(script: Sequence[tuple[Any, ...]], lane: int | None) -> None:
    with new_house(lane) as house:
        for step in script:
            take(house, step)
            if step[0] in ("snapshot", "rival", "upkeep", "trim", "crash", "crash-upkeep"):
                house.check()
        house.snapshot()
        house.checked.clear()
        house.check()
        house.upkeep()
        house.checked.clear()
        house.check()


shared = settings(max_examples=20)


lanes = st.sampled_from([None, 0, 2])


@shared
@given(script=st.lists(steps, min_size=6, max_size=16), lane=lanes)
def test_delta_tables_hold_what_the_fold_of_the_log_says(script: list[tuple[Any, ...]], lane: int | None) -> None:
    """Rows, their ids and their order, at the position of each Delta table, after deaths and beside rivals too."""
    run(script, lane)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(600 // MANY))
@settings(parent=shared, max_examples=MANY, derandomize=False)
@given(script=st.lists(steps, min_size=15, max_size=50), lane=lanes)
def test_delta_tables_hold_it_in_long_lives(part: int, script: list[tuple[Any, ...]], lane: int | None) -> None:
    """The same, over more and longer lives, other ones in each part."""
    run(script, lane)
