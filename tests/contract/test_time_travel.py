"""Tables as they were: at a position, at a moment, for a run; from the log, from snapshots, or not any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tailrace.control import place_files
from tailrace.graph import load_app
from tailrace.lake import LakeLocation, SnapshotFiles, TopicSource, snapshot_version
from tailrace.log import Log, NewRecord, Offset, Partition, open_log
from tailrace.runner import AskError, Host, HostView, PastGoneError, RunEntry, RunnerSettings, UnknownRunError, deploy
from tailrace.runner.catalog import Catalog
from tailrace.runtime import ManualClock, Runtime
from tailrace.tables import Messages, StagedFiles, TableFold, rows_message

GRAPH = """
title: Travel
slug: travel
functions:
  - {node_file: double.py, id: trdouble}
  - {node_file: look.py, id: trlook, trigger: manual}
stores:
  - {table: source, id: trsource}
  - {table: doubled, id: trdouble2}
"""
DOUBLE = """
from patterns import Table
doubled = Table("doubled", "w")
for row in Table("source").as_stream():
    doubled.append({"n": 2 * row["n"]})
"""
LOOK = """
from datetime import UTC, datetime, timedelta
from patterns import Table
source, doubled, began = Table("source"), Table("doubled"), datetime.fromtimestamp(1_700_000_000, UTC)
for seconds in (50, 100, 250, 300, 10**6):
    at = began + timedelta(seconds=seconds)
    try:
        found = [[row["n"] for row in table.read(at=at)] for table in (source, doubled)]
        assert list(source.read_dataframe(at=at.replace(tzinfo=None).isoformat()).get("n", [])) == found[0]
        assert len(list(source.read(chunksize=1, at=at))) == len(found[0])
    except Exception as error:
        found = type(error).__name__ + str(error)[-80:]
    print(found)
"""
SOURCE, DOUBLED = "travel.trsource", "travel.trdouble2"
INDEX = Partition("travel._index")


class Place:
    """A log, a lake and an app with a table that tests write to by hand."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.runtime = Runtime(clock=self.clock)
        self.log: Log = open_log(f"sqlite:///{folder / 'log.db'}", runtime=self.runtime)
        self.location = LakeLocation.parse(str(folder / "lake"))
        self.folder = folder
        app_dir = folder / "travel"
        app_dir.mkdir()
        (app_dir / "graph.yml").write_text(GRAPH)
        (app_dir / "double.py").write_text(DOUBLE)
        (app_dir / "look.py").write_text(LOOK)
        app = load_app(app_dir)
        self.deployment = deploy(app, place_files(app, folder / "apps"), RunnerSettings())
        self.log.create_topics(self.deployment.topics())
        files = SnapshotFiles(self.location, folder / "cache")
        self.fetch, self.lake_dir = files.fetch, files.root

    def put(self, *numbers: int, topic: str = SOURCE, **head: Any) -> int:
        """A message with a row for each number; returns the log's end."""
        fields = {"n": "Integer"}
        body = orjson.dumps([{"n": number} for number in numbers])
        values = {"kind": "rows", "ts": self.clock.now_ms(), "n": len(numbers), "fields": fields, **head}
        return self._append(topic, rows_message(values, body))

    def mark(self, kind: str, topic: str = SOURCE, **more: Any) -> int:
        """A message without rows."""
        return self._append(topic, orjson.dumps({"kind": kind, "ts": self.clock.now_ms(), **more}))

    def _append(self, topic: str, value: bytes) -> int:
        return int(self.log.append(Partition(topic), [NewRecord(value)]).stop)

    def fold(self, topic: str = SOURCE, name: str = "source") -> TableFold:
        fold = TableFold(name)
        partition = Partition(topic)
        end = self.log.ends([partition])[partition]
        records = self.log.read(partition, Offset(0), stop=end).records
        fold.advance(((record.offset, record.ts_ms, record.value) for record in records), end)
        return fold

    def snapshot(self, *, tell: bool = True) -> int:
        """Bring the source into the lake; returns its position."""
        info = self.log.topics(SOURCE)[SOURCE]
        fold = self.fold()
        source = TopicSource(SOURCE, info.born_ms, self, StagedFiles(self.folder / "staging"))
        for name in fold.versions:
            made = snapshot_version(self.location, source, fold, name, runtime=self.runtime).snapshot
            value = orjson.dumps({**made.to_json(), "born_ms": info.born_ms})
            if tell:
                self.log.append(INDEX, [NewRecord(value, f"{SOURCE}@{name}".encode())])
        if tell:
            self.tell(fold)
        return fold.position

    def tell(self, fold: TableFold) -> None:
        """Write a fold into the index."""
        info = self.log.topics(SOURCE)[SOURCE]
        value = orjson.dumps({**fold.to_json(), "born_ms": info.born_ms})
        self.log.append(INDEX, [NewRecord(value, SOURCE.encode())])

    def scan(self, start: int, stop: int) -> Iterator[Messages]:
        yield Messages.of(self.log.read(Partition(SOURCE), Offset(start), stop=Offset(stop)).records)

    def trim(self, before: int) -> None:
        self.log.trim(Partition(SOURCE), Offset(before))

    async def catalog(self) -> Catalog:
        """As a host that has just started has it."""

        async def call(function: Callable[[], Any]) -> Any:
            return await asyncio.to_thread(function)

        catalog = Catalog(self.log, RunnerSettings(), lambda: {"travel": self.deployment}, call, self.fetch)
        await catalog.create(self.deployment.topics())
        await catalog.load_indexes()
        return catalog


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.log.close()


async def test_a_fold_goes_on_from_the_index_where_the_log_was_trimmed(place: Place) -> None:
    """A host that was away, and one that had begun to fold."""
    place.put(1, 2)
    catalog = await place.catalog()
    early = catalog[SOURCE]
    await early.advance()
    place.put(3)
    position = place.snapshot()
    place.trim(position)
    place.put(4, 5)
    for tail in (early, (await place.catalog())[SOURCE]):
        assert await tail.advance()
        view = (await tail.pin()).view
        assert view is not None and view.appended == 5 and await tail.start() == position
        assert tail.fold.to_json() == {**place_fold(place, tail.fold), "position": position + 1}


def place_fold(place: Place, like: TableFold) -> dict[str, object]:
    """What a fold of everything would say."""
    (version,) = like.versions.values()
    assert version.segments[0][0] == 0
    return like.to_json()


async def test_a_fold_that_nobody_kept_is_told_and_the_rest_goes_on(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Losing the index and the lake must not stop the house."""
    place.put(1, 2)
    end = place.put(3)
    place.trim(end - 1)
    tail = (await place.catalog())[SOURCE]
    assert await tail.advance()
    view = (await tail.pin()).view
    assert view is not None and view.segments == ((1, 2),)
    assert "tailrace rebuild" in caplog.text and "'source'" in caplog.text


async def test_positions_before_the_fold_can_be_pinned(place: Place) -> None:
    """Other versions, before any, after a reset, and before a truncation that the fold has forgotten."""
    place.put(1)
    place.mark("reset")
    place.put(2, 3)
    place.mark("truncate")
    place.put(4)
    catalog = await place.catalog()
    await catalog[SOURCE].advance()
    names = list(place.fold().versions)
    active = [(await catalog.pin_at(SOURCE, cut)).view for cut in range(6)]
    assert [view.name if view else None for view in active] == [None, names[0], None, names[1], names[1], names[1]]
    assert [view.segments for view in active if view] == [((0, 1),), ((2, 3),), ((3, 4),), ((3, 5),)]
    place.snapshot()
    place.trim(4)
    with pytest.raises(PastGoneError, match="position 4"):
        await (await place.catalog()).pin_at(SOURCE, 3)


async def test_the_snapshot_of_a_cut(place: Place) -> None:
    """The newest at or before it; of keyed tables nothing can be told before the oldest."""
    catalog = await place.catalog()
    for round_ in range(3):
        place.put(round_, key=["n"])
        place.snapshot()
        await catalog.follow(INDEX.topic)
    place.trim(2)
    newest = await catalog.pin_at(SOURCE, 3)
    held = await catalog.held(SOURCE, newest.view, 3)
    assert held.snapshot is not None and (held.snapshot.position, held.log_start) == (3, 2)
    before = await catalog.pin_at(SOURCE, 2)
    assert (await catalog.held(SOURCE, before.view, 2)).snapshot is not None
    place.trim(3)
    catalog = await place.catalog()
    with pytest.raises(PastGoneError, match="oldest that can be read is position 3"):
        await catalog.held(SOURCE, (await catalog.pin_at(SOURCE, 2)).view, 2)


@pytest.fixture
async def host(place: Place) -> AsyncIterator[Host]:
    host = Host(
        place.log, data_dir=place.folder / "data", runtime=place.runtime, fetch=place.fetch, lake_dir=place.lake_dir
    )
    await host.start()
    await host.deploy([place.deployment])
    try:
        yield host
    finally:
        await host.stop()


async def answer(pieces: AsyncIterator[bytes]) -> Any:
    return orjson.loads(b"".join([piece async for piece in pieces]))


async def numbers(view: HostView, table: str, **when: Any) -> list[int]:
    return [row["n"] for row in await answer(view.read(table, "travel", {}, **when))]


async def until_doubled(host: Host, count: int) -> None:
    async with asyncio.timeout(60):
        while True:
            seen = (await host.look(DOUBLED)).view
            if seen is not None and seen.appended >= count == len(host.journal.runs()):
                return
            await asyncio.sleep(0.02)


async def looked(host: Host) -> list[str]:
    """What the node `look` prints."""
    told: asyncio.Queue[RunEntry] = asyncio.Queue()
    stop = host.journal.listen(lambda entry: told.put_nowait(entry) if isinstance(entry, RunEntry) else None)
    await host.trigger("travel", "trlook")
    async with asyncio.timeout(60):
        run = await told.get()
    stop()
    assert run.kind == "ok", run.error
    return [line.text for line in host.journal.lines(run=run.run)]


async def test_a_whole_app_is_read_at_one_moment(place: Place, host: Host) -> None:
    """Rows, SQL over several tables, and what a run had read; also after the log was trimmed."""
    view = HostView(host, "", {})
    moments = []
    for number in (1, 2, 3):
        place.clock.advance_ms(100_000)
        place.put(number)
        await until_doubled(host, number)
        await host.journal.flush()
        moments.append(place.clock.now_ms())
    first = host.journal.runs()[0]
    for trimmed in (False, True):
        if trimmed:
            place.trim(place.snapshot())
        assert await numbers(view, "source") == [1, 2, 3]
        assert [await numbers(view, "source", at_ms=at) for at in moments] == [[1], [1, 2], [1, 2, 3]]
        assert [await numbers(view, "doubled", at_ms=at) for at in moments] == [[2], [2, 4], [2, 4, 6]]
        query = "select (select sum(n) from source) as s, (select sum(n) from doubled) as d"
        found = await answer(view.query(query, "travel", at_ms=moments[1]))
        assert found["rows"] in ([["3", "6"]], [[3, 6]])
        assert await numbers(view, "source", run=first.run) == [1]
        assert await numbers(view, "source", at_ms=moments[0] - 200_000) == []  # there was no such table
        seen = await looked(host)
        assert seen[1:] == ["[[1], [2]]", "[[1, 2], [2, 4]]", "[[1, 2, 3], [2, 4, 6]]", "[[1, 2, 3], [2, 4, 6]]"]
        if not trimmed:
            assert seen[0] == "[[], []]"
            assert await numbers(view, "source", at_ms=moments[0] - 50_000) == []
            continue
        assert "The oldest that can be read is position 3" in seen[0]
        with pytest.raises(AskError, match="oldest that can be read is position 3"):
            await numbers(view, "source", at_ms=moments[0] - 50_000)
    with pytest.raises(UnknownRunError):
        await numbers(view, "source", run="travel/nobody#1")


async def test_a_run_remembers_what_it_began_with(place: Place, host: Host) -> None:
    """What it read and wrote, and its State and places, from the journal's topic after a restart too."""
    place.put(1)
    await until_doubled(host, 1)
    place.put(2)
    await until_doubled(host, 2)
    last = host.journal.runs()[-1]
    assert last.began is None  # in memory there is no State
    entry = await host.journal.find("travel", last.run)
    assert entry.read == {SOURCE: 2}
    assert entry.wrote == {DOUBLED: (1, 2)} or entry.wrote == {
        DOUBLED: (0, 2)
    }  # two runs within a second are one entry
    assert entry.places in ({}, {SOURCE: (0, 1)}) and entry.began is not None and entry.began["state"] == {}
    assert entry.version and (place.folder / "apps" / "travel" / entry.code).is_dir()
