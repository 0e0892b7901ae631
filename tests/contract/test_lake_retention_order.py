"""Retention and whoever restores a version at the same time: the log's order says who was first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
import pytest
from table_reading import LogSource, fold_topic

from tailrace.lake import (
    LakeLocation,
    RetentionLimits,
    RetentionPlan,
    StagingArea,
    TopicSource,
    VersionTable,
    carry_out,
    finish_notes,
    snapshot_version,
)
from tailrace.lake.retention import GoneVersion, LanePlan
from tailrace.log import Append, Log, NewRecord, Offset, Partition, TopicSpec, Writer, open_log, scan
from tailrace.runtime import Crash, CrashAt, Runtime
from tailrace.tables import StagedFiles, TableFold, activation, message, rows_message

ORDERS, INDEX = Partition("shop.orders"), Partition("shop._index")


@dataclass
class Shop:
    """A table with three versions in the lake, of which the first two are to go."""

    folder: Path
    log: Log
    names: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.lake = LakeLocation.parse(str(self.folder / "lake"))
        self.log.create_topics([TopicSpec(ORDERS.topic), TopicSpec(INDEX.topic, compacted=True)])
        born_ms = self.log.topics()[ORDERS.topic].born_ms
        for number in range(3):
            self.mark("version")
            head = {"kind": "rows", "n": 1, "fields": {"n": "Integer"}}
            self.log.append(ORDERS, [NewRecord(rows_message(head, orjson.dumps([{"n": number}])))])
            fold = fold_topic(self.log, ORDERS)
            assert fold.active is not None
            source = TopicSource(ORDERS.topic, born_ms, LogSource(self.log, ORDERS), StagedFiles(self.folder))
            made = snapshot_version(self.lake, source, fold, fold.active.name).snapshot
            self.names.append(made.version)
            self.folders.append(self.lake.local_path(made.folder))
        going = zip(self.names[:2], self.folders, strict=False)
        self.plan = RetentionPlan(
            topic=ORDERS.topic,
            versions=tuple(GoneVersion(name, f"shop/{path.name}", "old", 1, 1) for name, path in going),
            lanes=(LanePlan(fold_topic(self.log, ORDERS).position, 0, 0),),
        )

    def mark(self, kind: str, **head: object) -> None:
        self.log.append(ORDERS, [NewRecord(message({"kind": kind, **head}))])

    def collect(self, writer: Writer, runtime: Runtime) -> RetentionPlan:
        return carry_out(
            self.log,
            self.lake,
            self.plan,
            index=INDEX,
            staging=StagingArea(self.folder / "staging"),
            writer=writer,
            limits=RetentionLimits(),
            runtime=runtime,
        )

    def tombstones(self) -> set[str]:
        start, end = self.log.starts([INDEX])[INDEX], self.log.settled_ends([INDEX])[INDEX]
        records = [record for batch in scan(self.log, INDEX, start, end) for record in batch.records]
        return {(r.key or b"").decode().partition("@")[2] for r in records if r.value is None} - {""}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    yield Shop(tmp_path, log)
    log.close()


@pytest.mark.parametrize("point", ["", "retention-noted", "retention-dropped", "retention-folders-gone"])
def test_a_version_that_was_restored_first_stays(shop: Shop, point: str) -> None:
    """Also where retention dies on the way, and the next round finishes it."""
    writer = shop.log.open_writer("retention-shop")
    shop.mark("activate", name=shop.names[0])  # since it was decided
    if point:
        with pytest.raises(Crash):
            shop.collect(writer, Runtime(probe=CrashAt(point)))
        shop.mark("activate", name=shop.names[1])
        if point == "retention-noted":
            shop.mark("activate", name=shop.names[0])
        writer = shop.log.open_writer("retention-shop")
        staging = StagingArea(shop.folder / "staging")
        (went,) = finish_notes(shop.log, shop.lake, index=INDEX, staging=staging, writer=writer)
    else:
        went = shop.collect(writer, Runtime())
    fold = fold_topic(shop.log, ORDERS)
    assert fold.active is not None and fold.active.name == shop.names[0]
    assert [each.name for each in went.versions] == [shop.names[1]] and shop.tombstones() == {shop.names[1]}
    assert [path.exists() for path in shop.folders] == [True, False, True]
    shop.mark("activate", name=shop.names[1])
    assert list(fold_topic(shop.log, ORDERS).versions) == [shop.names[0], shop.names[2]]
    writer.close()


# -- several partitions -----------------------------------------------------------------------------------------------

LANES = [Partition("shop.parts", number) for number in range(2)]


class Parts:
    """A table of two partitions with two versions in the lake, of which the first is to go."""

    def __init__(self, folder: Path, log: Log) -> None:
        self.log, self.folder = log, folder
        self.lake = LakeLocation.parse(str(folder / "lake"))
        log.create_topics([TopicSpec("shop.parts", 2), TopicSpec(INDEX.topic, compacted=True)])
        self.born_ms = log.topics()["shop.parts"].born_ms
        self.writer = log.open_writer("retention-shop")
        for number in range(2):
            head = {"kind": "rows", "n": 1, "fields": {"n": "Integer"}}
            rows = NewRecord(rows_message(head, orjson.dumps([{"n": number}])))
            begun = NewRecord(message({"kind": "version", "begun_ms": self.born_ms + 1 + number}))
            self.writer.commit([Append(lane, [begun, rows]) for lane in LANES])
            for lane, fold in zip(LANES, self.folds(), strict=True):
                assert fold.active is not None
                source = TopicSource(
                    lane.topic, self.born_ms, LogSource(log, lane), StagedFiles(folder), 0, lane.number
                )
                snapshot_version(self.lake, source, fold, fold.active.name)
        view = self.folds()[0].view_of(next(iter(self.folds()[0].versions)))
        assert view is not None
        self.old, self.activate = view.name, NewRecord(message({"kind": "activate", **activation(view)}))
        self.version = GoneVersion(self.old, self.lake.folder("shop.parts", self.old), "old", 1, 1)

    def folds(self) -> list[TableFold]:
        return [fold_topic(self.log, lane, TableFold("parts", self.born_ms)) for lane in LANES]

    def active(self) -> list[bool]:
        """In which partitions the old version is active."""
        return [fold.active is not None and fold.active.name == self.old for fold in self.folds()]

    def known(self) -> list[bool]:
        """In which partitions it can be restored."""
        return [self.old in fold.versions for fold in self.folds()]

    def plan(self, **what: tuple[GoneVersion, ...]) -> RetentionPlan:
        lanes = tuple(LanePlan(fold.position, 0, 0) for fold in self.folds())
        return RetentionPlan(topic="shop.parts", lanes=lanes, **what)

    def carry_out(self, plan: RetentionPlan, runtime: Runtime | None = None) -> RetentionPlan:
        staging, limits = StagingArea(self.folder / "staging"), RetentionLimits()
        about = {"index": INDEX, "staging": staging, "writer": self.writer, "limits": limits}
        return carry_out(self.log, self.lake, plan, **about, runtime=runtime or Runtime())  # type: ignore[arg-type]

    @property
    def in_lake(self) -> list[bool]:
        """Which partitions have a Delta table of the old version."""
        folders = [self.lake.folder("shop.parts", self.old, lane) for lane in (0, 1)]
        return [VersionTable.open(self.lake, folder) is not None for folder in folders]


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    parts = Parts(tmp_path, log)
    yield parts
    parts.writer.close()
    log.close()


@pytest.mark.parametrize("first", [(True, True), (True, False), (False, True), (False, False)])
def test_a_version_restored_while_it_is_hidden_is_back_in_all_partitions(
    parts: Parts, first: tuple[bool, bool]
) -> None:
    """The two transactions may lie in another order in each partition; also where a plan of before says that it goes."""
    hide = parts.plan(hidden=(parts.version,))
    for lane, before in zip(LANES, first, strict=True):
        if before:
            parts.log.append(lane, [parts.activate])
    parts.carry_out(hide)
    for lane, before in zip(LANES, first, strict=True):
        if not before:
            assert parts.known()[lane.number] is False
            parts.log.append(lane, [parts.activate])
    assert parts.active() == [True, True]
    went = parts.carry_out(replace(parts.plan(), versions=(parts.version,), lanes=hide.lanes))
    assert went.versions == () and parts.in_lake == [True, True] and parts.active() == [True, True]


def test_a_hidden_version_goes_from_all_partitions_at_once(parts: Parts) -> None:
    """With the Delta tables of all of them, also where retention dies on the way. Who restores it then gets an empty one."""
    parts.carry_out(parts.plan(hidden=(parts.version,)))
    assert parts.known() == [False, False] and parts.in_lake == [True, True]
    assert [TableFold.from_json(fold.to_json()).to_json() for fold in parts.folds()] == [
        fold.to_json() for fold in parts.folds()
    ]
    with pytest.raises(Crash):
        parts.carry_out(parts.plan(versions=(parts.version,)), Runtime(probe=CrashAt("retention-dropped")))
    parts.writer = parts.log.open_writer("retention-shop")
    staging = StagingArea(parts.folder / "staging")
    (went,) = finish_notes(parts.log, parts.lake, index=INDEX, staging=staging, writer=parts.writer)
    assert went.versions == (parts.version,) and parts.in_lake == [False, False]
    assert all(not fold.dropped for fold in parts.folds())
    tombstones = {
        (record.key or b"").decode()
        for batch in scan(parts.log, INDEX, Offset(0), parts.log.settled_ends([INDEX])[INDEX])
        for record in batch.records
        if record.value is None
    }
    assert {f"shop.parts@{parts.old}", f"shop.parts/1@{parts.old}"} <= tombstones
    parts.writer.commit([Append(lane, [parts.activate]) for lane in LANES])
    views = [fold.view() for fold in parts.folds()]
    assert [view and (view.name, view.appended) for view in views] == [(parts.old, 0)] * 2


def test_what_was_hidden_and_restored_is_not_hidden_again_by_a_note(parts: Parts) -> None:
    """Retention dies, the version is restored, and another one becomes active before the next round finishes the note."""
    with pytest.raises(Crash):
        parts.carry_out(parts.plan(hidden=(parts.version,)), Runtime(probe=CrashAt("retention-dropped")))
    newer = NewRecord(message({"kind": "version", "begun_ms": parts.born_ms + 100}))
    parts.writer = parts.log.open_writer("retention-shop")
    parts.writer.commit([Append(lane, [parts.activate, newer]) for lane in LANES])
    staging = StagingArea(parts.folder / "staging")
    finish_notes(parts.log, parts.lake, index=INDEX, staging=staging, writer=parts.writer)
    assert parts.known() == [True, True]
