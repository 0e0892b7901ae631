"""A reader of a topic that notes when it saw each record."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence

from tailrace.log import Log, NewRecord, Offset, Partition, TopicSpec

__all__ = ["TopicReader", "fill"]

_ROWS = re.compile(rb'"n":(\d+)')


class TopicReader:
    """Reads committed records as they become visible, woken by the log's doorbell."""

    def __init__(self, log: Log, topic: str, start: int = 0, *, count_values: bool = False) -> None:
        """`count_values`: each record is one row, as foreign programs write them."""
        self._count_values = count_values
        self.values: list[bytes] = []
        self.seen_ns: list[int] = []
        self.rows = 0
        self._log, self._partition, self._next = log, Partition(topic), start
        self._watch = log.watch([self._partition])

    async def until(self, rows: int, timeout_s: float = 180) -> None:
        """Wait until so many rows were seen in all."""
        async with asyncio.timeout(timeout_s):
            while not self.look() and self.rows < rows:
                await self._watch.wait()
            while self.rows < rows:
                await self._watch.wait()
                self.look()

    def look(self) -> bool:
        """Read what is there now; whether anything was."""
        found = False
        while True:
            batch = self._log.read(self._partition, Offset(self._next), records_max=10_000)
            now_ns = time.monotonic_ns()
            for record in batch.records:
                if record.value is not None:
                    match = None if self._count_values else _ROWS.search(record.value, 0, 2_000)
                    self.rows += 1 if self._count_values else int(match[1]) if match else 0
                    self.values.append(record.value)
                    self.seen_ns.append(now_ns)
                    found = True
            if batch.next <= self._next:
                return found
            self._next = batch.next

    def close(self) -> None:
        """Let go of the doorbell."""
        self._watch.close()


def fill(log: Log, topic: str, records: Sequence[NewRecord]) -> None:
    """Make the topic and put these records into it."""
    log.create_topics([TopicSpec(topic)])
    for start in range(0, len(records), 2_000):
        log.append(Partition(topic), records[start : start + 2_000])
