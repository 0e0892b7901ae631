"""Reading: a bounded pool of consumers, each standing somewhere in one partition."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError
from confluent_kafka import TopicPartition as KafkaPartition

from tailrace.log.contract import Batch, Offset, Partition, Record
from tailrace.log.errors import OffsetGapError
from tailrace.log.kafka._clients import Clients, discard
from tailrace.log.kafka._cluster import Cluster, Deadline
from tailrace.log.kafka._failures import CLIENT_ERRORS, MISSING, PASSING

__all__ = ["Reader"]

_CONSUMERS_MAX = 8
"""Most consumers of one log. Each has some threads; with fewer, reads of many partitions by turns jump more often
(4 ms) instead of going on where they stood."""

_USELESS_S = 0.5
"""How long a consumer goes on fetching ahead after its last read. Shorter, and a reader that thinks for a moment between
two reads has to jump; longer, and consumers at the end ask the broker a thousand times a second for longer."""

_WAKE_S = 0.25
"""Longest wait for the answer to that question. One that is not answered is a broker that is away, as the read finds out."""

_CONSUME_MAX = 10_000
"""Most messages taken from a consumer at once."""


_as_record = cast("Callable[[tuple[Offset, int, bytes | None, bytes | None]], Record]", partial(tuple.__new__, Record))
"""What `Record._make` does, without the call into Python."""


class Reader:
    """Thread-safe: each consumer is used by one read at a time."""

    def __init__(self, clients: Clients, cluster: Cluster) -> None:
        self._clients, self._cluster = clients, cluster
        self._idle: OrderedDict[_Reading, None] = OrderedDict()
        self._count = 0
        self._freed = threading.Condition()
        self._tidy_is_due = False
        self._ends: dict[Partition, Offset] = {}
        """Ends that were seen: what lies before them is decided, so reading up to there needs no question."""

    def read(self, partition: Partition, start: Offset, stop: Offset | None, records_max: int, bytes_max: int) -> Batch:
        self._clients.check_open()
        deadline = self._cluster.deadline()
        end, is_fresh = self._ends.get(partition), False
        if end is None or start >= end:
            end, is_fresh = self._ask_end(partition), True
        records: list[Record] = []
        at, room = start, bytes_max
        while True:
            limit = end if stop is None or stop > end else stop
            if at < limit:
                at, room = self._read_up_to(partition, at, limit, records, records_max, room, deadline)
            if at < limit or limit == stop or is_fresh:
                return Batch(records, at)
            end, is_fresh = self._ask_end(partition), True
            if end < at:  # it was made again, so what we knew is of no use
                return Batch(records, at)

    def saw_end(self, partition: Partition, end: Offset) -> None:
        """Everything before `end` is decided and visible."""
        if end > self._ends.get(partition, -1):
            self._ends[partition] = end

    def forget(self, topics: list[str]) -> None:
        """They were deleted, or cut off: what was fetched ahead of them is of no use."""
        with self._freed:
            for partition in [known for known in self._ends if known.topic in topics]:
                del self._ends[partition]
            for reading in list(self._idle):
                if reading.partition is not None and reading.partition.topic in topics:
                    del self._idle[reading]
                    self._count -= 1
                    discard(reading.consumer)

    def close(self) -> None:
        with self._freed:
            for reading in self._idle:
                discard(reading.consumer)
            self._idle.clear()
            self._freed.notify_all()

    def _ask_end(self, partition: Partition) -> Offset:
        end = self._cluster.edges([partition], "end")[partition]
        self._ends[partition] = end
        return end

    def _read_up_to(
        self,
        partition: Partition,
        start: Offset,
        limit: Offset,
        records: list[Record],
        records_max: int,
        room: int,
        deadline: Deadline,
    ) -> tuple[Offset, int]:
        reading = self._take(partition, start, deadline)
        try:
            result = reading.read_up_to(limit, records, records_max, room, deadline)
        except BaseException:
            self._drop(reading)
            raise
        self._give_back(reading)
        return result

    def _take(self, partition: Partition, start: Offset, deadline: Deadline) -> _Reading:
        with self._freed:
            while True:
                self._clients.check_open()
                for reading in self._idle:
                    if reading.partition == partition and reading.at == start:
                        del self._idle[reading]
                        return reading
                # A second place in a partition gets a consumer of its own: two that read by turns would otherwise
                # throw away what the other one has fetched ahead, each time.
                same = [reading for reading in self._idle if reading.partition == partition]
                if len(same) > 1 or (same and self._count >= _CONSUMERS_MAX):
                    reading = same[0]
                elif self._count < _CONSUMERS_MAX:
                    reading = _Reading(self._clients, self._cluster)
                    self._count += 1
                elif self._idle:
                    reading = next(iter(self._idle))
                else:
                    if not self._freed.wait(deadline.left_s) and deadline.passed:
                        raise self._clients.unavailable("waiting for other reads")
                    continue
                break
            self._idle.pop(reading, None)
        try:
            reading.go_to(partition, start)
        except BaseException:
            self._drop(reading)
            raise
        return reading

    def _give_back(self, reading: _Reading) -> None:
        with self._freed:
            if self._clients.closed:
                discard(reading.consumer)
            else:
                reading.used_s = time.monotonic()
                self._idle[reading] = None  # at the end: the one least recently used goes first
                if not reading.is_resting:
                    self._tidy_later()
            self._freed.notify()

    def _tidy_later(self) -> None:
        if not self._tidy_is_due:
            self._tidy_is_due = True
            timer = threading.Timer(_USELESS_S, self._tidy)
            timer.daemon = True
            timer.start()

    def _tidy(self) -> None:
        """Let those rest that nobody used for a while."""
        with self._freed:
            self._tidy_is_due = False
            for reading in self._idle:
                if not reading.is_resting:
                    if time.monotonic() - reading.used_s >= _USELESS_S:
                        reading.rest()
                    else:
                        self._tidy_later()

    def _drop(self, reading: _Reading) -> None:
        discard(reading.consumer)
        with self._freed:
            self._count -= 1
            self._freed.notify()


class _Reading:
    """A consumer that stands before offset `at` of `partition`."""

    def __init__(self, clients: Clients, cluster: Cluster) -> None:
        self._clients, self._cluster = clients, cluster
        self.consumer: Consumer = clients.consumer(
            **{
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                # Reads never wait for news: the broker answers at once. So that nothing spins, a consumer that came
                # to the end rests (it has no partition), and so does one that was not used for a while.
                "fetch.wait.max.ms": 1,
                "fetch.queue.backoff.ms": 2,
                "queued.min.messages": 50_000,
                "queued.max.messages.kbytes": 32 << 10,
            }
        )
        self.partition: Partition | None = None
        self.at = Offset(0)
        self._ahead: list[Any] = []
        """Taken from the consumer, not given out yet; from `at` on."""
        self.is_resting = True
        self.used_s = 0.0

    def go_to(self, partition: Partition, start: Offset) -> None:
        self._ahead = []
        self.consumer.assign([KafkaPartition(partition.topic, partition.number, start)])
        self.partition, self.at, self.is_resting = partition, start, False
        # librdkafka 2.16 begins to fetch when its thread for the broker next wakes, up to a second later where it had
        # nothing to do (measured: 400 to 1,000 ms). A question to that broker wakes it; what it answers is of no use.
        with contextlib.suppress(*CLIENT_ERRORS):
            whole = KafkaPartition(partition.topic, partition.number)
            self.consumer.get_watermark_offsets(whole, timeout=_WAKE_S, cached=False)

    def rest(self) -> None:
        """Stop fetching. A pause would do, but librdkafka takes a second to come out of one whatever it is asked."""
        self._ahead = []
        if not self.is_resting:
            self.consumer.unassign()
            self.is_resting = True

    def read_up_to(
        self, limit: Offset, records: list[Record], records_max: int, room: int, deadline: Deadline
    ) -> tuple[Offset, int]:
        """Add to `records` until `limit` is reached or they are enough; returns where to go on and the bytes left."""
        assert self.partition is not None
        if self.is_resting:
            self.go_to(self.partition, self.at)
        at = self.at
        while True:
            messages, self._ahead = self._ahead or self._fetch(records_max - len(records), deadline), []
            for index, message in enumerate(messages):
                if message.error() is not None:
                    self.at = at
                    end = self._check(message)
                    if end >= limit:
                        # Only markers and aborted records are left before it. We stand at the end.
                        self.rest()
                        return self._stand(limit, room)
                    continue
                offset = message.offset()
                if offset < at:
                    continue
                if offset >= limit:
                    self.at, self._ahead = at, messages[index:]
                    return self._stand(limit, room)
                value, key = message.value(), message.key()
                size = (len(value) if value else 0) + (len(key) if key else 0)
                if records and (len(records) >= records_max or size > room):
                    self.at, self._ahead = at, messages[index:]
                    return self._stand(Offset(offset), room)
                room -= size
                records.append(_as_record((offset, message.timestamp()[1], key, value)))
                at = offset + 1
            self.at = at
            if at >= limit or len(records) >= records_max:
                return at, room

    def _stand(self, at: Offset, room: int) -> tuple[Offset, int]:
        self.at = max(self.at, at)
        return self.at, room

    def _fetch(self, wanted: int, deadline: Deadline) -> list[Any]:
        while True:
            self._clients.check_open()
            # The first waits, the rest is what is there already: `consume` would wait until the number is full.
            first = self.consumer.consume(1, min(deadline.left_s, 0.25))
            if first:
                more = self.consumer.consume(min(max(wanted - 1, 0), _CONSUME_MAX), 0) if wanted > 1 else []
                return first + more
            if deadline.passed:
                assert self.partition is not None
                raise self._clients.unavailable(f"reading {self.partition.topic}/{self.partition.number}")

    def _check(self, message: Any) -> int:
        """The offset of an end that was reached, -1 for what passes; raises for the rest."""
        assert self.partition is not None
        error = message.error()
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            return int(message.offset())
        if code in MISSING:
            self._cluster.forget([self.partition.topic])
            self._cluster.check_there([self.partition])
            return -1
        if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            start = self._cluster.edges([self.partition], "start")[self.partition]
            if self.at < start:
                raise OffsetGapError(self.partition.topic, self.partition.number, self.at, start)
            self.go_to(self.partition, self.at)
            return -1
        if code in PASSING:
            return -1
        raise self._clients.unavailable(f"reading {self.partition.topic}/{self.partition.number}", error)
