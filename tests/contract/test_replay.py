"""A run that is run again gives what it gave, whatever came since; with other code it shows what would differ."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tailrace.control import place_files
from tailrace.graph import load_app
from tailrace.log import Log, NewRecord, Offset, Partition, open_log
from tailrace.runner import (
    Host,
    HostView,
    PastGoneError,
    RunEntry,
    RunnerSettings,
    StateNotKeptError,
    UnknownNodeError,
    UnknownRunError,
    WrittenGoneError,
    deploy,
)
from tailrace.runtime import Runtime
from tailrace.tables import rows_message
from tailrace.testing.kafka import LocalKafka

GRAPH = """
title: Again
slug: again
functions:
  - {node_file: count.py, id: agcount1}
  - {node_file: newest.py, id: agnewest}
  - {node_file: sums.sql, id: agsums01, outputs: {output_table: sums}}
  - {node_file: change.py, id: agchange, trigger: manual}
  - {node_file: fails.py, id: agfails1, trigger: manual}
stores:
  - {table: source, id: agsource}
  - {table: counted, id: agcount2}
  - {table: newest, id: agnewes2}
  - {table: sums, id: agsums02}
"""
COUNT = """
from patterns import State, Table
state = State()
counted = Table("counted", "w")
for row in Table("source").as_stream():
    total = state.get_value("total", 0) + row["n"]
    state.set_value("total", total)
    print("total is", total)
    counted.append({"n": row["n"], "total": total})
"""
NEWEST = """
from patterns import Table
newest = Table("newest", "w")
newest.init(unique_on="parity")
for row in Table("source").as_stream():
    newest.upsert({"parity": row["n"] % 2, "n": row["n"]})
"""
SUMS = """select n % 2 as parity, sum(n) as total from {{ Table("source") }} group by 1 order by 1
"""
CHANGE = """
from patterns import Table
source = Table("source", "w")
source.execute_sql(f"delete from {source} where n > 1")
source.append({"n": source.record_count})
"""
FAILS = """
from patterns import Table
for row in Table("source").as_stream():
    if row["n"] == 2:
        raise ValueError("two")
    Table("counted", "w").append({"n": row["n"]})
"""
SOURCE = "again.agsource"
FILES = {"count.py": COUNT, "newest.py": NEWEST, "sums.sql": SUMS, "change.py": CHANGE, "fails.py": FAILS}

pytestmark = pytest.mark.timeout(120)


class Place:
    """A house with an app whose source tests write to by hand."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder = folder
        self.runtime = Runtime()
        self.log: Log = open_log(url or f"sqlite:///{folder / 'log.db'}", runtime=self.runtime)
        self.host = Host(self.log, data_dir=folder / "data", runtime=self.runtime)

    async def deploy(self, graph: str = GRAPH, **files: str) -> None:
        app_dir = self.folder / "again"
        app_dir.mkdir(exist_ok=True)
        (app_dir / "graph.yml").write_text(graph)
        for name, text in {**FILES, **{name.replace("__", "."): text for name, text in files.items()}}.items():
            (app_dir / name).write_text(text)
        app = load_app(app_dir)
        await self.host.deploy([deploy(app, place_files(app, self.folder / "apps"), RunnerSettings())])

    def put(self, *numbers: int) -> None:
        body = orjson.dumps([{"n": number} for number in numbers])
        head = {"kind": "rows", "ts": 1, "n": len(numbers), "fields": {"n": "Integer"}}
        self.log.append(Partition(SOURCE), [NewRecord(rows_message(head, body))])

    async def run_of(self, title: str, count: int = 1, kind: str = "") -> RunEntry:
        """The newest run of a node (of that kind), once it had `count` of them."""
        async with asyncio.timeout(60):
            while True:
                runs = [run for run in self.host.journal.runs() if run.title == title and kind in ("", run.kind)]
                if len(runs) >= count:
                    await self.host.journal.flush()  # so that the next is an entry of its own
                    return runs[-1]
                await asyncio.sleep(0.02)

    async def put_each(self, *lots: Sequence[int]) -> None:
        """Each lot in a run of its own of each node."""
        for at, lot in enumerate(lots, 1):
            self.put(*lot)
            for title in ("count", "newest", "sums"):
                await self.run_of(title, at)

    async def events(self, run: RunEntry | str, **wishes: Any) -> list[dict[str, Any]]:
        name = run if isinstance(run, str) else run.run
        return [event async for event in HostView(self.host, "", {}).replay(name, **wishes)]

    async def result(self, run: RunEntry | str, **wishes: Any) -> dict[str, Any]:
        events = await self.events(run, **wishes)
        assert events[0]["type"] == "begun" and events[-1]["type"] == "result"
        assert not list((self.folder / "data/staging/replays").iterdir())
        return events[-1]

    def ends(self) -> dict[str, int]:
        names = [Partition(name) for name in self.log.topics("again.") if "._" not in name]
        return {partition.topic: int(end) for partition, end in self.log.settled_ends(names).items()}


@asynccontextmanager
async def living(place: Place) -> AsyncIterator[Place]:
    """The house at work, with the app."""
    await place.host.start()
    try:
        await place.deploy()
        yield place
    finally:
        await place.host.stop()
        place.log.close()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with living(Place(tmp_path)) as place:
        yield place


def counts(result: dict[str, Any]) -> dict[str, tuple[int, int, int, int]]:
    return {
        table["table"]: (table["same"], table["added"], table["removed"], table["changed"])
        for table in result["tables"]
    }


async def test_each_kind_of_node_gives_the_same_again(place: Place) -> None:
    """A stream with State, a keyed upsert and a SQL node; runs of the past, after others."""
    await place.put_each([1, 2], [3, 4, 5])
    ends = place.ends()
    runs = {title: [r for r in place.host.journal.runs() if r.title == title] for title in ("count", "newest", "sums")}
    expected = {
        "count": [{"counted": (n, 0, 0, 0)} for n in (2, 3)],
        "newest": [{"newest": (n, 0, 0, 0)} for n in (2, 2)],
        "sums": [{"sums": (2, 0, 0, 0)} for _ in range(2)],
    }
    for title, wanted in expected.items():
        assert len(runs[title]) == 2
        for run, each in zip(runs[title], wanted, strict=True):
            result = await place.result(run)
            assert (result["equal"], counts(result)) == (True, each), result
            assert (result["was"]["kind"], result["now"]["kind"], result["notes"]) == ("ok", "ok", [])
    assert place.ends() == ends, "nothing is written to any table"


@pytest.mark.kafka
async def test_runs_on_kafka(tmp_path: Path, kafka_broker: LocalKafka) -> None:
    """There the ends of transactions take offsets, and a node may run once more for them."""
    async with living(Place(tmp_path, kafka_broker.url)) as place:
        await place.put_each([1, 2], [3, 4, 5])
        ends = place.ends()
        for run in [run for run in place.host.journal.runs() if run.title in ("count", "newest", "sums")]:
            result = await place.result(run)
            assert result["equal"] and (result["was"]["kind"], result["now"]["kind"]) == ("ok", "ok"), result
        last = next(run for run in place.host.journal.runs()[::-1] if run.title == "count" and run.wrote)
        other = await place.result(last, code=COUNT.replace('+ row["n"]', '+ 2 * row["n"]'))
        assert not other["equal"] and counts(other) == {"counted": (0, 0, 0, 3)}
        assert place.ends() == ends, "nothing is written to any table"


async def test_other_code_shows_what_differs(place: Place) -> None:
    """With the State of then; by key where there is one."""
    await place.put_each([1, 2, 3], [4, 5])
    events = await place.events(await place.run_of("count"), code=COUNT.replace('+ row["n"]', '+ 2 * row["n"]'))
    assert {"type": "line", "stream": "stdout", "text": "total is 14"} in events
    (table,) = events[-1]["tables"]
    assert (events[-1]["equal"], counts(events[-1])) == (False, {"counted": (0, 0, 0, 2)})
    assert table["rows"][0] == {
        "change": "changed",
        "was": {"n": 4, "total": 10},
        "now": {"n": 4, "total": 14},
        "fields": ["total"],
    }
    assert events[-1]["now"]["state"] == {"total": 24}
    ignored = await place.result(
        await place.run_of("count"), code=COUNT.replace('+ row["n"]', '+ 2 * row["n"]'), ignore=["total"]
    )
    assert ignored["equal"]
    newest = await place.result(await place.run_of("newest"), code=NEWEST.replace("% 2", "% 3"))
    (table,) = newest["tables"]
    assert (table["key"], counts(newest)) == (["parity"], {"newest": (0, 1, 1, 1)})
    sums = await place.result(await place.run_of("sums"), code=SUMS.replace("sum(n)", "count(*)"))
    assert counts(sums) == {"sums": (0, 0, 0, 2)}
    broken = await place.result(await place.run_of("count"), code="raise ValueError('no')")
    assert (broken["equal"], broken["now"]["kind"]) == (False, "failed")
    assert "count.py:1: ValueError: no" in broken["now"]["error"] and counts(broken) == {"counted": (0, 0, 2, 0)}


async def test_code_of_then_runs_though_the_node_has_changed(place: Place) -> None:
    """A replay is of the run, not of what was deployed since."""
    await place.put_each([1, 2])
    run = await place.run_of("count")
    await place.deploy(count__py=COUNT.replace('+ row["n"]', "+ 100"))
    result = await place.result(run)
    assert result["equal"] and "deployed anew" in result["notes"][0]


async def test_commits_deletes_and_own_reads_stay_in_the_replay(place: Place) -> None:
    """The statement commits before it deletes; what the run reads of its own then is what it wrote."""
    place.put(1, 2, 3)
    await place.run_of("count")
    await place.host.trigger("again", "agchange")
    run = await place.run_of("change")
    assert run.kind == "ok", run.error
    assert (await place.result(run))["equal"]
    spared = await place.result(run, code=CHANGE.replace("n > 1", "n > 2"))
    (table,) = spared["tables"]
    assert not spared["equal"] and (table["deleted"]["same"], table["deleted"]["no_more"]) == (1, 1)


async def test_a_failed_run_gives_its_failure_and_may_be_mended(place: Place) -> None:
    """The record that failed is among those that are handed out again, and none after it."""
    place.put(1, 2, 3)
    await place.run_of("count")
    await place.host.trigger("again", "agfails1")
    # On a slow machine another run has done the first record before it.
    run = await place.run_of("fails", kind="failed")
    again = await place.result(run)
    assert again["equal"] and again["now"]["kind"] == "failed"
    assert [letter["record"] for letter in again["now"]["dead_letters"]] == [{"n": 2}]
    mended = await place.result(run, code=FAILS.replace("raise ValueError", "print"))
    assert counts(mended) in ({"counted": (1, 1, 0, 0)}, {"counted": (0, 1, 0, 0)}) and not mended["equal"]


async def test_what_is_gone_is_told(place: Place) -> None:
    """No such run, node, State, rows read or rows written: an error that names it, before any code runs."""
    await place.put_each([1], [2])
    first = next(run for run in place.host.journal.runs() if run.title == "count")
    sums = next(run for run in place.host.journal.runs() if run.title == "sums")
    with pytest.raises(UnknownRunError):
        await place.events("again/nobody#1")
    place.log.trim(Partition(SOURCE), Offset(1))
    with pytest.raises(PastGoneError, match=r"'source'.*oldest that can be read"):
        await place.events(sums)
    last = await place.run_of("count")
    assert (await place.result(last))["equal"], "its stream began after what was trimmed"
    place.log.trim(Partition("again.agcount2"), Offset(2))
    with pytest.raises(WrittenGoneError, match="'counted'"):
        await place.events(last)
    await place.deploy(GRAPH.replace("  - {node_file: count.py, id: agcount1}\n", ""))
    with pytest.raises(UnknownNodeError):
        await place.events(first)


async def test_a_state_that_was_too_large_is_told(place: Place) -> None:
    """Half of a State would give something else than the run did."""
    await place.deploy(count__py=COUNT + 'state.set_value("all", "x" * 300_000)\n')
    await place.put_each([1], [2])
    with pytest.raises(StateNotKeptError, match="256 KiB"):
        await place.events(await place.run_of("count"))
