"""Dead letters: looked at, edited, given back to the node that failed, dropped; each effect once, whoever dies when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from tailrace.control import place_files
from tailrace.graph import load_app
from tailrace.log import Log, NewRecord, Offset, Partition, open_log
from tailrace.runner import BadLetterError, Host, HostView, RunnerSettings, UnknownLetterError, deploy
from tailrace.runtime import Crash, CrashAt, Probe, Runtime
from tailrace.tables import rows_message

GRAPH = """
title: Post
slug: post
functions:
  - {node_file: halve.py, id: halvepy1}
  - {node_file: bodies.py, id: bodiespy, retries: 0}
  - {node_file: watch.py, id: watchpy1}
stores:
  - {table: source, id: stsource}
  - {table: halves, id: sthalves}
  - {table: bodies, id: stbodies}
  - {table: watched, id: stwatch1}
"""
HALVE = """
from patterns import State, Table
halves, state = Table("halves", "w"), State()
for row in Table("source").as_stream():
    state.set_value("n", state.get_value("n", 0) + 1)
    halves.append({"half": 12 // row["n"], "of": row["n"], "whole": Table("source").record_count})
"""
BODIES = """
from patterns import Table
bodies = Table("bodies", "w")
with Table("source").as_stream().consume_with_rollback() as rows:
    for row in rows:
        bodies.append({"id": row["patterns_id"]})
        1 // row["n"]
"""
WATCH = 'from patterns import Table\nTable("watched", "w").append({"seen": len(Table("source").read())})\n'
SOURCE, HALVES, BODIES_OUT = "post.stsource", "post.sthalves", "post.stbodies"
DEAD = f"{SOURCE}-dead"
PATIENCE_S = 60

pytestmark = pytest.mark.timeout(120)


class Place:
    """A log and an app; hosts come and go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.deaths: list[BaseException] = []
        self.log: Log = open_log(f"sqlite:///{folder / 'log.db'}")
        app_dir = folder / "post"
        app_dir.mkdir()
        (app_dir / "graph.yml").write_text(GRAPH)
        for name, code in (("halve", HALVE), ("bodies", BODIES), ("watch", WATCH)):
            (app_dir / f"{name}.py").write_text(code)
        app = load_app(app_dir)
        self.deployment = deploy(app, place_files(app, folder / "apps"), RunnerSettings())

    def put(self, *numbers: int) -> None:
        """One message with a row for each number."""
        body = orjson.dumps([{"n": number} for number in numbers])
        head = {"kind": "rows", "ts": 1_700_000_000_000, "n": len(numbers), "fields": {"n": "Integer"}}
        self.log.append(Partition(SOURCE), [NewRecord(rows_message(head, body))])

    @asynccontextmanager
    async def host(self, probe: Probe | None = None) -> AsyncIterator[HostView]:
        settings = RunnerSettings(stop_timeout=timedelta(milliseconds=200))
        runtime = Runtime(probe=probe or Probe())
        host = Host(
            self.log, data_dir=self.folder / "data", runtime=runtime, settings=settings, failed=self.deaths.append
        )
        await host.start()
        await host.deploy([self.deployment])
        try:
            yield HostView(host, "http://here", {})
        finally:
            await host.stop()

    def messages(self, topic: str) -> list[dict[str, Any]]:
        if topic not in self.log.topics(topic):
            return []
        batch = self.log.read(Partition(topic), Offset(0), stop=self.log.ends([Partition(topic)])[Partition(topic)])
        return [orjson.loads(record.value or b"{}") for record in batch.records]

    def rows(self, topic: str) -> list[dict[str, Any]]:
        return [row for each in self.messages(topic) for row in each.get("rows", ())]

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.02)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.log.close()


async def letters_of(view: HostView, node: str = "halve", **wanted: Any) -> list[dict[str, Any]]:
    return await view.letters("source", "post", {"node": node, **wanted}, limit=100)


async def replayed(view: HostView, **wanted: Any) -> list[dict[str, Any]]:
    async with asyncio.timeout(PATIENCE_S):
        return [event async for event in view.replay_letters("source", "post", wanted)]


async def test_a_letter_is_looked_at_edited_and_given_back_to_its_node_alone(place: Place) -> None:
    """The second row of a message fails; edited, its node makes of it what it should have, once. The Table stays as it
    is, so no other node sees anything, and the stream goes on where it was."""
    async with place.host() as view:
        place.put(1, 0, 3)
        place.put(4)
        await place.until(lambda: len(place.rows(HALVES)) == 3 and len(place.rows(DEAD)) == 2)
        (letter,) = await letters_of(view)
        assert letter["record"] == {"n": 0} and "ZeroDivisionError" in letter["error"]
        assert "halve.py" in letter["traceback"] and letter["node"] == "post/halvepy1"
        before, watched = place.messages(SOURCE), len(place.rows("post.stwatch1"))

        again = await replayed(view, node="halve")  # as it is, it fails once more
        assert [(event["type"], event["id"]) for event in again] == [("failed", letter["id"])]
        (letter,) = await letters_of(view)
        assert again[0]["id"] != letter["id"] and letter["source_row"] == 1

        edited = await view.edit_letter("source", "post", letter["id"], {"n": 6, "unknown": True})
        assert edited["record"] == {"n": 6, "unknown": True} and edited["id"] != letter["id"]
        (event,) = await replayed(view, ids=[edited["id"]])
        assert (event["type"], event["id"]) == ("replayed", edited["id"])
        assert [(row["of"], row["half"], row["whole"]) for row in place.rows(HALVES)][3:] == [(6, 2, 4)]
        assert await letters_of(view) == []
        place.put(2)
        await place.until(lambda: len(place.rows(HALVES)) == 5)
        assert [row["of"] for row in place.rows(HALVES)] == [1, 3, 4, 6, 2]
        assert place.messages(SOURCE)[: len(before)] == before
        await place.until(lambda: len(place.rows("post.stwatch1")) > watched)
        (state,) = [each["state"] for each in place.messages("post._state")[-20:] if each["state"].get("n")][-1:]
        assert state["n"] == 7, "the five that worked, and two that did not"


async def test_all_letters_of_a_node_go_back_and_what_cannot_says_why(place: Place) -> None:
    """Bodies of `consume_with_rollback`, several in one run; a version that is not active any more; unknown ones."""
    async with place.host() as view:
        for _ in range(5):
            place.put(0)
        await place.until(lambda: len(place.rows(DEAD)) == 10)
        bodies = await letters_of(view, "bodies")
        for letter in bodies[:3]:
            await view.edit_letter("source", "post", letter["id"], {"n": 1})
        events = await replayed(view, node="bodies")
        assert sorted(event["type"] for event in events) == ["failed", "failed", *["replayed"] * 3]
        assert len(place.rows(BODIES_OUT)) == len({row["id"] for row in place.rows(BODIES_OUT)}) == 3
        assert len(await letters_of(view, "bodies")) == 2
        assert await view.drop_letters("source", "post", {"node": "bodies"}) == {"dropped": 2}
        assert await letters_of(view, "bodies") == [] and len(await letters_of(view)) == 5
        with pytest.raises(UnknownLetterError):
            await replayed(view, ids=[bodies[0]["id"]])
        with pytest.raises(BadLetterError):
            await view.edit_letter("source", "post", (await letters_of(view))[0]["id"], [1])
        place.log.append(Partition(SOURCE), [NewRecord(b'{"kind":"reset","ts":1}')])
        events = await replayed(view)
        assert {(event["type"], event["why"]) for event in events} == {
            ("kept", "its record belongs to a table version that is not active any more")
        }
        assert len(await letters_of(view, since_ms=1)) == 5 and await letters_of(view, since_ms=1 << 42) == []


@pytest.mark.parametrize("point", ["run-begun", "run-ended", "committed", "run-committed"])
async def test_a_death_during_a_replay_neither_loses_nor_repeats(place: Place, point: str) -> None:
    """The host dies at each step; the next one does what was wished, unless that was done."""
    async with place.host() as view:
        place.put(0)
        place.put(0)
        await place.until(lambda: len(place.rows(DEAD)) == 4)
        for letter in await letters_of(view):
            await view.edit_letter("source", "post", letter["id"], {"n": 12})
        letters = await letters_of(view)
    done = len(place.rows(HALVES))
    async with place.host(CrashAt(point)) as view:
        waiting = asyncio.create_task(replayed(view, node="halve"))
        await place.until(lambda: place.deaths)
        waiting.cancel()
    assert [type(death) for death in place.deaths] == [Crash]
    async with place.host() as view:
        await place.until(lambda: len(place.rows(HALVES)) == done + 2)
        assert await letters_of(view) == []
        place.put(3)
        await place.until(lambda: len(place.rows(HALVES)) == done + 3)
    assert [row["of"] for row in place.rows(HALVES)][done:] == [12, 12, 3]
    deleted = [id_ for each in place.messages(DEAD) for id_ in each.get("ids", ()) if each.get("run")]
    assert sorted(deleted) == sorted(letter["id"] for letter in letters)
