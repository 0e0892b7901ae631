"""The messages of one topic: those that were just read from memory, the others from the log."""

from __future__ import annotations

from collections.abc import Iterator

from tailrace.log import Batch, Log, Offset, Partition, scan
from tailrace.tables import Messages

__all__ = ["RecentSource"]


class RecentSource:
    """A `MessageSource` that need not read again what has just been folded.

    Args:
        kept_bytes_max: messages over it are not kept; they are read from the log when they are asked for.
    """

    def __init__(self, log: Log, partition: Partition, kept_bytes_max: int) -> None:
        self._log = log
        self._partition = partition
        self._kept_bytes_max = kept_bytes_max
        self._pieces: list[tuple[int, int, Messages]] = []
        self.read_bytes = 0
        self.read_records = 0

    def keep(self, start: int, batch: Batch) -> None:
        """Take in what a read from `start` on gave; the next one begins where this ends."""
        messages = Messages.of(batch.records)
        self.read_bytes += len(messages.joined)
        self.read_records += len(batch.records)
        end = self._pieces[-1][1] if self._pieces else start
        if self.read_bytes <= self._kept_bytes_max and end == start:
            self._pieces.append((start, batch.next, messages))

    def scan(self, start: int, stop: int) -> Iterator[Messages]:
        """The messages with `start <= offset < stop`."""
        for first, next_offset, messages in self._pieces:
            if start >= stop:
                return
            if next_offset <= start:
                continue
            if start < first:
                yield from self._from_log(start, min(first, stop))
                start = first
            if start < stop:
                yield messages.between(start, stop)
                start = next_offset
        if start < stop:
            yield from self._from_log(start, stop)

    def _from_log(self, start: int, stop: int) -> Iterator[Messages]:
        for batch in scan(self._log, self._partition, Offset(start), Offset(stop)):
            yield Messages.of(batch.records)
