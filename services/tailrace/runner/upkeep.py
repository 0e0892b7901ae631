"""Letting go of history: entries of journals, and answered triggers, that are older than people look at."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from tailrace.log import Log, Offset, Partition
from tailrace.runner.moments import first_after
from tailrace.runner.tails import CallLog

__all__ = ["trim_before"]

PAUSE_S = 0.05
"""Between two steps of a trim, so that it holds up nobody."""


async def trim_before(log: Log, topics: Sequence[str], at_ms: int, call: CallLog) -> dict[str, int]:
    """Trim what the topics took up to a moment, in small steps; returns how far each was trimmed that was.

    Any number of hosts may do so at once, and a death in between leaves less to do.
    """
    trimmed: dict[str, int] = {}
    for topic in topics:
        partition = Partition(topic)
        start: Offset = (await call(partial(log.starts, [partition])))[partition]
        end: Offset = (await call(partial(log.ends, [partition])))[partition]
        until: Offset = await call(partial(first_after, log, partition, start, end, at_ms))
        while start < until:
            start = await call(partial(log.trim, partition, until))
            trimmed[topic] = int(start)
            await asyncio.sleep(PAUSE_S)
    return trimmed
