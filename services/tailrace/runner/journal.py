"""What has run and what it said: kept in memory for those who ask, and written to the app's journal topic.

The journal is no part of any run's transaction: losing its last second in a crash loses no data. Quiet runs of a hot
node are folded into one entry a second, so that a stream of small runs does not bury its app in its own history.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal

import orjson

from tailrace.errors import RejectedError, TailraceError
from tailrace.log import Log, NewRecord, Offset, Partition, Record, scan
from tailrace.runner.moments import first_after
from tailrace.runtime import Clock
from tailrace.tables import rows_message

__all__ = ["Journal", "LogLine", "RunEntry", "UnknownRunError", "has_run", "journal_topic"]

RUNS_MAX = 2_000
LINES_MAX = 10_000
FLUSH_S = 1.0

BEGAN_BYTES_MAX = 256 << 10
"""Most bytes of a run's State in the journal. A larger one would be most of the log, as it is there once a second; such
a run can be looked at, but not run again with its State."""

RECORD_BYTES = 1 << 20
"""About how much goes into one record of the journal."""

SEARCH_RECORDS = 200
"""Records of the journal that are read at once."""

LINEAGE_RECORDS = 5_000
"""Records of the journal in which the neighbours of a run are looked for: an hour and more of a busy app."""

AROUND_MS = (30_000, 60_000)
"""How long before and after a moment runs may be committed that have part in it: one is written down a second after
its end, and several of a hot node within a second are one entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEntry:
    """One run, or several quiet ones of one node within a second."""

    type: Literal["run"] = "run"
    run: str
    graph: str
    node: str
    title: str
    reasons: tuple[str, ...]
    kind: str
    """`ok`, `failed`, `timed_out`, `died`."""
    started_ms: int
    duration_ms: int
    rows_in: int = 0
    rows_out: int = 0
    runs: int = 1
    first_run: str = ""
    """The first of them; `run` is the last."""
    try_number: int = 1
    covers: int = 0
    """Pieces of news that this run answers."""
    fire_ms: int | None = None
    """The scheduled time that it ran for."""
    trigger: int | None = None
    """The newest request that it answered: its offset in the app's triggers topic."""
    error: str | None = None
    traceback: str | None = None
    read: dict[str, int] = field(default_factory=dict)
    """The cut: table -> next offset."""
    wrote: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Table -> the range of offsets (half-open) in which its rows lie; others may have written there as well."""
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Table -> (offset, row) where its streams went on."""
    again: bool = False
    """A body was dropped, to be handed out again: `rows_in` is without its row."""
    version: str = ""
    """The node's: it changes with code, parameters and wiring."""
    code: str = ""
    """The folder of the app's files, below those of the app."""
    cpu_ms: int | None = None
    """CPU time of its worker; None where nobody knows, as of one that died."""
    memory_bytes: int | None = None
    """Most memory that its worker had in use."""
    host: str = ""
    """Which host ran it."""
    began: dict[str, Any] | None = None
    """`state` and `orders` as the run found them. Written to the journal's topic, not kept in memory; None where they
    have more than `BEGAN_BYTES_MAX`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line that a run printed, or that we say about it (`stream` is `stdout`, `stderr` or `tailrace`)."""

    type: Literal["line"] = "line"
    run: str
    graph: str
    node: str
    title: str
    at_ms: int
    stream: str
    text: str
    host: str = ""


Entry = RunEntry | LogLine


class UnknownRunError(RejectedError):
    """The app's journal has no such run."""

    def __init__(self, graph: str, run: str) -> None:
        self.graph, self.run = graph, run
        super().__init__(f"app {graph!r} has no run {run!r}; `tailrace runs` lists the newest")


def journal_topic(graph: str) -> str:
    """Name of the topic of an app's journal: runs and their output."""
    return f"{graph}._runs"


class Journal:
    """Runs and lines of all apps of a host, and what other hosts write into the journals of the same apps.

    Args:
        host: names this host in what it writes; no two that live have the same.
    """

    def __init__(self, log: Log, clock: Clock, host: str = "") -> None:
        self._log = log
        self._clock = clock
        self._host = host
        self._runs: deque[RunEntry] = deque(maxlen=RUNS_MAX)
        self._lines: deque[LogLine] = deque(maxlen=LINES_MAX)
        self._listeners: list[Callable[[Entry], None]] = []
        self._others: list[Callable[[Entry], None]] = []
        self._read: dict[Partition, Offset] = {}
        """How far each journal was read, or written by us."""
        self._watch = log.watch()
        self._topics: dict[str, Partition] = {}
        self._waiting: dict[str, list[Entry]] = {}
        self._folding: dict[tuple[str, str], int] = {}
        """By app and slot: which of those that wait its next quiet run is folded into."""
        self._flusher: asyncio.TimerHandle | None = None
        self._flushing: set[asyncio.Task[None]] = set()

    async def load(self, graph: str, topic: str, records_max: int = SEARCH_RECORDS) -> None:
        """Begin to write the journal of `graph` to `topic`, and read what its last `records_max` records hold."""
        if graph in self._topics:
            return
        partition = self._topics[graph] = Partition(topic)
        for entry in await asyncio.to_thread(self._tail, partition, records_max):
            if isinstance(entry, RunEntry):
                self._runs.append(entry)
            else:
                self._lines.append(entry)
        self._watch.add([partition])

    def _tail(self, partition: Partition, records_max: int) -> list[Entry]:
        try:
            start = self._log.starts([partition])[partition]
            end = self._log.ends([partition])[partition]
            self._read[partition] = end
            batches = list(scan(self._log, partition, Offset(max(start, end - records_max)), end))
        except TailraceError:
            return []
        return [_light(entry) for batch in batches for record in batch.records for entry in _entries(record)]

    async def look_up(self, graph: str, run: str) -> RunEntry:
        """A run by itself where it is in memory, else as `find`."""
        known = next((entry for entry in reversed(self._runs) if (entry.graph, entry.run) == (graph, run)), None)
        return known or await self.find(graph, run)

    async def find(self, graph: str, run: str) -> RunEntry:
        """A run with all that is known of it, from the journal's topic; for one of several that are one entry, that
        entry: what they read and wrote together, and what the first of them began with.

        Raises:
            UnknownRunError: rejected; the journal has no such run.
        """
        await self.flush()
        found = await asyncio.to_thread(self._search, self._topics[graph], run)
        if found is None:
            raise UnknownRunError(graph, run)
        return found

    def _search(self, partition: Partition, run: str) -> RunEntry | None:
        start, stop = self._log.starts([partition])[partition], self._log.settled_ends([partition])[partition]
        while stop > start:
            first = Offset(max(start, stop - SEARCH_RECORDS))
            for batch in scan(self._log, partition, first, stop):
                for record in batch.records:
                    for entry in _entries(record):
                        if isinstance(entry, RunEntry) and has_run(entry, run):
                            return entry
            stop = first
        return None

    async def all_runs(self, graph: str) -> list[RunEntry]:
        """The runs of the journal's last `LINEAGE_RECORDS` records, oldest first."""
        await self.flush()
        return await asyncio.to_thread(self._newest_runs, self._topics[graph])

    def _newest_runs(self, partition: Partition) -> list[RunEntry]:
        start, end = self._log.starts([partition])[partition], self._log.settled_ends([partition])[partition]
        first = Offset(max(start, end - LINEAGE_RECORDS))
        return [
            entry
            for batch in scan(self._log, partition, first, end)
            for record in batch.records
            for entry in _entries(record)
            if isinstance(entry, RunEntry)
        ]

    async def read_others(self) -> None:
        """Take in what other hosts write, for as long as this one lives: any host tells of all runs."""
        while True:
            for partition in await self._watch.wait():
                with contextlib.suppress(TailraceError):
                    for entry in await asyncio.to_thread(self._news, partition):
                        self._keep(entry)
                        for listener in self._others:
                            listener(entry)

    def _news(self, partition: Partition) -> list[Entry]:
        start = self._read.get(partition)
        if start is None:
            return []
        found: list[Entry] = []
        end = self._log.ends([partition])[partition]
        start = max(start, self._log.starts([partition])[partition])
        for batch in scan(self._log, partition, start, end):
            found += [_light(each) for record in batch.records for each in _entries(record) if each.host != self._host]
            self._read[partition] = max(self._read[partition], batch.next)
        return found

    async def positions_before(self, graph: str, at_ms: int, tables: Collection[str]) -> dict[str, int]:
        """Where tables stood for the last runs that read or wrote them and were written down by a moment."""
        await self.flush()
        return await asyncio.to_thread(self._positions, self._topics[graph], at_ms, set(tables))

    def _positions(self, partition: Partition, at_ms: int, wanted: set[str]) -> dict[str, int]:
        start, end = self._log.starts([partition])[partition], self._log.settled_ends([partition])[partition]
        stop = first_after(self._log, partition, start, end, at_ms)
        found: dict[str, int] = {}
        while stop > start and len(found) < len(wanted):
            first = Offset(max(start, stop - SEARCH_RECORDS))
            here: dict[str, int] = {}
            for batch in scan(self._log, partition, first, stop):
                for entry in chain.from_iterable(map(_entries, batch.records)):
                    if isinstance(entry, RunEntry):
                        for table, position in (
                            *entry.read.items(),
                            *((t, end) for t, (_, end) in entry.wrote.items()),
                        ):
                            here[table] = max(here.get(table, 0), position)
            found = {**{table: at for table, at in here.items() if table in wanted}, **found}
            stop = first
        return found

    async def runs_around(self, graph: str, at_ms: int) -> list[RunEntry]:
        """Runs that were committed about a moment, oldest first."""
        await self.flush()
        return await asyncio.to_thread(self._around, self._topics[graph], at_ms)

    def _around(self, partition: Partition, at_ms: int) -> list[RunEntry]:
        low, end = self._log.starts([partition])[partition], self._log.settled_ends([partition])[partition]
        start = first_after(self._log, partition, low, end, at_ms - AROUND_MS[0])
        found: list[RunEntry] = []
        for batch in scan(self._log, partition, start, end):
            for record in batch.records:
                if record.ts_ms > at_ms + AROUND_MS[1]:
                    return found
                found += [entry for entry in _entries(record) if isinstance(entry, RunEntry)]
        return found

    def add(self, entry: Entry) -> None:
        """Keep `entry`, tell the listeners, and write it within a second."""
        entry = replace(entry, host=self._host)
        light = _light(entry)
        self._keep(light)
        for listener in (*self._listeners, *self._others):
            listener(light)
        waiting = self._waiting.setdefault(entry.graph, [])
        place = self._folding.pop((entry.graph, slot_of(entry.run)), None)
        if place is not None and _foldable(entry):
            last = waiting[place]
            assert isinstance(last, RunEntry) and isinstance(entry, RunEntry)
            waiting[place] = _folded(last, entry)
        else:
            place = len(waiting)
            waiting.append(entry)
        if _foldable(entry):
            self._folding[entry.graph, slot_of(entry.run)] = place
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().call_later(FLUSH_S, self._start_flush)

    def _keep(self, entry: Entry) -> None:
        if isinstance(entry, RunEntry):
            self._runs.append(entry)
        else:
            self._lines.append(entry)

    def listen(self, listener: Callable[[Entry], None]) -> Callable[[], None]:
        """Call `listener` with each new entry of this host; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def runs(self, *, node: str | None = None, kind: str | None = None, last: int = 50) -> list[RunEntry]:
        """The newest runs, oldest first."""
        found = [
            entry
            for entry in self._runs
            if (node is None or node in (entry.node, entry.title)) and (kind is None or kind == entry.kind)
        ]
        return found[-last:]

    def lines(self, *, node: str | None = None, run: str | None = None, last: int = 200) -> list[LogLine]:
        """The newest lines, oldest first."""
        found = [
            line
            for line in self._lines
            if (node is None or node in (line.node, line.title)) and (run is None or run == line.run)
        ]
        return found[-last:]

    async def follow(self) -> AsyncGenerator[Entry, None]:
        """Entries as they come, those of other hosts too (a second or so later)."""
        queue: asyncio.Queue[Entry] = asyncio.Queue(maxsize=LINES_MAX)

        def put(entry: Entry) -> None:
            if not queue.full():  # a reader this slow misses some, rather than hold the host back
                queue.put_nowait(entry)

        self._others.append(put)
        try:
            while True:
                yield await queue.get()
        finally:
            self._others.remove(put)

    def _start_flush(self) -> None:
        self._flusher = None
        task = asyncio.get_running_loop().create_task(self.flush())
        self._flushing.add(task)
        task.add_done_callback(self._flushing.discard)

    async def flush(self) -> None:
        """Write what waits. What cannot be written now (the log is away) stays in memory only."""
        waiting, self._waiting = self._waiting, {}
        self._folding = {}
        for graph, entries in waiting.items():
            partition = self._topics.get(graph)
            if partition is None:
                continue
            records = [
                NewRecord(rows_message({"kind": "rows", "ts": self._clock.now_ms(), "n": len(rows)}, body))
                for rows, body in _bodies(entries)
            ]
            with contextlib.suppress(TailraceError):
                written = await asyncio.to_thread(self._log.append, partition, records)
                if self._read.get(partition) == written.start:  # nobody wrote in between: we need not read it
                    self._read[partition] = written.stop

    async def close(self) -> None:
        """Write what waits and stop."""
        if self._flusher is not None:
            self._flusher.cancel()
        await self.flush()
        if self._flushing:
            await asyncio.wait(self._flushing, timeout=1)
        self._watch.close()


def slot_of(run: str) -> str:
    """The slot that a run is of."""
    return run.rpartition("#")[0]


def _foldable(entry: Entry) -> bool:
    """Whether `entry` may become one with others of its slot: what was asked for, or ran on a schedule, stands by itself."""
    return isinstance(entry, RunEntry) and entry.kind == "ok" and entry.fire_ms is None and entry.trigger is None


def _folded(first: RunEntry, second: RunEntry) -> RunEntry:
    values: dict[str, Any] = {name: getattr(second, name) for name in RunEntry.__slots__}
    for name in ("runs", "rows_in", "rows_out", "duration_ms", "covers"):
        values[name] = getattr(first, name) + getattr(second, name)
    values["cpu_ms"] = None if None in (first.cpu_ms, second.cpu_ms) else first.cpu_ms + second.cpu_ms  # type: ignore[operator]
    values["memory_bytes"] = max(each.memory_bytes or 0 for each in (first, second)) or None
    values["reasons"] = tuple(dict.fromkeys((*first.reasons, *second.reasons)))
    for name in ("started_ms", "places", "began"):
        values[name] = getattr(first, name)
    values["first_run"] = first.first_run or first.run
    values["wrote"] = dict(first.wrote)
    for table, (start, stop) in second.wrote.items():
        values["wrote"][table] = (first.wrote.get(table, (start, stop))[0], stop)
    return RunEntry(**values)


def has_run(entry: RunEntry, run: str) -> bool:
    """Whether an entry is of this run: the numbers of a node's runs grow."""
    if entry.run == run or not entry.first_run:
        return entry.run == run
    (name, _, number), (own, _, last) = run.rpartition("#"), entry.run.rpartition("#")
    first = entry.first_run.rpartition("#")[2]
    numbers = (first, number, last)
    return name == own and all(each.isdecimal() for each in numbers) and int(first) <= int(number) <= int(last)


def _light(entry: Entry) -> Entry:
    """An entry as it is kept in memory."""
    return replace(entry, began=None) if isinstance(entry, RunEntry) and entry.began is not None else entry


def _entries(record: Record) -> list[Entry]:
    """The entries of a record of the journal; what is no entry is passed over."""
    entries: list[Entry] = []
    with contextlib.suppress(orjson.JSONDecodeError, TypeError, KeyError, ValueError):
        for row in orjson.loads(record.value or b"{}")["rows"]:
            if row.pop("type") == "line":
                entries.append(LogLine(**row))
                continue
            for name in ("wrote", "places"):
                row[name] = {table: (first, second) for table, (first, second) in row.get(name, {}).items()}
            entries.append(RunEntry(**row))
    return entries


def _bodies(entries: Sequence[Entry]) -> Iterator[tuple[list[bytes], bytes]]:
    """Entries as the rows of messages of bounded size."""
    waiting: list[bytes] = []
    size = 0
    for entry in entries:
        row = orjson.dumps(entry)
        if len(row) > BEGAN_BYTES_MAX:
            row = orjson.dumps(_light(entry))
        if waiting and size + len(row) > RECORD_BYTES:
            yield waiting, b"[" + b",".join(waiting) + b"]"
            waiting, size = [], 0
        waiting.append(row)
        size += len(row)
    if waiting:
        yield waiting, b"[" + b",".join(waiting) + b"]"
