"""What has run and what it said: kept in memory for those who ask, and written to the app's journal topic.

The journal is no part of any run's transaction: losing its last second in a crash loses no data. Quiet runs of a hot
node are folded into one entry a second, so that a stream of small runs does not bury its app in its own history.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import orjson

from tailrace.errors import TailraceError
from tailrace.log import Log, NewRecord, Offset, Partition
from tailrace.runtime import Clock
from tailrace.tables import rows_message

__all__ = ["Journal", "LogLine", "RunEntry"]

RUNS_MAX = 2_000
LINES_MAX = 10_000
FLUSH_S = 1.0


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
    try_number: int = 1
    covers: int = 0
    """Pieces of news that this run answers."""
    error: str | None = None
    traceback: str | None = None
    read: dict[str, int] = field(default_factory=dict)
    """The cut: table -> next offset."""


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


Entry = RunEntry | LogLine


class Journal:
    """Runs and lines of all apps of a host."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._runs: deque[RunEntry] = deque(maxlen=RUNS_MAX)
        self._lines: deque[LogLine] = deque(maxlen=LINES_MAX)
        self._listeners: list[Callable[[Entry], None]] = []
        self._topics: dict[str, Partition] = {}
        self._waiting: dict[str, list[Entry]] = {}
        self._flusher: asyncio.TimerHandle | None = None
        self._flushing: set[asyncio.Task[None]] = set()

    async def load(self, graph: str, topic: str) -> None:
        """Begin to write the journal of `graph` to `topic`, and read what its end holds."""
        partition = self._topics[graph] = Partition(topic)
        for entry in await asyncio.to_thread(self._tail, partition):
            if isinstance(entry, RunEntry):
                self._runs.append(entry)
            else:
                self._lines.append(entry)

    def _tail(self, partition: Partition) -> list[Entry]:
        try:
            start = self._log.starts([partition])[partition]
            end = self._log.ends([partition])[partition]
            batch = self._log.read(partition, Offset(max(start, end - 200)), stop=end, records_max=200)
        except TailraceError:
            return []
        entries: list[Entry] = []
        for record in batch.records:
            with contextlib.suppress(orjson.JSONDecodeError, TypeError, KeyError):
                for row in orjson.loads(record.value or b"{}")["rows"]:
                    kind = row.pop("type")
                    entries.append(RunEntry(**row) if kind == "run" else LogLine(**row))
        return entries

    def add(self, entry: Entry) -> None:
        """Keep `entry`, tell the listeners, and write it within a second."""
        if isinstance(entry, RunEntry):
            self._runs.append(entry)
        else:
            self._lines.append(entry)
        for listener in self._listeners:
            listener(entry)
        waiting = self._waiting.setdefault(entry.graph, [])
        last = waiting[-1] if waiting else None
        if _foldable(entry) and last is not None and _foldable(last) and last.node == entry.node:
            assert isinstance(last, RunEntry) and isinstance(entry, RunEntry)
            waiting[-1] = _folded(last, entry)
        else:
            waiting.append(entry)
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().call_later(FLUSH_S, self._start_flush)

    def listen(self, listener: Callable[[Entry], None]) -> Callable[[], None]:
        """Call `listener` with each new entry; returns what ends that."""
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

    async def follow(self) -> AsyncIterator[Entry]:
        """Entries as they come."""
        queue: asyncio.Queue[Entry] = asyncio.Queue(maxsize=LINES_MAX)

        def put(entry: Entry) -> None:
            if not queue.full():  # a reader this slow misses some, rather than hold the host back
                queue.put_nowait(entry)

        stop = self.listen(put)
        try:
            while True:
                yield await queue.get()
        finally:
            stop()

    def _start_flush(self) -> None:
        self._flusher = None
        task = asyncio.get_running_loop().create_task(self.flush())
        self._flushing.add(task)
        task.add_done_callback(self._flushing.discard)

    async def flush(self) -> None:
        """Write what waits. What cannot be written now (the log is away) stays in memory only."""
        waiting, self._waiting = self._waiting, {}
        for graph, entries in waiting.items():
            partition = self._topics.get(graph)
            if partition is None:
                continue
            rows = [asdict(entry) for entry in entries]
            head = {"kind": "rows", "ts": self._clock.now_ms(), "n": len(rows)}
            record = NewRecord(rows_message(head, orjson.dumps(rows)))
            with contextlib.suppress(TailraceError):
                await asyncio.to_thread(self._log.append, partition, [record])

    async def close(self) -> None:
        """Write what waits and stop."""
        if self._flusher is not None:
            self._flusher.cancel()
        await self.flush()
        if self._flushing:
            await asyncio.wait(self._flushing, timeout=1)


def _foldable(entry: Entry) -> bool:
    return isinstance(entry, RunEntry) and entry.kind == "ok"


def _folded(first: RunEntry, second: RunEntry) -> RunEntry:
    values: dict[str, Any] = {name: getattr(second, name) for name in RunEntry.__slots__}
    for name in ("runs", "rows_in", "rows_out", "duration_ms", "covers"):
        values[name] = getattr(first, name) + getattr(second, name)
    return RunEntry(**{**values, "started_ms": first.started_ms})
