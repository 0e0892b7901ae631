"""Transactions that were decided and whose markers were never written.

A lone broker that dies after it has stored a decision, and before it has written the markers, may leave them out for good
once it is back (Kafka 4.3.1: its coordinator looks for the partitions' leaders before there are any, and skips them as
"likely deleted already"). The transaction counts as ended, and stays open in its partitions: who reads what is committed
waits there for ever. What was decided still stands in the coordinator's log.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tailrace.log.contract import Offset, Partition, Record
from tailrace.log.kafka._clients import LOGGER, Clients
from tailrace.log.kafka._cluster import Cluster
from tailrace.log.kafka._reader import Reader
from tailrace.log.kafka._transactions import OpenTransaction, end_transaction, open_transactions

__all__ = [
    "COORDINATOR",
    "ENTRY",
    "Decision",
    "coordinator_partition",
    "decisions",
    "end_unmarked",
    "entries",
    "transactional_id",
    "writer_of",
]

COORDINATOR = "__transaction_state"
ENTRY = struct.Struct(">hqhib")
"""How a value there begins: version, producer id, epoch, time-out in milliseconds, status."""
_PREPARE_COMMIT, _PREPARE_ABORT = 2, 3

_LOOK_BACK = 1_000
"""Offsets before the end of the coordinator's log among which decisions are looked for first; then ten times as many."""
_LOOK_BACK_MAX = 1_000_000
"""More takes seconds to read. The writer's last decision is that old only when others wrote on for hours meanwhile."""


_IDS = "tailrace."


def transactional_id(writer: str) -> str:
    """What the cluster calls a writer."""
    return f"{_IDS}{writer}"


def writer_of(transactional_id: str) -> str:
    """The writer that an id belongs to; empty: it is not one of ours."""
    return transactional_id.removeprefix(_IDS) if transactional_id.startswith(_IDS) else ""


class Decision(NamedTuple):
    """How a transaction was to end."""

    producer_id: int
    epoch: int
    committed: bool
    partitions: tuple[Partition, ...]


def end_unmarked(clients: Clients, cluster: Cluster, reader: Reader, transactional_id: str) -> list[Partition]:
    """End, as it was decided, what an id has open in partitions, and tell where that was.

    To be called by whoever has just fenced the id: then nobody writes as its older producers, and all that they had is
    decided. Takes the rights to READ the topic `__transaction_state` and to ALTER the cluster.

    Raises LogUnavailableError (retriable).
    """
    last: dict[tuple[Partition, int], Decision] = {}  # of one producer's, the last is what may be unmarked
    for decision in _decided(cluster, reader, transactional_id):
        last |= {(partition, decision.producer_id): decision for partition in decision.partitions}
    still_open = _still_open(cluster, sorted({partition for partition, _ in last}))
    unmarked: dict[Decision, list[OpenTransaction]] = {}
    for each in open_transactions(clients, still_open) if still_open else ():
        decided = last.get((each.partition, each.producer_id))
        if decided is not None and each.epoch <= decided.epoch:  # else somebody has opened the id after us
            unmarked.setdefault(decided, []).append(each)
    for decision, opened in unmarked.items():
        named = ", ".join(f"{each.partition.topic}/{each.partition.number}" for each in opened)
        what = f"the {'commit' if decision.committed else 'abort'} of {transactional_id}"
        LOGGER.warning("the cluster has left out the markers of %s in %s: writing them", what, named)
        end_transaction(clients, opened, epoch=decision.epoch, committed=decision.committed)
    return [each.partition for opened in unmarked.values() for each in opened]


def _still_open(cluster: Cluster, partitions: Sequence[Partition]) -> list[Partition]:
    there = cluster.describe(sorted({partition.topic for partition in partitions}))
    known = [each for each in partitions if each.topic in there]
    ends, very_ends = cluster.edges(known, "end"), cluster.edges(known, "very-end")
    return [each for each in known if ends[each] < very_ends[each]]


def _decided(cluster: Cluster, reader: Reader, transactional_id: str) -> list[Decision]:
    """The newest decisions of an id, oldest first."""
    topic = cluster.describe([COORDINATOR]).get(COORDINATOR)
    if topic is None:
        return []
    partition = Partition(COORDINATOR, coordinator_partition(transactional_id, topic.partitions))
    start, end = cluster.edges([partition], "start")[partition], cluster.edges([partition], "end")[partition]
    back = _LOOK_BACK
    while True:
        found: list[Decision] = []
        at = Offset(max(start, end - back))
        while at < end:
            batch = reader.read(partition, at, end, 10_000, 16 << 20)
            found += decisions(batch.records, transactional_id)
            at = batch.next
        if found or end - back <= start or back >= _LOOK_BACK_MAX:
            return found
        back *= 10


def coordinator_partition(transactional_id: str, partitions: int) -> int:
    """Which partition of the coordinator's log tells of an id: Java's hash of it, without its sign."""
    hashed = 0
    for (unit,) in struct.iter_unpack(">H", transactional_id.encode("utf-16-be")):
        hashed = (31 * hashed + unit) & 0xFFFFFFFF
    signed = hashed - (1 << 32) if hashed >> 31 else hashed
    return (0 if signed == -(1 << 31) else abs(signed)) % partitions


def decisions(records: Sequence[Record], transactional_id: str) -> Iterator[Decision]:
    """What the coordinator's records tell of an id's decisions."""
    for value in entries(records, transactional_id):
        version, producer_id, epoch, _, status = ENTRY.unpack_from(value)
        if status in (_PREPARE_COMMIT, _PREPARE_ABORT):
            fields = _Fields(value, ENTRY.size, compact=version > 0)
            yield Decision(producer_id, epoch, status == _PREPARE_COMMIT, tuple(fields.partitions()))


def entries(records: Sequence[Record], transactional_id: str) -> Iterator[bytes]:
    """The values of those of the coordinator's records that tell of an id; each begins with an `ENTRY`."""
    key = struct.pack(">hh", 0, len(transactional_id.encode())) + transactional_id.encode()
    return (record.value for record in records if record.key == key and record.value)


class _Fields:
    """Reads on in a message of Kafka's."""

    def __init__(self, data: bytes, at: int, *, compact: bool) -> None:
        self._data, self._at, self._compact = data, at, compact

    def partitions(self) -> Iterator[Partition]:
        for _ in range(self._length(">i")):
            length = self._length(">h")
            topic = self._data[self._at : self._at + length].decode()
            self._at += length
            for _ in range(self._length(">i")):
                yield Partition(topic, self._number(">i"))
            if self._compact:
                self._varint()  # tags, of which there are none

    def _length(self, plain: str) -> int:
        return max(self._varint() - 1 if self._compact else self._number(plain), 0)

    def _number(self, kind: str) -> int:
        (value,) = struct.unpack_from(kind, self._data, self._at)
        self._at += struct.calcsize(kind)
        return int(value)

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
