"""Staged files of a lake in an object store: every machine reads them, and a death leaves none behind for long."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_server import BUCKET, S3Server

from tailrace.control import place_files
from tailrace.graph import load_app
from tailrace.lake import LakeLocation, SnapshotFiles, StagingArea
from tailrace.log import Log, NewRecord, Partition, TopicSpec, open_log
from tailrace.runner import Deployment, Host, RunEntry, RunnerSettings, deploy
from tailrace.runner.shards import Shards
from tailrace.runner.transaction import Transaction
from tailrace.runtime import SYSTEM, Crash, CrashAt, Probe, Runtime
from tailrace.snapshotter import SnapshotterSettings, TableWish
from tailrace.snapshotter.service import Snapshotter
from tailrace.snapshotter.tasks import collect
from tailrace.tables import StagedFileMissingError, StagedFiles

pytestmark = pytest.mark.timeout(900)  # the server may have to be built first

INDEX = "shop._index"
ORDERS = Partition("shop.orders")


@pytest.fixture
def lake(s3: S3Server) -> LakeLocation:
    return LakeLocation.parse(f"s3://{BUCKET}/{secrets.token_hex(4)}")


def objects(lake: LakeLocation) -> set[str]:
    return {each["path"] for chunk in lake.store("_staging").list() for each in chunk}


def write(area: StagingArea, path: str, rows: int = 10) -> None:
    file = area.folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"n": range(rows)}), file, row_group_size=5)


def test_what_one_machine_stages_another_one_reads(lake: LakeLocation, tmp_path: Path) -> None:
    """Copies are bounded: the oldest go, and are fetched again; who has one open keeps it."""
    writer = StagingArea(tmp_path / "a", lake)
    writer.start()
    paths = [f"shard-1/e-{number}.0/0.parquet" for number in range(3)]
    for path in paths:
        write(writer, path)
    folders = [path.rpartition("/")[0] for path in paths]
    assert writer.sync([*folders, "shard-1/nothing.0"]) == folders
    writer.committed(folders)
    size = (tmp_path / "a" / paths[0]).stat().st_size

    reader = StagingArea(tmp_path / "b", lake, copies_bytes_max=2 * size)
    files = StagedFiles(reader.folder, reader.fetch)
    for path in [*paths, *paths]:
        assert files.row_group(path, 1).column("n").to_pylist() == [5, 6, 7, 8, 9]
        assert len(list(reader.folder.rglob("*.parquet"))) <= 2
    assert reader.row_groups(paths[0]) == 2 and reader.row_groups("shard-1/no.0/0.parquet") is None
    for path in ("shard-1/no.0/0.parquet", "../a/x.parquet", "/etc/passwd", "shard-1/../../x"):
        with pytest.raises(StagedFileMissingError):
            files.row_group(path, 0)
        assert not reader.fetch(path)
    reader.delete(paths[0])
    assert not StagingArea(tmp_path / "c", lake).fetch(paths[0])


class Machine:
    """What one machine has of a shard that moves between several."""

    def __init__(self, log: Log, area: StagingArea, probe: Probe) -> None:
        self.area = area
        runtime = Runtime(probe=probe)
        self._threads = ThreadPoolExecutor(2)

        async def call(function: Callable[[], Any], _: Executor | None = None, /) -> Any:
            return await asyncio.to_thread(function)

        self.shards = Shards(log, 1, area, runtime, call, self._threads)

    async def open(self) -> None:
        self.area.start()
        self.shards.openings[0] = 1
        await self.shards.open(0, 1, ["shop"], [INDEX])

    async def commit(self, run: str, opening: int = 1) -> str:
        """Stage a file and commit a message that names it."""
        folder = f"{self.shards.stage(0, run)}.0"
        write(self.area, f"{folder}/0.parquet")
        transaction = Transaction(folders=[folder])
        transaction.add(ORDERS.topic, [NewRecord(folder.encode())])
        await self.shards.commit(0, opening, transaction, INDEX)
        return folder

    def close(self) -> None:
        self.shards.close()
        self._threads.shutdown()


@pytest.mark.parametrize(("point", "kept"), [("staged-synced", False), ("committed", True), ("staged-marked", True)])
async def test_a_machine_dies_around_its_commit(lake: LakeLocation, tmp_path: Path, point: str, kept: bool) -> None:
    """What a message names stays; what none names goes with the first staged commit of the writer's next owner."""
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    log.create_topics([TopicSpec(INDEX, compacted=True), TopicSpec(ORDERS.topic), TopicSpec("shop._state")])
    first = Machine(log, StagingArea(tmp_path / "a", lake), CrashAt(point, 2))
    await first.open()
    folders = {await first.commit("one")}
    with pytest.raises(Crash):
        await first.commit("two")
    (dead,) = {path.rpartition("/")[0] for path in objects(lake)} - folders
    second = Machine(log, StagingArea(tmp_path / "b", lake), Probe())
    await second.open()
    folders |= {await second.commit("two"), await second.commit("three")} | ({dead} if kept else set())
    assert {path.rpartition("/")[0] for path in objects(lake)} == folders
    assert {
        record.value.decode() for record in log.read(ORDERS, log.starts([ORDERS])[ORDERS]).records if record.value
    } == folders
    again = Machine(log, StagingArea(tmp_path / "a", lake), Probe())  # the first one comes back
    await again.open()
    await again.commit("four")
    assert {path.rpartition("/")[0] for path in objects(lake)} > folders
    for machine in (first, second, again):
        machine.close()
    log.close()


async def test_what_an_earlier_opening_had_is_not_written(
    lake: LakeLocation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that waits while its shard is opened anew would write what is run again by then; also where that opening
    fails once it has its writer."""
    log = open_log(f"sqlite:///{tmp_path}/log.db")
    log.create_topics([TopicSpec(INDEX, compacted=True), TopicSpec(ORDERS.topic), TopicSpec("shop._state")])
    machine = Machine(log, StagingArea(tmp_path / "a", lake), Probe())
    await machine.open()
    machine.shards.openings[0] = 2
    assert await machine.shards.open(0, 2, ["shop"], [INDEX]) == {}
    await machine.commit("late", opening=1)
    assert not objects(lake) and log.ends([ORDERS]) == {ORDERS: 0}
    machine.shards.openings[0] = 3
    with monkeypatch.context() as broken, pytest.raises(ZeroDivisionError):
        broken.setattr(machine.shards, "_restore", lambda *_: 1 // 0)
        await machine.shards.open(0, 3, ["shop"], [INDEX])
    await machine.commit("late, too", opening=2)
    assert not objects(lake) and log.ends([ORDERS]) == {ORDERS: 0}
    machine.shards.openings[0] = 4
    assert await machine.shards.open(0, 4, ["shop"], [INDEX]) == {}
    await machine.commit("new", opening=4)
    assert log.ends([ORDERS])[ORDERS] > 0
    machine.close()
    log.close()


class Reached(Probe):
    """Tells when a point was reached."""

    def __init__(self, point: str) -> None:
        self.point, self.event = point, asyncio.Event()

    def reached(self, point: str) -> None:
        if point == self.point:
            self.event.set()


GRAPH = """
title: Shop
slug: shop
functions:
  - {node_file: fill.py, id: fill, trigger: manual}
stores:
  - {table: orders, id: orders}
"""
FILL = """
import pandas as pd
from patterns import Table
Table("orders", "w").append(pd.DataFrame({"n": range(70_000), "name": [f"name {n}" for n in range(70_000)]}))
"""


class House:
    """An app on a log that several machines reach, each with a disk of its own."""

    def __init__(self, folder: Path, lake: LakeLocation) -> None:
        self.folder, self.lake = folder, lake
        app_dir = folder / "shop"
        app_dir.mkdir()
        (app_dir / "graph.yml").write_text(GRAPH)
        (app_dir / "fill.py").write_text(FILL)
        app = load_app(app_dir)
        self.deployment: Deployment = deploy(app, place_files(app, folder / "apps"), RunnerSettings())
        self.log = open_log(f"sqlite:///{folder}/log.db")

    async def host(self, name: str, probe: Probe | None = None) -> Host:
        data = self.folder / name
        data.mkdir()
        files = SnapshotFiles(self.lake, data / "lake-cache")
        staging = StagingArea(data / "staging", self.lake)
        host = Host(
            self.log,
            data_dir=data,
            runtime=Runtime(probe=probe or Probe()),
            fetch=files.fetch,
            lake_dir=files.root,
            staging=staging,
        )
        await host.start()
        await host.deploy([self.deployment])
        return host

    async def count(self, host: Host) -> list[Any]:
        """The app's table in SQL: rows, their sum, the greatest name."""
        query = {"sql": "select count(*) as n, sum(n) as s, max(name) as m from orders"}
        answer = orjson.loads(b"".join([piece async for piece in host.ask("shop", "query", query)]))
        return [int(value) if str(value).isdigit() else value for value in answer["rows"][0]]


@pytest.fixture
def house(tmp_path: Path, lake: LakeLocation) -> Iterator[House]:
    house = House(tmp_path, lake)
    yield house
    house.log.close()


async def test_bulk_rows_written_on_one_machine_are_read_snapshotted_and_collected_on_others(
    house: House, s3: S3Server
) -> None:
    """The log and the bucket are all that the machines share. A bucket that is away makes readers wait, and writers too."""
    wanted = [70_000, 69_999 * 35_000, "name 9999"]
    ended = Reached("run-ended")
    first = await house.host("a", ended)
    told: asyncio.Queue[RunEntry] = asyncio.Queue()
    first.journal.listen(lambda entry: told.put_nowait(entry) if isinstance(entry, RunEntry) else None)
    s3.stop()
    try:
        await first.trigger("shop", "fill")
        async with asyncio.timeout(60):
            await ended.event.wait()
        assert told.empty()
    finally:
        s3.start()
    async with asyncio.timeout(120):
        run = await told.get()
    assert run.kind == "ok", run.error
    assert await house.count(first) == wanted
    await first.stop()
    second = await house.host("b")
    try:
        assert await house.count(second) == wanted
        s3.stop()
        try:
            assert await house.count(second) == wanted  # from the copy
        finally:
            s3.start()

        settings = SnapshotterSettings(
            log_url=f"sqlite:///{house.folder}/log.db",
            lake_url=house.lake.url,
            staging_dir=str(house.folder / "c"),
            graphs=("shop",),
            tables={ORDERS.topic: TableWish(name="orders")},
            freshness=timedelta(milliseconds=1),
            idle_exit=timedelta(0),
            retention=timedelta(0),
            grace=timedelta(0),
        )
        told_wrong: list[Any] = []
        async with asyncio.timeout(120):
            await Snapshotter(house.log, house.lake, settings, SYSTEM, told_wrong.append).run()
        assert told_wrong == []
        assert await asyncio.to_thread(lambda: list(collect(house.log, house.lake, settings, SYSTEM, "shop"))) != []
        start = house.log.starts([ORDERS])[ORDERS]
        assert start == house.log.ends([ORDERS])[ORDERS]
        assert not [path for path in objects(house.lake) if path.endswith(".parquet")]
        assert await house.count(second) == wanted
    finally:
        await second.stop()
