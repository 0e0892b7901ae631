"""The snapshotter: watches the topics of all Tables (each of their partitions as a Table of its own), and works on those that are due, a few at a time.

One table never holds up the others: each gets a step of bounded size at a time, those that waited longest first, and one
that fails rests for a growing pause. Everything that is remembered here can be forgotten: it is read from the index,
the log and the lake again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from tailrace.errors import FatalError, RetriableError, TailraceError
from tailrace.lake import LakeConflictError, LakeLocation
from tailrace.log import (
    Append,
    Log,
    LogUnavailableError,
    NewRecord,
    Offset,
    OutcomeUnknownError,
    Place,
    TopicSpec,
    Writer,
)
from tailrace.runtime import Runtime
from tailrace.snapshotter.cadence import due_ms, pause_ms
from tailrace.snapshotter.index import IndexEntry, index_partition, read_index
from tailrace.snapshotter.settings import SnapshotterSettings, TableWish
from tailrace.snapshotter.sharing import Sharing, owner
from tailrace.snapshotter.tasks import collect_when_due
from tailrace.snapshotter.topics import GROUP, TableLane, table_lanes
from tailrace.snapshotter.work import TableWork
from tailrace.tables import lane_of

__all__ = ["Snapshotter"]

T = TypeVar("T")
_log = logging.getLogger(__name__)

_LISTEN_PAUSE_S = 0.1
"""Between two looks at what rang: a busy log rings a thousand times a second."""

_ROUNDS_PAUSE_S = 15.0
"""Between two looks whether it is time to let go of what is old: less than `idle_exit`, so that each life looks once."""


@dataclass(slots=True)
class _Table:
    """One lane as the loop sees it."""

    lane: TableLane
    work: TableWork
    end: int = 0
    since_ms: int | None = None
    """When the oldest record came that is not in the lake; None: there is none."""
    running: bool = False
    worked_s: float = 0.0
    """When it last had its turn."""
    failures: int = 0
    again_ms: int = 0
    """It rests until then."""
    trouble: str | None = None


class Snapshotter:
    """Follows the Tables of some apps until there is nothing to do, or `stop` is called.

    Args:
        tell: called with what people should know: `{"type": "trouble", "table", "error"}` when a table begins or ceases
            (`error` None) to fail, `{"type": "lost", "table", "text"}` when rows are gone.
    """

    def __init__(
        self,
        log: Log,
        location: LakeLocation,
        settings: SnapshotterSettings,
        runtime: Runtime,
        tell: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._log, self._location, self._settings, self._runtime = log, location, settings, runtime
        self._tell = tell
        self._tables: dict[str, _Table] = {}
        self._threads = ThreadPoolExecutor(max_workers=settings.threads_max, thread_name_prefix="table")
        self._running: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._look = asyncio.Event()
        """Set when topics are to be looked for at once."""
        self._stopping = False
        self._failure: BaseException | None = None
        self._watch = log.watch()
        self._writer: Writer | None = None
        """None once the outcome of a commit was unknown: it is opened anew for the next one."""
        self._writing = threading.Lock()
        self._sharing = (
            Sharing(log, settings.instance, int(settings.share_timeout.total_seconds() * 1000))
            if settings.shared
            else None
        )
        self._instances = frozenset({settings.instance})

    def stop(self) -> None:
        """Begin nothing new, and let `run` end."""
        self._stopping = True
        self._wake.set()

    def change(self, settings: SnapshotterSettings) -> None:
        """Other apps, or other wishes of them."""
        self._settings = settings
        for table in self._tables.values():
            table.work.wish = settings.tables.get(table.lane.topic, TableWish(name=table.lane.topic))
        self._look.set()
        self._wake.set()

    async def run(self) -> None:
        """Work until there is nothing to do, or until `stop`.

        Raises:
            FencedError: fatal; another instance of this name has begun.
        """
        loop = asyncio.get_running_loop()
        await self._call(self._open_writer)
        await self._discover_first()
        helpers = [loop.create_task(work) for work in (self._listen(), self._look_around(), self._collect())]
        for helper in helpers:  # without one of them Tables would rest for ever, and nobody be told
            helper.add_done_callback(self._done)
        try:
            await self._work()
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            await asyncio.gather(*self._running, return_exceptions=True)
            self._watch.close()
            self._threads.shutdown(wait=False, cancel_futures=True)
            with contextlib.suppress(TailraceError):
                if self._sharing is not None:
                    await asyncio.to_thread(self._sharing.leave)
                if self._writer is not None:
                    await asyncio.to_thread(self._writer.close)
        if self._failure is not None:
            raise self._failure

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        idle_since_s: float | None = None
        while not self._stopping and self._failure is None:
            self._wake.clear()
            wait_s = self._begin_due()
            busy = bool(self._running) or any(table.since_ms is not None for table in self._mine())
            idle_since_s = None if busy else idle_since_s or loop.time()
            limit = self._settings.idle_exit
            if idle_since_s is not None and limit is not None:
                left_s = idle_since_s + limit.total_seconds() - loop.time()
                if left_s <= 0:
                    return
                wait_s = min(wait_s, left_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_s)

    def _mine(self) -> list[_Table]:
        if len(self._instances) == 1:
            return list(self._tables.values())
        me = self._settings.instance
        return [table for key, table in self._tables.items() if owner(key, self._instances) == me]

    # -- what is due ----------------------------------------------------------------------------------------------

    def _begin_due(self) -> float:
        """Begin what is due while threads are free; returns after how many seconds to look again."""
        now_ms = self._runtime.clock.now_ms()
        wait_ms = 60_000
        due: list[_Table] = []
        for table in self._mine():
            if table.running or (table.since_ms is None and not table.work.damaged):
                continue
            at_ms = table.again_ms
            if not table.work.damaged and table.since_ms is not None:
                at_ms = max(at_ms, due_ms(table.work.news(table.since_ms, table.end), self._settings))
            if at_ms <= now_ms:
                due.append(table)
            else:
                wait_ms = min(wait_ms, at_ms - now_ms)
        due.sort(key=lambda table: table.worked_s)
        for table in due[: self._settings.threads_max - len(self._running)]:
            table.running = True
            task = asyncio.get_running_loop().create_task(self._turn(table))
            self._running.add(task)
            task.add_done_callback(self._done)
        return wait_ms / 1000

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error
        self._wake.set()

    async def _turn(self, table: _Table) -> None:
        loop = asyncio.get_running_loop()
        began_ms = self._runtime.clock.now_ms()
        try:
            at_end = await loop.run_in_executor(self._threads, table.work.step)
        except FatalError:
            raise
        except Exception as error:
            await self._failed(table, error)
        else:
            table.failures = 0
            self._say(table, None)
            table.end = max(table.end, table.work.place)
            if at_end and table.end <= table.work.place:
                table.since_ms = None
            elif at_end:  # they came while the step went on
                table.since_ms = max(table.since_ms or 0, began_ms)
        finally:
            table.running = False
            table.worked_s = loop.time()

    async def _failed(self, table: _Table, error: Exception) -> None:
        """Let the table rest, and begin it anew from what log and lake say."""
        table.failures += 1
        table.again_ms = self._runtime.clock.now_ms() + pause_ms(table.failures, self._settings)
        text = f"{error}" if isinstance(error, TailraceError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, TailraceError) and text != table.trouble:
            _log.error("%s", table.lane.key, exc_info=error)
        # A rival or a log that is away for a moment is nothing that people must know.
        if not (
            isinstance(error, LakeConflictError | LogUnavailableError | OutcomeUnknownError) and table.failures < 3
        ):
            self._say(table, text)
        with contextlib.suppress(TailraceError):
            if isinstance(error, OutcomeUnknownError):
                await asyncio.to_thread(self._open_writer)
            (table.work,) = (await self._works([table.lane])).values()

    def _say(self, table: _Table, trouble: str | None) -> None:
        if trouble != table.trouble:
            table.trouble = trouble
            self._tell({"type": "trouble", "table": table.lane.key, "error": trouble})

    # -- what there is --------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            rung = await self._watch.wait()
            try:
                ends = await asyncio.to_thread(lambda news=list(rung): self._log.ends(news))  # type: ignore[misc]
            except FatalError:
                raise
            except TailraceError:
                await asyncio.sleep(1)
                self._watch.add([each for each in rung if lane_of(*each) in self._tables])  # one may be gone meanwhile
                continue
            now_ms = self._runtime.clock.now_ms()
            for partition, end in ends.items():
                table = self._tables.get(lane_of(*partition))
                if table is not None and end > table.end:
                    table.end = end
                    if table.since_ms is None:
                        table.since_ms = now_ms
            self._wake.set()
            await asyncio.sleep(_LISTEN_PAUSE_S)

    async def _look_around(self) -> None:
        """Find topics that are new, and instances that came or went, now and then."""
        while True:
            try:
                await self._discover()
                if self._sharing is not None:
                    now_ms = self._runtime.clock.now_ms()
                    self._instances = await asyncio.to_thread(self._sharing.beat, now_ms)
                self._wake.set()
            except FatalError:
                raise
            except TailraceError as error:  # a broker that goes away during a heartbeat leaves its outcome unknown
                _log.warning("%s; trying again", error)
            pause = self._settings.discover_interval
            if self._sharing is not None:
                pause = min(pause, self._settings.share_timeout / 3)
            self._look.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), pause.total_seconds())

    async def _collect(self) -> None:
        """Let go of what is old, now and then; tables that have news come first."""
        while True:
            await asyncio.sleep(_ROUNDS_PAUSE_S)
            for graph in self._settings.graphs:
                if len(self._instances) > 1 and owner(graph, self._instances) != self._settings.instance:
                    continue
                try:
                    await asyncio.to_thread(
                        collect_when_due, self._log, self._location, self._settings, self._runtime, graph
                    )
                except Exception as error:
                    self._tell({"type": "trouble", "table": f"{graph}: retention", "error": str(error)})
                else:
                    self._tell({"type": "trouble", "table": f"{graph}: retention", "error": None})

    async def _discover_first(self) -> None:
        """Know the tables before it is told whether there is anything to do."""
        known = False
        while not known and not self._stopping:
            try:
                await self._discover()
                known = True
            except RetriableError as error:
                _log.warning("%s; trying again", error)
                await asyncio.sleep(1)

    async def _discover(self) -> None:
        found = await asyncio.to_thread(table_lanes, self._log, self._settings.graphs)
        for key in [key for key, table in self._tables.items() if found.get(key) != table.lane]:
            if not self._tables[key].running:
                self._watch.remove([self._tables.pop(key).lane.partition])
        new = [lane for key, lane in found.items() if key not in self._tables]
        if not new:
            return
        ends = await asyncio.to_thread(self._log.ends, [lane.partition for lane in new])
        for key, work in (await self._works(new)).items():
            table = _Table(work.lane, work, end=ends[work.lane.partition])
            if work.place < table.end:
                table.since_ms = await asyncio.to_thread(work.first_ms, table.end)
            self._tables[key] = table
        self._watch.add([lane.partition for lane in new])

    async def _works(self, lanes: Sequence[TableLane]) -> dict[str, TableWork]:
        return await asyncio.to_thread(self._load, lanes)

    def _load(self, lanes: Sequence[TableLane]) -> dict[str, TableWork]:
        """The tables as index and group tell them."""
        places = self._log.places(GROUP, [lane.partition for lane in lanes])
        by_graph: dict[str, dict[str, TableLane]] = {}
        for lane in lanes:
            by_graph.setdefault(lane.topic.partition(".")[0], {})[lane.key] = lane
        entries: dict[str, IndexEntry] = {}
        self._log.create_topics([TopicSpec(index_partition(f"{graph}.").topic, compacted=True) for graph in by_graph])
        for graph, some in by_graph.items():
            entries |= read_index(self._log, graph, some)
        return {
            lane.key: TableWork(
                self._log,
                lane,
                self._location,
                self._settings,
                self._runtime,
                entry=entries.get(lane.key, IndexEntry()),
                place=place.offset if (place := places.get(lane.partition)) is not None else None,
                save=self._save,
                lost=lambda key, text: self._tell({"type": "lost", "table": key, "text": text}),
            )
            for lane in lanes
        }

    # -- what is written ------------------------------------------------------------------------------------------

    def _save(self, lane: TableLane, place: int, records: Sequence[NewRecord]) -> None:
        """Commit a lane's place and index records in one transaction; called by the tables' threads."""
        with self._writing:
            writer = self._open()
            try:
                writer.commit(
                    [Append(index_partition(lane.topic), records)] if records else [],
                    {GROUP: {lane.partition: Place(Offset(place))}},
                )
            except OutcomeUnknownError:  # it is good for nothing any more, and others wait here already
                self._writer = None
                writer.close()
                raise

    def _open_writer(self) -> None:
        with self._writing:
            self._open()

    def _open(self) -> Writer:
        """The writer, opened where there is none; `_writing` is the caller's."""
        self._writer = self._writer or self._log.open_writer(f"snapshotter-{self._settings.instance}")
        return self._writer

    async def _call(self, function: Callable[[], T]) -> T:
        """A call of the log; tried again for as long as it is away."""
        while True:
            try:
                return await asyncio.to_thread(function)
            except RetriableError as error:
                _log.warning("%s; trying again", error)
                await asyncio.sleep(1)
