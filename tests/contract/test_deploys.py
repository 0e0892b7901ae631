"""A new version takes over node by node: whatever is deployed in whatever order, no row is lost and none comes twice."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from tailrace.control import place_files
from tailrace.engine import StartRun
from tailrace.graph import App, build_app
from tailrace.log import Log, NewRecord, Partition, TopicSpec, open_log
from tailrace.runner import Host, HostView, RunEntry, RunnerSettings, deploy
from tailrace.runner.journal import Journal
from tailrace.runner.lineage import lineage_of
from tailrace.runner.slot import Slot
from tailrace.runner.upkeep import trim_before
from tailrace.runner.usage import Meter
from tailrace.runtime import ManualClock, Runtime
from tailrace.tables import rows_message

COPY = """\
from patterns import State, Table
out, state = Table("out", "w"), State()
for row in Table("source").as_stream():
    count = state.get_value("n", 0) + 1
    state.set_value("n", count)
    out.append({{"node": "{node}", "n": row["n"], "code": {code}, "count": count}})
"""
IDS = {"first": "fnode001", "second": "fnode002", "third": "fnode003"}
NODES = tuple(IDS)
SOURCE, OUT = "flow.fsource1", "flow.foutput1"

pytestmark = pytest.mark.timeout(120)


def flow(codes: dict[str, int]) -> App:
    """A node for each name in `codes`, which all copy the same source; the number is its code."""
    functions = "".join(f"  - {{node_file: {name}.py, id: {IDS[name]}}}\n" for name in codes)
    stores = "stores:\n  - {table: source, id: fsource1}\n  - {table: out, id: foutput1}\n"
    files = {f"{name}.py": COPY.format(node=name, code=code).encode() for name, code in codes.items()}
    graph = f"slug: flow\nfunctions:\n{functions}{stores}" if codes else f"slug: flow\n{stores}"
    return build_app({**files, "graph.yml": graph.encode()}, "graph.yml", "flow")


def other() -> App:
    """An app that comes and goes beside it."""
    return build_app({"graph.yml": b"slug: other\nstores:\n  - {table: t, id: otable01}\n"}, "graph.yml", "other")


class Place:
    """A host that is told by hand what is deployed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log: Log = open_log(f"sqlite:///{folder / 'log.db'}")
        self.host = self.new_host()
        self.put_so_far = 0

    def new_host(self, settings: RunnerSettings = RunnerSettings()) -> Host:  # noqa: B008 - it is frozen
        return Host(self.log, data_dir=self.folder / "data", runtime=Runtime(), settings=settings)

    async def deploy(self, *apps: App) -> None:
        assert not [error for app in apps for error in app.errors if error.severity == "error"]
        folders = [place_files(app, self.folder / "apps") for app in apps]
        await self.host.deploy(
            [deploy(app, folder, RunnerSettings()) for app, folder in zip(apps, folders, strict=True)]
        )

    def put(self, count: int) -> None:
        rows = [{"n": n} for n in range(self.put_so_far, self.put_so_far + count)]
        self.put_so_far += count
        head = {"kind": "rows", "ts": 1, "n": count, "fields": {"n": "Integer"}}
        self.log.append(Partition(SOURCE), [NewRecord(rows_message(head, orjson.dumps(rows)))])

    def rows(self) -> list[dict[str, Any]]:
        partition = Partition(OUT)
        if OUT not in self.log.topics(OUT):
            return []
        end = self.log.settled_ends([partition])[partition]
        records = self.log.read(partition, self.log.starts([partition])[partition], stop=end).records
        return [row for record in records for row in orjson.loads(record.value or b"{}").get("rows", [])]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.02)

    async def restart(self, settings: RunnerSettings = RunnerSettings()) -> None:  # noqa: B008 - it is frozen
        await self.host.stop()
        self.host = self.new_host(settings)
        await self.host.start()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    await place.host.start()
    try:
        yield place
    finally:
        await place.host.stop()
        place.log.close()


@pytest.mark.parametrize("seed", [1, 2])
async def test_any_sequence_of_deploys_loses_and_repeats_nothing(place: Place, seed: int) -> None:
    """Nodes that change, go, come back, an app taken away and brought back, another one beside it, and a new host: in the
    end each node has handled each row once, and its State has counted them."""
    chance = random.Random(seed)
    await place.deploy(flow(dict.fromkeys(NODES, 0)))
    for step in range(1, 9):
        place.put(chance.randint(1, 3))
        if chance.random() < 0.5:  # else it comes in the middle of whatever goes on
            await place.until(lambda: len(place.rows()) > chance.randint(0, 3))
        kept = [name for name in NODES if chance.random() < 0.7]
        apps = [flow({name: chance.choice([0, step]) for name in kept})] if chance.random() < 0.85 else []
        apps += [other()] if chance.random() < 0.5 else []
        if chance.random() < 0.15:
            await place.restart()
        await place.deploy(*apps)
    await place.deploy(flow(dict.fromkeys(NODES, 9)))
    place.put(1)
    wanted = Counter((name, n) for name in NODES for n in range(place.put_so_far))
    await place.until(lambda: len(place.rows()) >= len(wanted))
    rows = place.rows()
    assert Counter((row["node"], row["n"]) for row in rows) == wanted
    for name in NODES:
        own = [(row["n"], row["count"]) for row in rows if row["node"] == name]
        assert own == [(n, n + 1) for n in range(place.put_so_far)], "State and order go along"


async def test_code_that_fails_in_a_newer_version_stops_nothing_else(place: Place) -> None:
    """What did not change goes on; after rolling back, the node goes on where it was before."""
    good = flow({"first": 0, "second": 0})
    fails = 'from patterns import Table\nsource = Table("source")\nraise ValueError("of the newer version")\n'
    files = {**good.files, "second.py": f"{fails}for row in source.as_stream():\n    pass\n".encode()}
    await place.deploy(good)
    place.put(2)
    await place.until(lambda: len(place.rows()) == 4)
    await place.deploy(build_app(files, "graph.yml", "flow"))
    place.put(1)
    await place.until(lambda: len(place.rows()) == 5)
    await place.until(lambda: any("newer version" in (run.error or "") for run in place.host.journal.runs()))
    await place.deploy(good)
    place.put(1)
    await place.until(lambda: len(place.rows()) == 8)
    for name in ("first", "second"):
        assert [row["n"] for row in place.rows() if row["node"] == name] == [0, 1, 2, 3]


SLOW = """\
import time
from pathlib import Path
from patterns import Table
out = Table("out", "w")
for row in Table("source").as_stream():
    print("began")
    while not Path(__file__).with_name("gate").exists():
        time.sleep(0.01)
    out.append({{"node": "slow", "n": row["n"], "code": {code}, "count": 0}})
"""


async def test_a_run_ends_with_the_code_that_it_began_with(place: Place, tmp_path: Path) -> None:
    """Neither a newer version, nor another app, nor being taken away cuts it short; what is told of it is true."""

    def app(code: int) -> App:
        made = flow({"first": 0})
        files = {**made.files, "first.py": SLOW.format(code=code).encode()}
        return build_app(files, "graph.yml", "flow")

    await place.deploy(app(1))
    place.put(1)
    await place.until(place.host.journal.lines)
    await place.deploy(app(2))
    await place.deploy(app(2), other())
    await place.deploy(other())
    for folder in (place_files(app(code), tmp_path / "apps") for code in (1, 2)):
        (folder / "gate").touch()
    await place.until(place.rows)
    assert [(row["n"], row["code"]) for row in place.rows()] == [(0, 1)]
    await place.deploy(app(2), other())
    place.put(1)
    await place.until(lambda: len(place.rows()) == 2)
    assert [(row["n"], row["code"]) for row in place.rows()] == [(0, 1), (1, 2)]
    await place.until(lambda: len(place.host.journal.runs()) >= 2)
    first, second = place.host.journal.runs()[:2]
    assert first.code != second.code
    assert len(place.host.journal.lines()) == 2, "each began once"
    assert first.cpu_ms is not None and (first.memory_bytes or 0) > 1 << 20
    view = HostView(place.host, "", {})
    shown = await view.run(second.run)
    assert shown["up"] == {SOURCE: []}, "posts wrote what it read"
    assert shown["tables"] == {SOURCE: "source", OUT: "out"}


async def test_a_trigger_that_is_read_before_its_node_is_deployed_here_counts(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked may have seen the new version already: other hosts, and this one at the end, deploy it later."""
    started: list[StartRun] = []

    async def run(slot: Slot, start: StartRun) -> None:
        started.append(start)

    monkeypatch.setattr(place.host, "_run", run)
    graph = "slug: flow\nfunctions:\n{}stores:\n  - {{table: out, id: foutput1}}\n"
    nodes = [f"  - {{node_file: {name}.py, id: {IDS[name]}, trigger: manual}}\n" for name in ("first", "second")]
    files = {f"{name}.py": b"from patterns import Table\nTable('out', 'w').append({})\n" for name in NODES}
    older, newer = (
        build_app({**files, "graph.yml": graph.format("".join(some)).encode()}, "graph.yml", "flow")
        for some in (nodes[:1], nodes)
    )
    await place.deploy(older)
    triggers = Partition(place.host.deployments["flow"].triggers_topic)
    place.log.append(triggers, [NewRecord(orjson.dumps({"slot": "flow/fnode002", "at_ms": 1, "type": "manual"}))])
    await place.until(lambda: place.host._triggers.get(triggers.topic) == 1)
    await place.deploy(newer)
    await place.until(lambda: started)
    assert [(start.slot, start.reasons) for start in started] == [("flow/fnode002", ("trigger",))]


async def test_a_worker_that_has_nothing_to_do_goes_and_another_comes_when_it_has(place: Place) -> None:
    """State goes on where it was; the large libraries are loaded for nodes that ask for them alone."""
    await place.restart(RunnerSettings(worker_idle=timedelta(milliseconds=200)))
    await place.deploy(flow({"first": 0}))
    for count in (1, 2):
        place.put(1)
        await place.until(lambda count=count: len(place.rows()) == count)
        await place.until(lambda: place.host.workers == 0)
    assert [row["count"] for row in place.rows()] == [1, 2]
    pools = place.host._pools
    assert pools._light.begun and not pools._default.begun
    frames = {"first.py": b"import pandas\n", "graph.yml": b"functions:\n  - {node_file: first.py, id: fnode001}\n"}
    await place.deploy(build_app(frames, "graph.yml", "flow"))
    assert pools._default.begun


def entry(run: str, **values: Any) -> RunEntry:
    node = run.partition("#")[0]
    facts = {"graph": "flow", "title": node, "reasons": ("news",), "kind": "ok", "started_ms": 1, "duration_ms": 1}
    return RunEntry(**{**facts, "run": run, "node": node, **values})


def test_lineage_goes_up_to_who_wrote_and_down_to_who_read_first() -> None:
    wrote_a = [entry(f"a#{n}", wrote={"t": (n * 10, n * 10 + 5)}) for n in range(3)]
    streams = [entry(f"s#{n}", read={"t": n * 10 + 5}, places={"t": (n * 10 - 5 if n else 0, 0)}) for n in range(3)]
    whole = [entry(f"w#{n}", read={"t": n * 10 + 5}) for n in range(3)]
    runs = [run for each in zip(wrote_a, streams, whole, strict=True) for run in each]
    assert lineage_of(wrote_a[1], runs).down == {"t": ["s#1", "w#1"]}
    assert lineage_of(streams[1], runs).up == {"t": ["a#1"]}
    assert lineage_of(whole[1], runs).up == {"t": ["a#0", "a#1"]}


async def test_any_host_tells_of_all_runs(tmp_path: Path) -> None:
    """A journal takes in what others write, once, and nobody hears of itself twice; after a restart it is all there."""
    log = open_log(f"sqlite:///{tmp_path / 'log.db'}")
    log.create_topics([TopicSpec("flow._runs")])
    clock = ManualClock()
    one, two = Journal(log, clock, "one"), Journal(log, clock, "two")
    own: list[Any] = []
    two.listen(own.append)
    for journal in (one, two):
        await journal.load("flow", "flow._runs")
    tasks = [asyncio.ensure_future(journal.read_others()) for journal in (one, two)]
    try:
        for number in range(20):  # two hot nodes in turn: each is one entry a second
            one.add(entry(f"a#{number}", node="a", rows_in=1))
            one.add(entry(f"b#{number}", node="b", rows_in=1))
        two.add(entry("c#1"))
        await one.flush()
        await two.flush()
        async with asyncio.timeout(30):
            while {run.node for run in two.runs()} != {"a", "b", "c"} or len(one.runs()) < 41:
                await asyncio.sleep(0.01)
        one.add(entry("d#1", node="d", fire_ms=60_000))
        one.add(entry("d#2", node="d", trigger=4))
        one.add(entry("d#3", node="d"))
        await one.flush()
        async with asyncio.timeout(30):
            while len([run for run in two.runs() if run.node == "d"]) < 3:
                await asyncio.sleep(0.01)
        asked = [(run.run, run.fire_ms, run.trigger) for run in two.runs(node="d")]
        assert asked == [("d#1", 60_000, None), ("d#2", None, 4), ("d#3", None, None)], (
            "what was asked for stands apart"
        )
        folded = [(run.node, run.runs, run.rows_in, run.first_run, run.host) for run in two.runs() if run.node in "ab"]
        assert folded == [("a", 20, 20, "a#0", "one"), ("b", 20, 20, "b#0", "one")]
        assert [run.run for run in own] == ["c#1"]
        again = Journal(log, clock, "three")
        await again.load("flow", "flow._runs")
        assert {run.node for run in again.runs()} == {"a", "b", "c", "d"}
        await again.close()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for journal in (one, two):
            await journal.close()
        log.close()


async def test_history_goes_in_small_steps(tmp_path: Path) -> None:
    """What is young stays, and a second round finds nothing to do."""
    clock = ManualClock()
    log = open_log(f"sqlite:///{tmp_path / 'log.db'}", runtime=Runtime(clock=clock))
    log.create_topics([TopicSpec("flow._runs")])
    partition = Partition("flow._runs")
    log.append(partition, [NewRecord(b"old")] * 12_000)
    clock.advance_ms(10_000)
    at_ms = clock.now_ms() - 1
    log.append(partition, [NewRecord(b"young")])

    async def call(function: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(function)

    assert await trim_before(log, ["flow._runs"], at_ms, call) == {"flow._runs": 12_000}
    assert await trim_before(log, ["flow._runs"], at_ms, call) == {}
    log.close()


def test_usage_is_that_of_the_time_between() -> None:
    meter = Meter(os.getpid())
    data = bytearray(64 << 20)
    total = sum(range(3_000_000))
    used = meter.read()
    assert total and data
    assert used.cpu_ms is not None and used.cpu_ms >= 10
    assert used.memory_bytes is not None and used.memory_bytes > 64 << 20
    assert Meter(2**22 + 1).read() == (None, None)
