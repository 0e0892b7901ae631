"""The Tables that a host knows: their topics, their tails, the indexes that spare a start the folding, and what of
their past lies in the lake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeAlias

import orjson

from tailrace.errors import RejectedError
from tailrace.lake import StagingArea
from tailrace.log import Batch, Log, NewRecord, Offset, OffsetGapError, Partition, TopicInfo, TopicSpec, scan
from tailrace.runner.deployment import Deployment
from tailrace.runner.indexes import AppIndex
from tailrace.runner.moments import first_after
from tailrace.runner.past import Held, PastGoneError, hold
from tailrace.runner.settings import RunnerSettings
from tailrace.runner.tails import CallLog, Pin, TableTail
from tailrace.tables import (
    IdMaker,
    Snapshot,
    TableFold,
    VersionView,
    joined_view,
    lanes_of,
    shown_begun_ms,
    split_lane,
    topic_of,
)

__all__ = ["Catalog", "FetchSnapshot", "PartitionCountError", "UnknownTableError"]

FetchSnapshot: TypeAlias = Callable[[Snapshot], Path]
"""Gives the local folder that holds a snapshot's files: in a lake on this machine its own folder, else a copy of those
that are named. Called in a thread; raises an error of the four families where the files cannot be had."""


class UnknownTableError(RejectedError):
    """No deployed app has such a table."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name, self.known = name, list(known)
        super().__init__(f"there is no table {name!r}; there are: {', '.join(sorted(known)) or 'none'}")


class PartitionCountError(RejectedError):
    """graph.yml asks for another number of partitions than a table was made with."""

    def __init__(self, table: str, topic: str, partitions: int, wanted: int) -> None:
        self.table, self.topic, self.partitions, self.wanted = table, topic, partitions, wanted
        super().__init__(
            f"table {table!r} ({topic}) has {partitions} partition{'s' if partitions > 1 else ''}, and graph.yml asks for "
            f"{wanted}: the number is fixed, since it says where the rows of each key lie. Write `partitions: {partitions}` "
            "again; or give the store a new `id`, which makes a new empty table, and copy the rows with a node"
        )


class Catalog:
    """Topics and tails by lane (a Table with several partitions has several of them); a tail is made when it is first
    asked for.

    Args:
        deployments: the host's own, which it replaces at each deploy.
        call: runs a call of the log off the event loop.
        fetch: brings a snapshot's files here; without it nothing is read from a lake.
        staging: brings staged files here.
    """

    def __init__(
        self,
        log: Log,
        settings: RunnerSettings,
        deployments: Callable[[], Mapping[str, Deployment]],
        call: CallLog,
        fetch: FetchSnapshot | None = None,
        staging: StagingArea | None = None,
    ) -> None:
        self._log = log
        self._settings = settings
        self._deployments = deployments
        self._call = call
        self._fetch = fetch
        self._staging = staging
        self._infos: dict[str, TopicInfo] = {}
        self._tails: dict[str, TableTail] = {}
        self._indexes: dict[str, AppIndex] = {}
        self._following = asyncio.Lock()

    def __getitem__(self, lane: str) -> TableTail:
        """The tail of a table's lane; its topic is known already."""
        tail = self._tails.get(lane)
        if tail is None:
            topic, number = split_lane(lane)
            saved_fold = partial(self._saved_fold, lane)
            tail = self._tails[lane] = TableTail(
                self._log, self._infos[topic], self._name(topic), self._settings, self._call, saved_fold, number
            )
            index = self._index_of(lane)
            fold = index.fold(lane, self.born_ms(lane)) if index is not None else None
            if fold is not None:
                tail.fold = fold
        return tail

    @property
    def tails(self) -> Mapping[str, TableTail]:
        """Those that were asked for."""
        return self._tails

    def born_ms(self, lane: str) -> int:
        """When its topic was born."""
        return self._infos[topic_of(lane)].born_ms

    def lanes(self, topic: str) -> list[str]:
        """The lanes of a table; its topic is known already."""
        return lanes_of(topic, self._infos[topic].partitions)

    def _name(self, topic: str) -> str:
        for deployment in self._deployments().values():
            for table in deployment.tables.values():
                if topic == table.topic:
                    return table.store.name
                if topic == table.dead_letters:
                    return f"{table.store.name}_dead_letters"
        return topic

    async def create(self, specs: Sequence[TopicSpec]) -> None:
        """Make the topics that are missing."""
        self._infos.update(await self._call(lambda: self._log.create_topics(specs)))

    def check_partitions(self, deployment: Deployment) -> None:
        """Raises `PartitionCountError` (rejected) where an app asks for other numbers of partitions than there are."""
        for topic, table in deployment.tables.items():
            there = self._infos[topic].partitions
            if there != table.store.partitions:
                raise PartitionCountError(table.store.name, topic, there, table.store.partitions)

    async def ensure(self, topic: str) -> None:
        """Make the topic if it is missing."""
        if topic not in self._infos:
            await self.create([TopicSpec(topic)])

    async def know(self, topic: str) -> bool:
        """Whether there is such a topic, or lane of one; it can be asked for afterwards."""
        topic = topic_of(topic)
        if topic not in self._infos:
            found: dict[str, TopicInfo] = await self._call(lambda: self._log.topics(topic))
            if topic not in found:
                return False
            self._infos[topic] = found[topic]
        return True

    async def look(self, topic: str) -> Pin:
        """A table as it is now."""
        if not await self.know(topic):
            raise UnknownTableError(topic, list(self._infos))
        pins = []
        for lane in self.lanes(topic):
            await self[lane].advance()
            pins.append(await self[lane].pin())
        if len(pins) == 1:
            return pins[0]
        begun_ms = shown_begun_ms(pin.begun_ms for pin in pins)
        view = next((view for view in await self.versions(topic) if view.begun_ms == begun_ms), None)
        return Pin(-1, view)

    async def versions(self, topic: str) -> list[VersionView]:
        """The table's versions, oldest first; over all its lanes."""
        if len(self.lanes(topic)) == 1:
            pin = await self.look(topic)
            return await self[topic].views(pin.cut)
        for lane in self.lanes(topic):
            await self[lane].advance()
        whole = [joined_view(list(views.values())) for views in (await self._by_name(topic)).values()]
        return sorted([view for view in whole if view is not None], key=lambda view: view.begun_ms)

    async def first_offsets(self, topic: str) -> dict[str, dict[str, int]]:
        """By version and lane, where the version's messages begin."""
        return {
            name: {lane: view.segments[0][0] for lane, view in views.items()}
            for name, views in (await self._by_name(topic)).items()
        }

    async def _by_name(self, topic: str) -> dict[str, dict[str, VersionView]]:
        """Each version, by its name, as each lane has it."""
        found: dict[str, dict[str, VersionView]] = {}
        for lane in self.lanes(topic):
            for view in await self[lane].views(1 << 62):
                found.setdefault(view.name, {})[lane] = view
        return found

    # -- indexes: caches of folds, each as of a position, and the newest snapshots ---------------------------------

    def _index_of(self, topic: str) -> AppIndex | None:
        """The index of the app that the table is of, its dead letters too."""
        for deployment in self._deployments().values():
            if topic_of(topic) in deployment.tables or topic.removesuffix("-dead") in deployment.tables:
                return self._indexes.get(deployment.index_topic)
        return None

    async def follow(self, index_topic: str) -> None:
        """Read what is new in an app's index topic, up to an end that hides nothing."""
        await self._read_on(index_topic, self._log.settled_ends)

    async def _read_on(
        self, index_topic: str, ends: Callable[[Sequence[Partition]], Mapping[Partition, Offset]]
    ) -> None:
        async with self._following:
            index = self._indexes.setdefault(index_topic, AppIndex())
            partition = Partition(index_topic)
            told: set[str] = await self._call(lambda: self._read_index(index, partition, ends([partition])[partition]))
        for topic in told:
            if topic in self._tails:
                self._tails[topic].trimmed()  # a log is trimmed behind its snapshots

    def _read_index(self, index: AppIndex, partition: Partition, end: Offset) -> set[str]:
        start = index.position if index.position is not None else self._log.starts([partition])[partition]
        told: set[str] = set()
        for batch in scan(self._log, partition, start, end):
            told |= index.take(batch.records, batch.next)
        return told

    async def load_indexes(self) -> None:
        """Begin the folds of deployed tables where their indexes are. What the dead left open in one hides its newest
        entries, which only makes for more to read."""
        for deployment in self._deployments().values():
            await self._read_on(deployment.index_topic, self._log.ends)

    async def _saved_fold(self, topic: str) -> TableFold | None:
        """The fold of the table that came furthest, as the index says now."""
        for deployment in self._deployments().values():
            if topic_of(topic) in deployment.tables or topic.removesuffix("-dead") in deployment.tables:
                await self.follow(deployment.index_topic)
        index = self._index_of(topic)
        return index.fold(topic, self.born_ms(topic)) if index is not None else None

    async def save_index(self, topic: str, *, every_offsets: int = 1) -> None:
        """Write the table's fold down, if it is further by `every_offsets` than what is written."""
        tail, index = self._tails[topic], self._index_of(topic)
        deployment = next((d for d in self._deployments().values() if topic_of(topic) in d.tables), None)
        if index is None or deployment is None:
            return
        if tail.fold.position - index.fold_position(topic, self.born_ms(topic)) < every_offsets:
            return
        data = await tail.saved()
        record = NewRecord(orjson.dumps(data), topic.encode())
        await self._call(lambda: self._log.append(Partition(deployment.index_topic), [record]))
        await self.follow(deployment.index_topic)

    async def save_indexes(self) -> None:
        """Write down the folds that have moved on."""
        for topic in list(self._tails):
            await self.save_index(topic)

    # -- the lake --------------------------------------------------------------------------------------------------

    def snapshots(self, topic: str, view: VersionView | None) -> tuple[Snapshot, ...]:
        """The newest snapshots of a version, by position."""
        index = self._index_of(topic)
        if view is None or index is None or self._fetch is None:
            return ()
        return index.snapshots(topic, self.born_ms(topic), view.name)

    async def catch_up(self, topic: str) -> None:
        """Fold a table whose log was trimmed up to its newest snapshot: no cut before that can be read."""
        tail, index = self[topic], self._index_of(topic)
        if index is not None and await tail.start():
            newest = index.newest_position(topic, self.born_ms(topic))
            if tail.fold.position < newest:
                await tail.advance(until=newest)

    async def held(
        self, topic: str, view: VersionView | None, cut: int, known: Sequence[Snapshot] | None = None
    ) -> Held:
        """Where a version's rows before `cut` are, by the snapshots `known` (None: of now).

        Raises `PastGoneError` (rejected)."""
        tail = self[topic]
        start = await tail.start()
        known = self.snapshots(topic, view) if known is None else known
        if view is None:
            return Held(None, None, start)
        name, number = split_lane(topic)
        ids = IdMaker(name, self.born_ms(topic), number)
        deletes = next((each.deletes for each in await tail.views(1 << 62) if each.name == view.name), ())
        try:
            return hold(tail.table, view, cut, start, known, deletes, ids)
        except PastGoneError as error:
            raise PastGoneError(error.table, cut, error.oldest, await self._moment(topic, error.oldest)) from None

    async def pin_at(self, topic: str, cut: int) -> Pin:
        """A table as of an earlier position (-1: one that nobody knows).

        Raises `PastGoneError` (rejected) where nobody knows how it was."""
        tail = self[topic]
        if cut < 0:
            oldest = await tail.start()
            raise PastGoneError(tail.table, cut, oldest, await self._moment(topic, oldest + 1))
        if tail.fold.position < cut:
            await tail.advance(until=cut, settled=True)
        cut = min(cut, tail.fold.position)
        views = await tail.views(1 << 62)
        then = [view.before(cut) for view in views if view.segments[0][0] < cut]
        active = next((view for view in then if view.segments[-1][1] == cut), None)
        truncated = next((v for v in views if v.schemas and v.schemas[0][0] < cut <= v.segments[0][0]), None)
        forgotten = max(truncated.segments[0][0] if truncated is not None else 0, tail.fold.forgotten_until)
        if (
            active is None and 0 < cut <= forgotten
        ):  # one was active then perhaps, and the fold does not know it any more
            if await tail.start() > 0:
                oldest = forgotten + 1
                raise PastGoneError(tail.table, cut, oldest, await self._moment(topic, oldest))
            active = await self._call(lambda: self._fold_again(tail, cut))
        return Pin(cut, active, active.begun_ms if active is not None else None)

    def _fold_again(self, tail: TableTail, cut: int) -> VersionView | None:
        fold = tail.new_fold()
        for batch in scan(self._log, tail.partition, Offset(0), Offset(cut)):
            fold.advance(((record.offset, record.ts_ms, record.value) for record in batch.records), batch.next)
        return fold.view(cut)

    async def position_at(self, topic: str, at_ms: int) -> int | None:
        """The offset before which lies what the log had taken at a moment, that moment included; None where what the
        log says of that time was trimmed."""
        partition = Partition(*split_lane(topic))
        if at_ms < self.born_ms(topic):
            return 0
        start = (await self._call(lambda: self._log.starts([partition])))[partition]
        end = (await self._call(lambda: self._log.settled_ends([partition])))[partition]
        found = await self._call(lambda: first_after(self._log, partition, start, end, at_ms))
        return int(found) if found > start or start == 0 else None

    async def _moment(self, topic: str, offset: int) -> str:
        """When the log took the record before an offset, in words; nothing where it is not there any more."""
        partition = Partition(*split_lane(topic))
        try:
            batch: Batch = await self._call(
                lambda: self._log.read(partition, Offset(max(offset - 1, 0)), stop=Offset(offset + 100), records_max=1)
            )
        except OffsetGapError:
            return ""
        return (
            datetime.fromtimestamp(batch.records[0].ts_ms / 1000, UTC).isoformat(" ", "seconds")
            if batch.records
            else ""
        )

    async def folder(self, snapshot: Snapshot) -> Path:
        """The local folder of a snapshot's files."""
        assert self._fetch is not None, "no snapshot without a lake"
        fetch = self._fetch
        return await asyncio.to_thread(fetch, snapshot)

    async def staged(self, path: str) -> bool:
        """Have a staged file in the staging folder; False where there is none."""
        return self._staging is not None and await asyncio.to_thread(self._staging.fetch, path)
