"""Answers to webhook requests whose gateway is another process: records of the graph's topic of answers."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from tailrace.errors import TailraceError
from tailrace.log import Appender, Log, NewRecord, Offset, Partition, TopicSpec
from tailrace.runtime import Clock
from tailrace.tables import Answer, answer_message, answers_topic

__all__ = ["AnswerSender"]

_LOGGER = logging.getLogger(__name__)

KEPT = timedelta(hours=1)
"""What is older is trimmed: no request waits so long."""

_TRIM_EVERY = 1_000
"""Answers between two looks at what can be trimmed."""


class AnswerSender:
    """Appends answers, each at once: like any call to the outside they are no part of their run's transaction.

    Args:
        call: runs what blocks, in a thread.
    """

    def __init__(self, log: Log, clock: Clock, call: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self._log, self._clock, self._call = log, clock, call
        self._appender: Appender | None = None
        self._topics: set[str] = set()
        self._sent = 0
        self._ends: deque[tuple[int, Partition, Offset]] = deque()
        """Where topics ended at earlier times, oldest first."""

    async def send(self, graph: str, answer: Answer) -> None:
        """Put the answer into the log. One that cannot be written is told in our own log: its request ends with 504."""
        partition = Partition(answers_topic(graph))
        try:
            if partition.topic not in self._topics:
                await self._call(lambda: self._log.create_topics([TopicSpec(partition.topic)]))
                self._topics.add(partition.topic)
            if self._appender is None:
                self._appender = self._log.appender()
            now_ms = self._clock.now_ms()
            await self._appender.append(partition, NewRecord(answer_message(answer, now_ms)))
            self._sent += 1
            if self._sent % _TRIM_EVERY == 1:
                await self._trim(partition, now_ms)
        except TailraceError as error:
            _LOGGER.warning("an answer to a request of %s was not written: %s", graph, error)

    async def close(self) -> None:
        """Write what waits."""
        if self._appender is not None:
            await self._appender.close()

    async def _trim(self, partition: Partition, now_ms: int) -> None:
        end = (await self._call(lambda: self._log.ends([partition])))[partition]
        self._ends.append((now_ms, partition, end))
        while self._ends and self._ends[0][0] < now_ms - KEPT / timedelta(milliseconds=1):
            _, old, before = self._ends.popleft()
            await asyncio.shield(self._call(lambda old=old, before=before: self._log.trim(old, before)))  # type: ignore[misc]
