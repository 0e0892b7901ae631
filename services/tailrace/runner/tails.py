"""The newest part of each Table as the host knows it: its fold, and its last records in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias

from tailrace.log import Batch, Log, Offset, Partition, Record, TopicInfo
from tailrace.runner.settings import RunnerSettings
from tailrace.tables import TableFold, VersionView

__all__ = ["CallLog", "Pin", "TableTail", "sendable"]

CallLog: TypeAlias = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a call of the log off the event loop, again and again while the log is away."""


class Pin(NamedTuple):
    """A table as of a cut: what one run reads of it."""

    cut: int
    view: VersionView | None
    """The active version."""


class _Piece(NamedTuple):
    start: int
    batch: Batch
    data_bytes: int


class TableTail:
    """The fold of one table's topic, moved on as its log grows, with the newest records kept for streams."""

    def __init__(self, log: Log, info: TopicInfo, table: str, settings: RunnerSettings, call: CallLog) -> None:
        self.info = info
        self.table = table
        self.partition = Partition(info.name, 0)
        self.fold = TableFold(table)
        self._log = log
        self._settings = settings
        self._call = call
        self._lock = asyncio.Lock()
        self._pieces: deque[_Piece] = deque()
        self._pieces_bytes = 0

    async def advance(self, *, until: int | None = None) -> bool:
        """Fold what is new, up to the log's end, or until the fold is at or past `until`; True when at the end."""
        async with self._lock:
            end = await self._end()
            while self.fold.position < end and (until is None or self.fold.position < until):
                start = self.fold.position
                batch = await self._read(start, end)
                await asyncio.to_thread(self._fold, batch)
                self._keep(start, batch)
                if batch.next <= start:
                    break
            return self.fold.position >= end

    async def pin(self) -> Pin:
        """The table as of the fold's position."""
        async with self._lock:
            return Pin(self.fold.position, self.fold.view())

    async def saved(self) -> dict[str, object]:
        """The fold for an index, with the topic's birth: a topic made again must not be taken for the old one."""
        async with self._lock:
            return {**self.fold.to_json(), "born_ms": self.info.born_ms}

    async def views(self, cut: int) -> list[VersionView]:
        """The versions that were begun before `cut`, oldest first."""
        async with self._lock:
            views = [version.view(self.fold.position) for version in self.fold.versions.values()]
        return [view.before(cut) for view in views if view.segments[0][0] < cut]

    async def scan(self, start: int, stop: int, records_max: int) -> Batch:
        """Committed records with `start <= offset < stop`, from memory where they are there."""
        for piece in self._pieces:
            if piece.start <= start < piece.batch.next:
                return self._cut(piece.batch, start, stop, min(records_max, self._settings.scan_records_max))
        return await self._read(start, stop, records_max)

    async def _end(self) -> int:
        ends: dict[Partition, Offset] = await self._call(lambda: self._log.ends([self.partition]))
        return ends[self.partition]

    async def _read(self, start: int, stop: int, records_max: int | None = None) -> Batch:
        settings = self._settings
        batch: Batch = await self._call(
            lambda: self._log.read(
                self.partition,
                Offset(start),
                stop=Offset(stop),
                records_max=min(records_max or settings.scan_records_max, settings.scan_records_max),
                bytes_max=settings.scan_bytes_max,
            )
        )
        return batch

    def _fold(self, batch: Batch) -> None:
        self.fold.advance(((record.offset, record.ts_ms, record.value) for record in batch.records), batch.next)

    def _keep(self, start: int, batch: Batch) -> None:
        size = sum(len(record.value or b"") for record in batch.records) + 200 * len(batch.records)
        self._pieces.append(_Piece(start, batch, size))
        self._pieces_bytes += size
        while self._pieces_bytes > self._settings.tail_bytes_max:
            self._pieces_bytes -= self._pieces.popleft().data_bytes

    def _cut(self, batch: Batch, start: int, stop: int, records_max: int) -> Batch:
        records = batch.records
        if records and (records[0].offset < start or records[-1].offset >= stop):
            records = [record for record in records if start <= record.offset < stop]
        if len(records) > records_max:
            records = records[:records_max]
            return Batch(records, Offset(records[-1].offset + 1))
        return Batch(records, Offset(min(batch.next, stop)))


def sendable(records: list[Record]) -> tuple[dict[str, list[int]], bytes]:
    """Records as a `scan` reply's header and payload; tombstones are left out (no reader shows them)."""
    values = [(record, record.value) for record in records if record.value is not None]
    header = {
        "offsets": [int(record.offset) for record, _ in values],
        "ts_ms": [record.ts_ms for record, _ in values],
        "sizes": [len(value) for _, value in values],
    }
    return header, b",".join([value for _, value in values])
