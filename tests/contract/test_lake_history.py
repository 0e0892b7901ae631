"""A Table with a past: three versions, a key, a widened column, and a log of which less than a tenth is left. Its index is
made again, streams and reads begin in the lake, earlier versions come back, and what is old goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from tailrace.cli.lake import _going
from tailrace.graph import load_app
from tailrace.lake import LakeLocation, SnapshotFiles
from tailrace.log import Log, NewRecord, Offset, Partition, open_log
from tailrace.runner import Host, HostView, RunEntry, RunnerSettings, deploy
from tailrace.runtime import Runtime
from tailrace.snapshotter import SnapshotterSettings, following, read_index, table_lanes
from tailrace.snapshotter.service import Snapshotter
from tailrace.snapshotter.tasks import collect, rebuild
from tailrace.tables import message, rows_message

GRAPH = """
title: Past
slug: past
functions:
  - {node_file: look.py, id: palook01, trigger: manual}
stores:
  - {table: story, id: pastory1}
"""
LOOK = """
import json
from patterns import Table
story = Table("story")
stream = story.as_stream()
stream.rewind()
rows = story.read()
assert list(stream) == rows
assert story.read_sql(f"select * from {story} order by patterns_id") == rows
assert story.read_dataframe()["n"].tolist() == [row["n"] for row in rows]
assert story.record_count == len(rows)
for row in rows:
    print(json.dumps(row))
"""
STORY = Partition("past.pastory1")
PLAIN = {"n": "Integer", "v": "Text"}

pytestmark = pytest.mark.timeout(240)


class House:
    """A log with the table's history, its lake, and whoever works on them for a while."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "app").mkdir()
        (folder / "app" / "graph.yml").write_text(GRAPH)
        (folder / "app" / "look.py").write_text(LOOK)
        self.deployment = deploy(load_app(folder / "app"), folder / "app", RunnerSettings())
        self.url = f"sqlite:///{folder / 'log.db'}"
        self.log: Log = open_log(self.url)
        self.log.create_topics(self.deployment.topics())
        self.location = LakeLocation.parse(str(folder / "lake"))
        settings = SnapshotterSettings(
            log_url=self.url,
            lake_url=self.location.url,
            staging_dir=str(folder / "data" / "staging"),
            freshness=timedelta(milliseconds=20),
            keyed_interval=timedelta(milliseconds=20),
            idle_exit=timedelta(milliseconds=200),
        )
        self.settings = following(settings, [self.deployment.app])

    # -- what is written

    def put(self, *rows: dict[str, Any], **head: Any) -> None:
        full = {"kind": "rows", "run": "by hand", "n": len(rows), "fields": PLAIN, **head}
        self.log.append(STORY, [NewRecord(rows_message(full, orjson.dumps(rows)))])

    def mark(self, kind: str, **head: Any) -> None:
        self.log.append(STORY, [NewRecord(message({"kind": kind, "run": "by hand", **head}))])

    def begin(self, number: int, **settings: Any) -> None:
        self.mark("version", ts=1_700_000_000_000 + number, fields=PLAIN, settings=settings)

    # -- who works on it

    async def snapshots(self) -> None:
        """All that is in the log comes into the lake."""

        def tell(said: Any) -> None:
            assert said.get("error") is None and said["type"] != "lost", said

        await Snapshotter(self.log, self.location, self.settings, Runtime(), tell).run()

    @asynccontextmanager
    async def host(self) -> AsyncIterator[Host]:
        """One that has just begun."""
        files = SnapshotFiles(self.location, self.folder / "cache")
        host = Host(self.log, data_dir=self.folder / "data", runtime=Runtime(), fetch=files.fetch, lake_dir=files.root)
        await host.start()
        try:
            await host.deploy([self.deployment])
            yield host
        finally:
            await host.stop()

    async def look(self, host: Host) -> list[dict[str, Any]]:
        """The rows that a node sees, in each way the same."""
        told: asyncio.Future[RunEntry] = asyncio.get_running_loop().create_future()
        stop = host.journal.listen(lambda entry: told.set_result(entry) if isinstance(entry, RunEntry) else None)
        await host.trigger("past", "palook01")
        async with asyncio.timeout(60):
            run = await told
        stop()
        assert run.kind == "ok", run.error
        return [orjson.loads(line.text) for line in host.journal.lines(run=run.run) if line.text.startswith("{")]

    def gone(self, *, dry_run: bool) -> list[dict[str, Any]]:
        """What goes when nothing is kept but what is needed."""
        young = replace(self.settings, tables={}, retention=timedelta(0), grace=timedelta(0))
        plans = collect(self.log, self.location, young, Runtime(), "past", dry_run=dry_run)
        return [plan.to_json() for plan in plans]

    @property
    def log_start(self) -> int:
        return self.log.starts([STORY])[STORY]

    @property
    def log_end(self) -> int:
        return self.log.ends([STORY])[STORY]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.log.close()


async def tell_the_story(house: House) -> None:
    """Each version comes into the lake while it is the active one, the last one in two halves."""
    house.begin(1)
    for number in range(40):
        house.put({"n": number, "v": f"first {number}"}, {"n": -number, "v": None})
    await house.snapshots()
    house.begin(2, key=["n"])
    for number in range(40):
        house.put({"n": number % 15, "v": f"second {number}"})
    await house.snapshots()
    house.begin(3)
    for number in range(40):
        house.put({"n": number, "v": f"third {number}"})
    await house.snapshots()
    for number in range(10):
        house.put({"n": number + 0.5, "v": f"wide {number}"}, fields={"n": "Float", "v": "Text"})
    await house.snapshots()


async def test_a_table_with_a_past(house: House) -> None:
    await tell_the_story(house)
    names = {}
    before = {}
    async with house.host() as host:
        view = HostView(host, "", {})
        names = {each["version"]: each for each in await view.versions("story", "past")}
        first, second, third = names
        for name in (first, second, third):
            await view.restore("story", "past", name)
            before[name] = await house.look(host)
    assert [len(rows) for rows in before.values()] == [80, 15, 50]
    assert before[third][0]["n"] == 0.0 and isinstance(before[third][0]["n"], float), "widened"
    await house.snapshots()

    # The log is cut off, and what the index says is lost.
    while house.log.trim(STORY, Offset(house.log_end - 5)) < house.log_end - 5:
        pass
    assert house.log_start > 0.9 * house.log_end
    index = Partition(house.deployment.index_topic)
    keys = [f"{STORY.topic}@{name}".encode() for name in names]
    house.log.append(index, [NewRecord(None, key) for key in (STORY.topic.encode(), *keys)])
    (entry,) = await asyncio.to_thread(rebuild, house.settings, ["past"])
    assert (entry["versions"], entry["in_lake"], entry["lost"]) == (3, 3, None)

    # Everything is read from the lake, also what is streamed from the beginning, and on into the log.
    house.put({"n": 99, "v": "after"})
    async with house.host() as host:
        view = HostView(host, "", {})
        rows = await house.look(host)
        assert rows[:-1] == before[third] and rows[-1]["v"] == "after"
        for name in (first, second):
            await view.restore("story", "past", name)
            assert await house.look(host) == before[name]
        await view.restore("story", "past", third)
        assert await house.look(host) == rows

    # What is old goes, after it was said what and why.
    await house.snapshots()
    start, folders = house.log_start, house.location.folders(STORY.topic)
    (plan,) = house.gone(dry_run=True)
    assert {each["name"]: (each["why"], each["rows"]) for each in plan["versions"]} == {
        first: ("superseded for more than 0 seconds", 80),
        second: ("superseded for more than 0 seconds", 15),
    }
    (lane,) = plan["lanes"]
    assert (lane["log_start"], lane["trim_before"]) == (start, house.log_end)
    assert lane["why_trim"] == "older than 0 seconds and in the lake"
    told = [(what, why) for _, what, _, why in _going(plan)]
    assert told[0] == (f"version {first}, 80 rows", "superseded for more than 0 seconds")
    assert told[2] == (f"records {start:,} to {house.log_end:,} of the log", "older than 0 seconds and in the lake")
    assert (house.log_start, house.location.folders(STORY.topic)) == (start, folders), "nothing went yet"
    house.gone(dry_run=False)
    assert house.log_start == house.log_end - 1, "all but the marker that says which versions are gone"
    assert house.location.folders(STORY.topic) == [folders[-1]]
    entry = read_index(house.log, "past", table_lanes(house.log, ["past"]))[STORY.topic]
    assert list(entry.snapshots) == [third]
    async with house.host() as host:
        assert await house.look(host) == rows
        assert [each["version"] for each in await HostView(host, "", {}).versions("story", "past")] == [third]
