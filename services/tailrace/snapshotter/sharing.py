"""Who attends to which table where several snapshotters run: a matter of work saved, never of correctness.

Each instance writes a heartbeat under its name into a small compacted topic. A table belongs to the living instance
that ranks highest for it (rendezvous hashing), so that one that comes or goes moves only its own share. Two that both
take a table for theirs fight over Delta commits, where one of them loses: see `tailrace.lake.snapshot`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b

import orjson

from tailrace.log import Log, NewRecord, Partition, TopicSpec, scan

__all__ = ["SHARING_TOPIC", "Sharing", "living", "owner"]

SHARING_TOPIC = "tailrace._snapshotters"


def owner(topic: str, instances: Iterable[str]) -> str:
    """The instance that attends to `topic`; there is at least one."""
    return max(instances, key=lambda name: blake2b(f"{name}\0{topic}".encode(), digest_size=8).digest())


def living(heartbeats: Mapping[str, int], now_ms: int, timeout_ms: int) -> frozenset[str]:
    """The instances whose last heartbeat is not too old."""
    return frozenset(name for name, beat_ms in heartbeats.items() if beat_ms + timeout_ms > now_ms)


class Sharing:
    """This instance among the others."""

    def __init__(self, log: Log, instance: str, timeout_ms: int) -> None:
        self._log = log
        self._instance = instance
        self._timeout_ms = timeout_ms
        self._partition = Partition(SHARING_TOPIC)
        log.create_topics([TopicSpec(SHARING_TOPIC, compacted=True)])

    def beat(self, now_ms: int) -> frozenset[str]:
        """Say that this instance lives; returns all that do."""
        self._log.append(self._partition, [NewRecord(orjson.dumps(now_ms), self._instance.encode())])
        heartbeats = {self._instance: now_ms}
        start = self._log.starts([self._partition])[self._partition]
        end = self._log.ends([self._partition])[self._partition]
        for batch in scan(self._log, self._partition, start, end):
            for record in batch.records:
                if record.key is None:
                    continue
                if record.value is None:
                    heartbeats.pop(record.key.decode(), None)
                else:
                    heartbeats[record.key.decode()] = orjson.loads(record.value)
        return living(heartbeats, now_ms, self._timeout_ms) | {self._instance}

    def leave(self) -> None:
        """Say that this instance is gone."""
        self._log.append(self._partition, [NewRecord(None, self._instance.encode())])
