"""What each slot remembers: the engine's record, the node's State and its places, in one record of the State topic.

Each app has one compacted State topic; a slot's key in it is the slot's name. It is written only inside the
transaction of the run that changes it, and read only through an opened writer, up to the settled end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from tailrace.engine import SlotRecord, shard_of
from tailrace.log import Log, NewRecord, Offset, Partition, Record, TopicSpec, scan

__all__ = [
    "SLOTS_TOPIC",
    "SlotState",
    "agree_on_shards",
    "group_of",
    "newest",
    "restore",
    "state_topic",
    "states_before",
]

SLOTS_TOPIC = "tailrace._slots"
"""Of a log that several hosts share. Its partitions are the shards; keys are slots, values how their last run went."""


def agree_on_shards(log: Log, shards: int) -> int:
    """How many shards a shared log has: what its topic of slots was made with, for its whole life. `shards`, where it is
    made now."""
    return log.create_topics([TopicSpec(SLOTS_TOPIC, partitions=shards, compacted=True)])[SLOTS_TOPIC].partitions


def state_topic(graph: str) -> str:
    """Name of an app's State topic."""
    return f"{graph}._state"


def group_of(slot: str) -> str:
    """The consumer group that shows a slot's places."""
    return slot.replace("/", ".")


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotState:
    """A slot as of its last commit."""

    record: SlotRecord = field(default_factory=SlotRecord)
    state: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Table key -> (offset, row) where its stream in log order goes on."""
    orders: Mapping[str, Any] = field(default_factory=dict)
    slots: int = 1
    """How many slots its node had."""
    removed_ms: int | None = None
    """Since when no deployment of its app has its node; None: one has."""

    def to_record(self, slot: str) -> NewRecord:
        """This state for the State topic."""
        value: dict[str, Any] = {
            "record": self.record.to_json(),
            "state": self.state,
            "places": {table: list(place) for table, place in self.places.items()},
            "orders": self.orders,
        }
        if self.slots > 1:
            value["slots"] = self.slots
        if self.removed_ms is not None:
            value["removed_ms"] = self.removed_ms
        return NewRecord(orjson.dumps(value), slot.encode())

    @classmethod
    def from_value(cls, value: bytes) -> SlotState:
        """The inverse of `to_record`."""
        data = orjson.loads(value)
        return cls(
            record=SlotRecord.from_json(data["record"]),
            state=data["state"],
            places={table: (offset, row) for table, (offset, row) in data["places"].items()},
            orders=data["orders"],
            slots=data.get("slots", 1),
            removed_ms=data.get("removed_ms"),
        )


def read_all(log: Log, partition: Partition, end: Offset) -> Iterator[Record]:
    """Every committed record of a partition before `end`."""
    for batch in scan(log, partition, log.starts([partition])[partition], end):
        yield from batch.records


def newest(log: Log, partition: Partition, end: Offset) -> dict[bytes, bytes | None]:
    """What a compacted partition says before `end`: the last value of each key, None where it was taken away."""
    return {record.key: record.value for record in read_all(log, partition, end) if record.key is not None}


def restore(log: Log, graphs: Iterable[str], shard: int, shards: int) -> dict[str, SlotState]:
    """The slots of one shard as the log has them now. Call it only after the shard's writer was opened."""
    ends = log.settled_ends([Partition(state_topic(graph)) for graph in graphs])
    states: dict[str, SlotState] = {}
    for partition, end in ends.items():
        states |= states_before(log, partition, end, lambda slot: shard_of(slot, shards) == shard)
    return states


def states_before(
    log: Log, partition: Partition, end: Offset, wanted: Callable[[str], bool] = lambda _: True
) -> dict[str, SlotState]:
    """The wanted slots as the records of a State topic before `end` have them."""
    found = {key.decode(): value for key, value in newest(log, partition, end).items()}
    return {slot: SlotState.from_value(value) for slot, value in found.items() if value is not None and wanted(slot)}
