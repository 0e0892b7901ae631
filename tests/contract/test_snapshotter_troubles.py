"""What people and disks do to a lake: the table and the file are named, other tables go on, nothing is lost, and all
catches up when the cause is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import orjson
import pyarrow as pa
import pytest
import typer
from deltalake import DeltaTable
from full_disk import fill_up
from table_reading import fold_topic, reader_of

from tailrace.cli.client import Client
from tailrace.cli.lake import rebuild as rebuild_command
from tailrace.errors import TailraceError
from tailrace.lake import LakeLocation, LakeUnavailableError, VersionTable
from tailrace.log import (
    FencedError,
    Log,
    LogUnavailableError,
    NewRecord,
    Offset,
    OutcomeUnknownError,
    Partition,
    TopicSpec,
    open_log,
)
from tailrace.runtime import Runtime
from tailrace.snapshotter import GROUP, SnapshotterSettings, TableWish, read_index, table_lanes
from tailrace.snapshotter.index import IndexEntry
from tailrace.snapshotter.service import Snapshotter
from tailrace.snapshotter.sharing import SHARING_TOPIC
from tailrace.snapshotter.tasks import rebuild
from tailrace.tables import TableFold, index_topic, message, rows_message

PATIENCE_S = 60
TABLES = ("changed", "corrupt", "removed", "sound")


class House:
    """A log with a few Tables, one with a key, and what its snapshotters say."""

    def __init__(self, log: Log, url: str, folder: Path) -> None:
        self.log, self.folder = log, folder
        self.location = LakeLocation.parse(str(folder / "lake"))
        self.settings = SnapshotterSettings(
            log_url=url,
            lake_url=self.location.url,
            staging_dir=str(folder / "staging"),
            graphs=("shop",),
            tables={f"shop.{name}": TableWish(name=name) for name in TABLES},
            freshness=timedelta(milliseconds=20),
            keyed_interval=timedelta(milliseconds=20),
            pause_max=timedelta(milliseconds=100),
            idle_exit=None,
        )
        self.task: asyncio.Task[None] | None = None
        self.troubles: dict[str, str] = {}
        self.lost: dict[str, str] = {}
        log.create_topics([TopicSpec(f"shop.{name}") for name in TABLES])

    def write(self, *numbers: int) -> None:
        """A row for each number into each Table."""
        for name in TABLES:
            rows = [{"k": number, "v": f"{name} {number}"} for number in numbers]
            head = {"kind": "rows", "n": len(rows), "fields": {"k": "Integer", "v": "Text"}}
            head |= {"key": ["k"]} if name == "corrupt" else {}
            self.log.append(Partition(f"shop.{name}"), [NewRecord(rows_message(head, orjson.dumps(rows)))])

    def fold(self, name: str) -> TableFold:
        return fold_topic(self.log, Partition(f"shop.{name}"), TableFold(name))

    def delta_folder(self, name: str) -> Path:
        active = self.fold(name).active
        assert active is not None
        return self.location.local_path(self.location.folder(f"shop.{name}", active.name))

    def caught_up(self, name: str) -> bool:
        """Whether the Table is in the lake to its end, as the group says."""
        partition = Partition(f"shop.{name}")
        place = self.log.places(GROUP, [partition]).get(partition)
        return place is not None and place.offset == self.log.ends([partition])[partition]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """As any Delta reader sees them."""
        return delta_rows(self.delta_folder(name))

    def wanted(self, name: str) -> list[dict[str, Any]]:
        """As the log says."""
        reader = reader_of(self.log, Partition(f"shop.{name}"), self.fold(name))
        assert reader is not None
        return reader.table(id_column="patterns_id").to_pylist()

    def tell(self, said: Mapping[str, Any]) -> None:
        name = said["table"].removeprefix("shop.")
        if said["type"] == "lost":
            self.lost[name] = said["text"]
        elif said["error"] is None:
            self.troubles.pop(name, None)
        else:
            self.troubles[name] = said["error"]

    @asynccontextmanager
    async def snapshotter(self) -> AsyncIterator[None]:
        """One at work, until the end of the block."""
        one = Snapshotter(self.log, self.location, self.settings, Runtime(), self.tell)
        task = self.task = asyncio.create_task(one.run())
        try:
            yield
        finally:
            one.stop()
            await task

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not await asyncio.to_thread(condition):
                await asyncio.sleep(0.02)

    def index(self) -> dict[str, IndexEntry]:
        """What the index says of each topic."""
        return read_index(self.log, "shop", table_lanes(self.log, ["shop"]))

    def forget(self, *topics: str) -> None:
        """Have the index say nothing of these any more."""
        partition = Partition(index_topic("shop"))
        keys = [f"{topic}@{name}" for topic in topics for name in self.index()[topic].snapshots]
        self.log.append(partition, [NewRecord(None, key.encode()) for key in keys])

    async def rebuilt(self) -> dict[str, dict[str, Any]]:
        """Make the index again; what is told of each topic."""
        found = await asyncio.to_thread(rebuild, self.settings, ["shop"])
        return {each["topic"]: each for each in found}

    def all_caught_up(self) -> bool:
        return all(map(self.caught_up, TABLES))


def delta_rows(folder: Path) -> list[dict[str, Any]]:
    found = pa.table(DeltaTable(str(folder)).to_pyarrow_table())
    return sorted(found.to_pylist(), key=lambda row: row["patterns_id"])


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    url = f"sqlite:///{tmp_path / 'log.db'}"
    log = open_log(url)
    yield House(log, url, tmp_path)
    log.close()


async def test_a_log_that_is_older_than_the_lake_is_told(house: House) -> None:
    """It was put back, and the lake was not: its new rows have offsets that the lake takes for old ones. They wait in the log."""
    house.write(1, 2)
    async with house.snapshotter():
        await house.until(house.all_caught_up)
    older = house.folder / "older.db"
    with (
        contextlib.closing(sqlite3.connect(house.folder / "log.db")) as now,
        contextlib.closing(sqlite3.connect(older)) as copy,
    ):
        now.backup(copy)
    house.write(3)
    house.write(4)
    async with house.snapshotter():
        await house.until(house.all_caught_up)
    url = f"sqlite:///{older}"
    with contextlib.closing(open_log(url)) as log:
        again = House(log, url, house.folder)
        again.write(5)
        async with again.snapshotter():
            await again.until(lambda: len(again.troubles) == len(TABLES))
            assert "the log is older than the lake" in again.troubles["sound"]
            assert not any(map(again.caught_up, TABLES))
            for name in TABLES:
                shutil.rmtree(again.delta_folder(name))
            await again.until(again.all_caught_up)
            await again.until(lambda: not again.troubles)
        for name in TABLES:
            assert again.rows(name) == again.wanted(name), name
            assert [row["k"] for row in again.rows(name)] == [1, 2, 5]


@pytest.mark.parametrize("running", [True, False])
async def test_harm_to_one_table_is_told_and_mended_and_holds_up_no_other(house: House, running: bool) -> None:
    """Rows deleted by another program, a file cut short, a folder deleted: under a snapshotter, or between two."""
    house.write(1, 2)
    async with house.snapshotter():
        await house.until(house.all_caught_up)
        if running:
            mend = harm(house)
            await told_and_mended(house, mend)
    if not running:
        mend = harm(house)
        async with house.snapshotter():
            await told_and_mended(house, mend)
    for name in TABLES:
        assert house.rows(name) == house.wanted(name), name


def harm(house: House) -> Callable[[], None]:
    """Do it; gives what takes it back."""
    changed = house.delta_folder("changed")
    theirs = DeltaTable(str(changed)).version() + 1
    DeltaTable(str(changed)).delete()
    (corrupt,) = house.delta_folder("corrupt").glob("*.parquet")
    whole = corrupt.read_bytes()
    corrupt.write_bytes(whole[:-20])
    shutil.rmtree(house.delta_folder("removed"))
    house.write(2, 3)

    def mend() -> None:
        for commit in (changed / "_delta_log").glob("*.json"):
            if int(commit.name[:20]) >= theirs:
                commit.unlink()
        corrupt.write_bytes(whole)

    return mend


async def told_and_mended(house: House, mend: Callable[[], None]) -> None:
    await house.until(lambda: {"changed", "corrupt"} <= house.troubles.keys())
    await house.until(lambda: house.caught_up("sound") and house.caught_up("removed"))
    changed, corrupt = house.troubles["changed"], house.troubles["corrupt"]
    assert "shop/changed_" in changed and "_delta_log/0" in changed and "(DELETE) is not of Tailrace" in changed
    assert "delete that commit's file" in changed
    assert "corrupt_" in corrupt and ".parquet" in corrupt and "back" in corrupt
    assert not house.caught_up("changed") and not house.caught_up("corrupt")
    mend()
    await house.until(lambda: house.all_caught_up() and not house.troubles)
    assert not house.lost


async def test_a_full_disk_is_told_and_all_catches_up_when_there_is_room(tmp_path: Path, small_disk: Path) -> None:
    """Full before a table's first file, in the middle of its life, and with room for some of a big file only."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    filler = small_disk / "filler"
    with contextlib.closing(open_log(url)) as log:
        house = House(log, url, small_disk)
        async with house.snapshotter():
            for numbers in (range(10), range(10, 20), range(20, 60_000)):
                fill_up(filler)
                if len(numbers) > 1_000:  # room for the beginning of a file
                    os.truncate(filler, filler.stat().st_size - (64 << 10))
                house.write(*numbers)
                await house.until(lambda: len(house.troubles) > 0)
                for name, trouble in house.troubles.items():
                    assert f"shop/{name}_" in trouble and "disk is full, so free some space" in trouble, trouble
                filler.unlink()
                await house.until(lambda: house.all_caught_up() and not house.troubles)
        for name in TABLES:
            assert house.rows(name) == house.wanted(name), name
        assert not house.lost


async def test_a_lake_that_was_deleted_says_what_each_table_lost(house: House) -> None:
    """It is made again from what the log still has."""
    house.write(1, 2)
    house.write(3)
    async with house.snapshotter():
        await house.until(house.all_caught_up)
    folders, whole = {name: house.delta_folder(name) for name in TABLES}, house.wanted("changed")
    house.log.trim(Partition("shop.sound"), Offset(1))
    house.log.trim(Partition("shop.removed"), Offset(2))
    shutil.rmtree(house.location.local_path())
    async with house.snapshotter():
        await house.until(
            lambda: all((folder / "_delta_log" / f"{1:020}.json").exists() for folder in folders.values())
        )
        await house.until(lambda: len(house.lost) == 2)
    assert delta_rows(folders["changed"]) == whole and len(whole) == 3
    assert house.lost.keys() == {"sound", "removed"}
    assert "offsets 0 to 1 are in neither log nor lake" in house.lost["sound"]
    assert "offsets 0 to 2 are in neither log nor lake" in house.lost["removed"]
    assert [row["k"] for row in delta_rows(folders["sound"])] == [3]
    assert delta_rows(folders["removed"]) == []


def cut_a_commit(log: Path) -> None:
    """The newest commit's file ends amid a line."""
    newest = max(log.glob("*.json"))
    newest.write_bytes(newest.read_bytes()[:50])


def lose_a_commit(log: Path) -> None:
    """A commit's file amid the others is gone."""
    (log / f"{1:020}.json").unlink()


@pytest.mark.parametrize("damage", [cut_a_commit, lose_a_commit])
@pytest.mark.parametrize("trimmed", [False, True])
async def test_rebuild_tells_of_a_damaged_delta_table_and_goes_on(
    house: House,
    damage: Callable[[Path], None],
    trimmed: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The newer of two versions of `changed` is damaged: its folder and the way out are told, its older version and the
    other Tables are made again, and nothing that the index still says of it is lost."""
    changed = Partition("shop.changed")
    async with house.snapshotter():
        house.write(1, 2)
        await house.until(house.all_caught_up)
        house.log.append(changed, [NewRecord(message({"kind": "version", "settings": {}}))])
        for number in (3, 4, 5):
            house.write(number)
            await house.until(house.all_caught_up)
    before = house.index()
    sizes = {key: _size(entry) for key, entry in before.items()}
    end = house.log.ends([changed])[changed]
    if trimmed:
        house.log.trim(changed, Offset(end - 1))
    older, newer = sorted(before[changed.topic].snapshots.values(), key=lambda snapshot: snapshot.position)
    assert older.position < end - 1 < newer.position
    log = house.location.local_path(newer.folder) / "_delta_log"
    whole = {path: path.read_bytes() for path in log.iterdir()}
    damage(log)
    house.forget("shop.corrupt", "shop.sound")
    assert not house.index()["shop.sound"].snapshots

    found = await house.rebuilt()
    (told,) = found["shop.changed"]["damaged"]
    assert f"lake table {newer.folder}: _delta_log" in told and "move the table's folder away" in told
    assert [found[topic]["damaged"] for topic in ("shop.corrupt", "shop.removed", "shop.sound")] == [[], [], []]
    assert (found["shop.changed"]["in_lake"], found["shop.changed"]["lost"]) == (1, None)
    assert {topic: (each["position"], each["versions"]) for topic, each in found.items()} == sizes
    assert house.index() == before
    with monkeypatch.context() as patch, pytest.raises(typer.Exit) as ended:
        patch.setattr(Client, "__init__", lambda *_: None)
        patch.setattr(Client, "post", lambda *_, **__: list(found.values()))
        rebuild_command()
    assert ended.value.exit_code == 1
    assert told.partition(";")[0] in " ".join(capsys.readouterr().err.split())

    for path, content in whole.items():
        path.write_bytes(content)
    found = await house.rebuilt()
    assert not any(each["damaged"] for each in found.values())
    assert found["shop.changed"]["in_lake"] == 2 and house.index() == before


async def test_rebuild_goes_on_where_one_delta_table_cannot_be_read(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights of one folder are missing, say: what the index says of it stays."""
    async with house.snapshotter():
        house.write(1, 2)
        await house.until(house.all_caught_up)
    before = house.index()
    (shut,) = before["shop.changed"].snapshots.values()
    opened = VersionTable.open

    def open_table(location: LakeLocation, folder: str, **more: Any) -> VersionTable | None:
        if folder == shut.folder:
            raise LakeUnavailableError(folder, "_delta_log", "Permission denied (os error 13)")
        return opened(location, folder, **more)

    with monkeypatch.context() as patch:
        patch.setattr(VersionTable, "open", staticmethod(open_table))
        house.forget("shop.sound")
        found = await house.rebuilt()
    (told,) = found["shop.changed"]["damaged"]
    assert shut.folder in told and "Permission denied" in told
    assert found["shop.sound"]["damaged"] == [] and house.index() == before


def _size(entry: IndexEntry) -> tuple[int, int]:
    fold = entry.table_fold()
    assert fold is not None
    return fold.position, len(fold.versions)


class NoAnswer:
    """A log whose first heartbeats of snapshotters are answered with an error."""

    def __init__(self, log: Log, error: TailraceError) -> None:
        self._log, self._error = log, error
        self.left = 2

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def append(self, partition: Partition, records: Sequence[NewRecord]) -> Any:
        if partition.topic == SHARING_TOPIC and self.left:
            self.left -= 1
            raise self._error
        return self._log.append(partition, records)


@pytest.mark.parametrize(
    "error", [OutcomeUnknownError("an append", "it went away"), LogUnavailableError("log", "away")]
)
async def test_a_heartbeat_that_nobody_answers_stops_nothing(house: House, error: TailraceError) -> None:
    """A Table that is made after that is found, and told of by more heartbeats."""
    often = timedelta(milliseconds=30)
    house.settings = replace(house.settings, shared=True, share_timeout=often, discover_interval=often)
    log = house.log = cast(Any, NoAnswer(house.log, error))
    async with house.snapshotter():
        await house.until(lambda: not log.left)
        house.log.create_topics([TopicSpec("shop.later")])
        head = {"kind": "rows", "n": 1, "fields": {"k": "Integer"}}
        house.log.append(Partition("shop.later"), [NewRecord(rows_message(head, orjson.dumps([{"k": 1}])))])
        await house.until(lambda: house.caught_up("later"))


async def test_one_that_cannot_look_for_tables_any_more_ends(house: House) -> None:
    """Whoever looks after it starts it again; one that lived on would hold its Tables and do nothing."""
    house.settings = replace(house.settings, shared=True, share_timeout=timedelta(milliseconds=30))
    house.log = cast(Any, NoAnswer(house.log, FencedError("it")))
    with pytest.raises(FencedError):
        async with house.snapshotter(), asyncio.timeout(PATIENCE_S):
            assert house.task is not None
            await asyncio.wait([house.task])
