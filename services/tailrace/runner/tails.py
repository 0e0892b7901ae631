"""The newest part of each Table (each lane of it: `tailrace.tables.lanes`) as the host knows it: its fold, and its last records in memory."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, NamedTuple, Protocol, TypeAlias

from tailrace.log import Log, Offset, OffsetGapError, Partition, TopicInfo
from tailrace.runner.settings import RunnerSettings
from tailrace.tables import Messages, TableFold, VersionView

__all__ = ["CallLog", "Pin", "Scanned", "Spawn", "TableTail"]

Spawn: TypeAlias = Callable[[Coroutine[Any, Any, Any]], object]
"""Has work done in the background, for as long as the host is there; what goes wrong in it ends the host."""

SavedFold: TypeAlias = Callable[[], Awaitable[TableFold | None]]
"""Gives the fold of the table that others have brought furthest, None where there is none."""

_log = logging.getLogger(__name__)

_RECORD_BYTES = 150
"""About what a message that is kept takes beside its value: its offset, time and size."""

_ASIDE_MAX = 4
"""Answers of the log (each of `scan_bytes_max`) that are kept for streams that are far behind."""


class CallLog(Protocol):
    """Runs a call of the log off the event loop, again and again while the log is away; in `threads` of its own where it
    may not wait behind other calls."""

    def __call__(self, function: Callable[[], Any], threads: Executor | None = None, /) -> Awaitable[Any]: ...


class Pin(NamedTuple):
    """A table as of a cut: what one run reads of it."""

    cut: int
    view: VersionView | None
    """The active version."""
    begun_ms: int | None = None
    """See `TableFold`."""


class Scanned(NamedTuple):
    """What a scan gave, and the offset where the next one goes on."""

    messages: Messages
    next: int


class _Piece(NamedTuple):
    """What the topic holds from `start` on and before `next`. As it is sent to workers, so that a busy table's records
    are touched once and let go of in large pieces."""

    start: int
    messages: Messages
    next: int

    @property
    def kept_bytes(self) -> int:
        return len(self.messages.joined) + _RECORD_BYTES * len(self.messages.offsets)

    def scan(self, start: int, stop: int, records_max: int) -> Scanned:
        """The messages with `start <= offset < stop`, at most `records_max` of them."""
        found = self.messages.between(start, stop)
        if len(found.offsets) > records_max:
            following = found.offsets[records_max]
            return Scanned(found.between(start, following), following)
        return Scanned(found, min(self.next, stop))


class TableTail:
    """The fold of one table's topic, moved on as its log grows, with the newest records kept for streams.

    Where the log's start lies past the fold, the fold goes on from one that others have saved.
    """

    def __init__(
        self,
        log: Log,
        info: TopicInfo,
        table: str,
        settings: RunnerSettings,
        call: CallLog,
        saved_fold: SavedFold | None = None,
        number: int = 0,
    ) -> None:
        """`number`: the partition that this is the tail of."""
        self.info = info
        self.table = table
        self.partition = Partition(info.name, number)
        self.fold = self.new_fold()
        self._log = log
        self._settings = settings
        self._call = call
        self._saved_fold = saved_fold
        self._start: int | None = None
        self._lock = asyncio.Lock()
        self._folding = threading.Lock()
        """Held while the fold changes: a step goes on in its thread when whoever waits for it is cancelled."""
        self._pin: Pin | None = None
        self._pieces: deque[_Piece] = deque()
        self._pieces_bytes = 0
        self._aside: deque[_Piece] = deque(maxlen=_ASIDE_MAX)
        """What streams that are further behind have read of late."""

    def new_fold(self) -> TableFold:
        """A fold of the table from its start."""
        return TableFold(self.table, self.info.born_ms if self.info.partitions > 1 else None)

    async def advance(self, *, until: int | None = None, settled: bool = False) -> bool:
        """Fold what is new, up to the log's end, or until the fold is at or past `until`; True when at the end.

        `settled`: up to an end that hides nothing. On Kafka a commit of our own shows some milliseconds after it.
        """
        async with self._lock:
            end, moved = await self._advance(await self._settled_end() if settled else None)
            while moved and self.fold.position < end and (until is None or self.fold.position < until):
                end, moved = await self._advance(end)
            return self.fold.position >= end

    async def _settled_end(self) -> int:
        ends: dict[Partition, Offset] = await self._call(lambda: self._log.settled_ends([self.partition]))
        return ends[self.partition]

    async def _advance(self, end: int | None) -> tuple[int, bool]:
        while True:
            try:
                step: tuple[int, _Piece] = await self._call(lambda: self._step(end))
            except OffsetGapError as gap:
                await self._leap(gap.start)
                continue
            known_end, piece = step
            self._keep(piece)
            return known_end, piece.next > piece.start

    async def _leap(self, start: int) -> None:
        """The log begins past the fold: go on from the saved fold, which holds what was trimmed."""
        fold = await self._saved_fold() if self._saved_fold is not None else None
        with self._folding:
            if fold is None or fold.position < self.fold.position:
                fold = self.fold
            if fold.position < start:
                _log.error(
                    "table %r: the log of %s begins at %d, and what its records from %d on said is known to nobody here; "
                    "`tailrace rebuild` finds it in the lake. The table goes on with what the log has",
                    *(self.table, self.info.name, start, fold.position),
                )
                _forget_before(fold, start)
            self.fold, self._pin, self._start = fold, None, start

    async def start(self) -> int:
        """The first offset that was not trimmed; what lies before it is in the lake. May be behind by a moment."""
        if self._start is None:
            starts: dict[Partition, Offset] = await self._call(lambda: self._log.starts([self.partition]))
            self._start = starts[self.partition]
        return self._start

    def trimmed(self) -> None:
        """The log may begin later by now."""
        self._start = None

    async def pin(self) -> Pin:
        """The table as of the fold's position; while the fold goes on, as of the last step that is through."""
        if self._folding.acquire(blocking=False):
            try:
                return self._pinned()
            finally:
                self._folding.release()
        if self._pin is not None:
            return self._pin
        async with self._lock:
            return self._pinned()

    def _pinned(self) -> Pin:
        if self._pin is None or self._pin.cut != self.fold.position:
            self._pin = Pin(self.fold.position, self.fold.view(), self.fold.begun_ms)
        return self._pin

    async def saved(self) -> dict[str, object]:
        """The fold for an index, with the topic's birth: a topic made again must not be taken for the old one."""
        async with self._lock:
            with self._folding:
                return {**self.fold.to_json(), "born_ms": self.info.born_ms}

    async def views(self, cut: int) -> list[VersionView]:
        """The versions that were begun before `cut`, oldest first."""
        async with self._lock:
            with self._folding:
                views = [version.view(self.fold.position) for version in self.fold.versions.values()]
        return [view.before(cut) for view in views if view.segments[0][0] < cut]

    async def scan(self, start: int, stop: int, records_max: int) -> Scanned:
        """Committed messages with `start <= offset < stop`, from memory where they are there.

        Raises:
            OffsetGapError: rejected; some of them were trimmed.
        """
        records_max = min(records_max, self._settings.scan_records_max)
        for pieces in (self._pieces, self._aside):
            for kept in pieces:
                if kept.start <= start < kept.next:
                    return kept.scan(start, stop, records_max)
        # More than is asked for now: a stream goes on where this ends, and asks for it soon.
        try:
            piece: _Piece = await self._call(lambda: self._read_now(start, max(stop, self.fold.position)))
        except OffsetGapError:
            self.trimmed()
            raise
        if len(piece.messages.offsets) > records_max or piece.next > stop:
            self._aside.append(piece)
        return piece.scan(start, stop, records_max)

    def _read_now(self, start: int, stop: int, fold: TableFold | None = None) -> _Piece:
        batch = self._log.read(
            self.partition,
            Offset(start),
            stop=Offset(stop),
            records_max=self._settings.scan_records_max,
            bytes_max=self._settings.scan_bytes_max,
        )
        if fold is not None:
            with self._folding:
                fold.advance(((offset, ts_ms, value) for offset, ts_ms, _, value in batch.records), batch.next)
                self._pinned()
        return _Piece(start, Messages.of(batch.records), batch.next)

    def _step(self, end: int | None) -> tuple[int, _Piece]:
        """Read on and fold, in a thread: one change of threads for all of it. Returns the log's end as it was when
        asked for (where `end` is None), and what there was."""
        start = self.fold.position
        if end is None:
            end = self._log.ends([self.partition])[self.partition]
        if start >= end:
            return end, _Piece(start, Messages.of([]), start)
        return end, self._read_now(start, end, self.fold)

    def _keep(self, piece: _Piece) -> None:
        """Remember a piece. Small ones are joined with the one before as the digits of a binary counter carry: there are
        few of them then, and a message is copied a dozen times at most."""
        if piece.next <= piece.start:
            return
        self._pieces_bytes += piece.kept_bytes
        while self._pieces:
            last, records = self._pieces[-1], len(piece.messages.offsets)
            together = len(last.messages.offsets) + records
            if last.next != piece.start or together > min(self._settings.scan_records_max, 3 * records):
                break
            self._pieces.pop()
            piece = _Piece(last.start, last.messages.then(piece.messages), piece.next)
        self._pieces.append(piece)
        while self._pieces_bytes > self._settings.tail_bytes_max:
            self._pieces_bytes -= self._pieces.popleft().kept_bytes


def _forget_before(fold: TableFold, start: int) -> None:
    """Let a fold go on at `start`, its versions without the rows before it."""
    fold.position = start
    for name, version in list(fold.versions.items()):
        version.segments = [
            (max(first, start), stop) for first, stop in version.segments if stop is None or stop > start
        ]
        version.repeats = [at for at in version.repeats if at >= start]
        if not version.segments:
            del fold.versions[name]
