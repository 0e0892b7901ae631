"""Retention and whoever restores a version at the same time: the log's order says who was first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
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
    carry_out,
    finish_notes,
    snapshot_version,
)
from tailrace.lake.retention import GoneVersion
from tailrace.log import Log, NewRecord, Partition, TopicSpec, Writer, open_log, scan
from tailrace.runtime import Crash, CrashAt, Runtime
from tailrace.tables import StagedFiles, message, rows_message

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
            decided_at=fold_topic(self.log, ORDERS).position,
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
