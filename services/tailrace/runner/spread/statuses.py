"""How each node's last run went, for people: folded here, written to the topic of slots once in a while."""

from __future__ import annotations

import asyncio
import logging

import orjson

from tailrace.engine import shard_of
from tailrace.errors import TailraceError
from tailrace.log import Log, NewRecord, Partition
from tailrace.runner.deployment import slot_name
from tailrace.runner.journal import Entry, RunEntry
from tailrace.runner.slots import SLOTS_TOPIC

__all__ = ["Statuses"]

_EVERY_S = 1.0
"""Between two records of a slot. Some nodes run a hundred times a second, and this is for people."""

_log = logging.getLogger(__name__)


class Statuses:
    """The last run of each slot of this runner, on its way to the topic. What the log does not take is lost; the next
    run brings another."""

    def __init__(self, log: Log, shards: int, runner: str) -> None:
        self._log, self._shards, self._runner = log, shards, runner
        self._waiting: dict[str, bytes] = {}

    def hear(self, entry: Entry) -> None:
        """A listener of the journal."""
        if isinstance(entry, RunEntry):
            slot = slot_name(entry.graph, entry.node)
            status = {
                "run": entry.run,
                "kind": entry.kind,
                "ended_ms": entry.started_ms + entry.duration_ms,
                "error": entry.error,
                "runner": self._runner,
            }
            self._waiting[slot] = orjson.dumps(status)

    async def write(self) -> None:
        """Write what has come, for ever."""
        while True:
            await asyncio.sleep(_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what has come."""
        waiting, self._waiting = self._waiting, {}
        by_shard: dict[int, list[NewRecord]] = {}
        for slot, status in waiting.items():
            by_shard.setdefault(shard_of(slot, self._shards), []).append(NewRecord(status, slot.encode()))
        for shard, records in by_shard.items():
            try:
                await asyncio.to_thread(self._log.append, Partition(SLOTS_TOPIC, shard), records)
            except TailraceError as error:
                _log.warning("the status of %d nodes was not written: %s", len(records), error)
