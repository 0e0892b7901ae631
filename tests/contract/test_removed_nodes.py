"""What a removed node remembers is kept for a while, then let go of, on both logs and whoever dies in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from tailrace.control import place_files
from tailrace.engine import SlotRecord
from tailrace.graph import App, build_app
from tailrace.log import Log, NewRecord, Partition, open_log
from tailrace.runner import Host, RunnerSettings, deploy
from tailrace.runner.removed import what_changes
from tailrace.runner.slots import SlotState, group_of, newest, state_topic
from tailrace.runtime import Probe, Runtime, SystemClock
from tailrace.tables import rows_message
from tailrace.testing.kafka import LocalKafka

COUNT = """\
from patterns import State, Table
out, state = Table("out", "w"), State()
for row in Table("source").as_stream():
    state.set_value("n", state.get_value("n", 0) + 1)
    out.append({"node": NODE, "n": row["n"], "count": state.get_value("n")})
"""
GRAPH = "leavers"
SOURCE, OUT = Partition(f"{GRAPH}.lsource1"), Partition(f"{GRAPH}.loutput1")
STAYS, LEAVES = f"{GRAPH}/lstays01", f"{GRAPH}/lleaves1"
KEPT = timedelta(days=7)
DAY_MS = 86_400_000

pytestmark = pytest.mark.timeout(180)


def app(*names: str) -> App:
    ids = {"stays": "lstays01", "leaves": "lleaves1"}
    functions = "".join(f"  - {{node_file: {name}.py, id: {ids[name]}}}\n" for name in names)
    stores = "stores:\n  - {table: source, id: lsource1}\n  - {table: out, id: loutput1}\n"
    files = {f"{name}.py": COUNT.replace("NODE", repr(name)).encode() for name in names}
    return build_app({**files, "graph.yml": f"slug: {GRAPH}\nfunctions:\n{functions}{stores}".encode()})


class LaterClock(SystemClock):
    """The machine's clock, some days later."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


class Dies(Probe):
    """Ends what reaches a point, once."""

    def __init__(self) -> None:
        self.at: str | None = None

    def reached(self, point: str) -> None:
        if point == self.at:
            self.at = None
            raise RuntimeError(f"died at {point}")


class Place:
    """A host that is told by hand what is deployed."""

    def __init__(self, folder: Path, log: Log) -> None:
        self.folder, self.log = folder, log
        self.clock, self.dies = LaterClock(), Dies()
        self.rows_put = 0
        self.host = self._new()

    def _new(self) -> Host:
        runtime = Runtime(clock=self.clock, probe=self.dies)
        return Host(self.log, data_dir=self.folder / "data", runtime=runtime, settings=RunnerSettings())

    async def restart(self, *names: str) -> None:
        await self.host.stop()
        self.host = self._new()
        await self.host.start()
        await self.deploy(*names)

    async def deploy(self, *names: str) -> None:
        folder = place_files(app(*names), self.folder / "apps")
        await self.host.deploy([deploy(app(*names), folder, RunnerSettings())])

    async def look(self) -> None:
        await self.until(lambda: self.host._shards.openings.keys() == self.host._shards._writers.keys())
        await self.host.removed.look(self.host.deployments, self.host.owned, self.host._at_work)

    def put(self) -> None:
        head = {"kind": "rows", "ts": 1, "n": 1, "fields": {"n": "Integer"}}
        self.log.append(SOURCE, [NewRecord(rows_message(head, orjson.dumps([{"n": self.rows_put}])))])
        self.rows_put += 1

    def counts(self, node: str) -> list[int]:
        if OUT.topic not in self.log.topics(OUT.topic):
            return []
        records = self.log.read(OUT, self.log.starts([OUT])[OUT], stop=self.log.settled_ends([OUT])[OUT]).records
        rows: list[dict[str, Any]] = [
            row for record in records for row in orjson.loads(record.value or b"{}").get("rows", [])
        ]
        return [row["count"] for row in rows if row["node"] == node]

    def state(self, slot: str) -> SlotState | None:
        partition = Partition(state_topic(GRAPH))
        value = newest(self.log, partition, self.log.settled_ends([partition])[partition]).get(slot.encode())
        return SlotState.from_value(value) if value is not None else None

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.02)


@pytest.fixture
def sqlite_log(tmp_path: Path) -> Iterator[Log]:
    with contextlib.closing(open_log(f"sqlite:///{tmp_path / 'log.db'}")) as log:
        yield log


@pytest.fixture
def kafka_log(kafka_broker: LocalKafka) -> Iterator[Log]:
    with contextlib.closing(open_log(kafka_broker.url)) as log:
        yield log


@pytest.fixture(params=["sqlite_log", pytest.param("kafka_log", marks=pytest.mark.kafka)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path, request.getfixturevalue(request.param))
    await place.host.start()
    try:
        yield place
    finally:
        await place.host.stop()


async def test_a_removed_node_comes_back_in_time_or_begins_anew(place: Place) -> None:
    await place.deploy("stays", "leaves")
    place.put()
    await place.until(lambda: place.counts("leaves") == place.counts("stays") == [1])
    await place.deploy("stays")
    await place.look()
    assert (state := place.state(LEAVES)) is not None and state.removed_ms is not None
    assert (state := place.state(STAYS)) is not None and state.removed_ms is None
    place.clock.ahead_ms = 6 * DAY_MS
    await place.look()
    await place.deploy("stays", "leaves")
    await place.look()
    assert (state := place.state(LEAVES)) is not None and state.removed_ms is None, "its time begins anew"
    place.put()
    await place.until(lambda: place.counts("leaves") == place.counts("stays") == [1, 2])

    await place.deploy("stays")
    await place.look()
    assert place.log.places(group_of(LEAVES), [SOURCE])
    for point in ("removed-group", "removed-gone"):  # whoever comes next goes on from there, or has nothing left to do
        place.clock.ahead_ms = 14 * DAY_MS
        place.dies.at = point
        with contextlib.suppress(RuntimeError):
            await place.look()
        assert place.log.places(group_of(LEAVES), [SOURCE]) == {}
        assert (place.state(LEAVES) is None) == (point == "removed-gone")
        await place.restart("stays")
    await place.look()
    assert place.log.places(group_of(STAYS), [SOURCE])
    await place.deploy("stays", "leaves")
    place.put()
    await place.until(lambda: place.counts("leaves") == [1, 2, 1, 2, 3] and place.counts("stays") == [1, 2, 3])

    await place.deploy("stays")  # and without another host: nothing in this one's memory makes it go on where it was
    await place.look()
    place.clock.ahead_ms += 8 * DAY_MS
    await place.look()
    assert place.state(LEAVES) is None
    await place.deploy("stays", "leaves")
    await place.until(lambda: place.counts("leaves") == [1, 2, 1, 2, 3, 1, 2, 3])


def test_what_is_due() -> None:
    plain = SlotState(record=SlotRecord())
    marked = SlotState(removed_ms=1_000)
    assert what_changes({"a": plain, "b": marked}, {"a", "b"}, 5_000, 100) == {"b": plain}
    assert what_changes({"a": plain, "b": marked}, (), 1_099, 100) == {"a": SlotState(removed_ms=1_099)}
    assert what_changes({"b": marked}, (), 1_100, 100) == {"b": None}
