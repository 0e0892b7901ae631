"""A doorbell over partitions: a consumer that stands at their ends, and a thread that waits for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue

from confluent_kafka import OFFSET_END, Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from tailrace.errors import TailraceError
from tailrace.log.contract import Offset, Partition
from tailrace.log.errors import LogUnavailableError
from tailrace.log.kafka._clients import Clients
from tailrace.log.kafka._cluster import Cluster

__all__ = ["KafkaWatch"]

_LONG_POLL_MS = 50
"""How long the broker holds a fetch back while there is nothing. A partition that was just added, or rests for its
many records, is first asked for with the next fetch, so that this is its longest delay. The price is twenty fetches
a second, some thousandths of a core."""

_POLL_S = 0.05
"""How long the thread waits for records before it looks for work of ours: a consumer does one thing at a time."""

_WAKE_S = 0.25
"""Longest wait for the answer to a question that is asked to wake the client (`_assign`)."""

_DRAIN_MAX = 1_000
_RETRY_S = 0.5
"""Pause before a partition whose end could not be asked for is tried again. It rings each time, so that whoever reads it
is told what is wrong."""


class KafkaWatch:
    """Each watched partition is fetched from its end on; a record that comes rings.

    One that goes on getting records while its ring was not answered yet rests, so that the data of busy partitions is not
    read twice, and goes on at the end that was asked for before `wait` named it.
    """

    def __init__(
        self, clients: Clients, cluster: Cluster, partitions: Sequence[Partition], closed: Callable[[KafkaWatch], None]
    ) -> None:
        self._clients, self._cluster, self._on_closed = clients, cluster, closed
        self._consumer: Consumer = clients.consumer(
            **{
                "auto.offset.reset": "earliest",  # cut off or made again: then what there is rings
                "fetch.wait.max.ms": _LONG_POLL_MS,
                "fetch.message.max.bytes": 1024,
                "fetch.queue.backoff.ms": 5,
                "queued.min.messages": 1,
            }
        )
        self._lock = threading.Lock()
        self._watched: set[Partition] = set()
        self._news: set[Partition] = set()
        self._resting: dict[Partition, int] = {}
        """Those that rest, and where they go on: an end that was asked for before they were named."""
        self._armed: dict[Partition, int] = {}
        """Those that are watched, and the offset after the last record that rang. Only the thread uses it."""
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._retry: set[Partition] = set()
        self._retry_at_s = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self.add(partitions)
        threading.Thread(target=self._listen, name="tailrace-kafka-watch", daemon=True).start()

    def add(self, partitions: Sequence[Partition]) -> None:
        new = [partition for partition in partitions if partition not in self._watched]
        with self._lock:
            self._watched.update(partitions)
            self._news.update(partitions)
        if new:
            self._jobs.put(lambda: self._arm(new))
        self._wake()

    def remove(self, partitions: Sequence[Partition]) -> None:
        gone = [partition for partition in partitions if partition in self._watched]
        with self._lock:
            self._watched.difference_update(gone)
            self._news.difference_update(gone)
        if gone:
            self._jobs.put(lambda: self._disarm(gone))

    async def wait(self, timeout_s: float | None = None) -> frozenset[Partition]:
        loop = asyncio.get_running_loop()
        assert self._waiter is None, "one wait at a time"
        deadline_s = None if timeout_s is None else loop.time() + timeout_s
        await asyncio.sleep(0)  # also where there always is news, others get their turn
        while True:
            waiter = loop.create_future()
            with self._lock:
                if self._closed:
                    raise LogUnavailableError(self._clients.url.shown, "the watch is closed")
                news, self._news = frozenset(self._news), set()
                resumed = {partition: self._resting.pop(partition) for partition in news if partition in self._resting}
                if not news:
                    self._waiter = waiter
            if news:
                if resumed:
                    self._jobs.put(partial(self._resume, resumed))
                return news
            left_s = None if deadline_s is None else deadline_s - loop.time()
            timer = None if left_s is None else loop.call_later(max(left_s, 0), _set, waiter)
            try:
                await waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
            with self._lock:
                nothing = not self._news and not self._closed
            if nothing and deadline_s is not None and loop.time() >= deadline_s:
                return frozenset()

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._on_closed(self)
        self._wake()

    # The thread that listens

    def _listen(self) -> None:
        consumer = self._consumer
        while not self._closed:
            self._work()
            try:
                first = consumer.poll(_POLL_S)
                if first is None:
                    continue
                messages = [first, *consumer.consume(_DRAIN_MAX, 0)]
            except KafkaException:
                continue
            rung: set[Partition] = set()
            for message in messages:
                topic, number, offset = message.topic(), message.partition(), message.offset()
                if topic is not None and number is not None:
                    # An error of a partition rings, too: whoever reads it next is told what is wrong.
                    rung.add(partition := Partition(topic, number))
                    if message.error() is None and offset is not None and partition in self._armed:
                        self._armed[partition] = offset + 1
            self._ring(rung)
        consumer.close()

    def _work(self) -> None:
        while not self._jobs.empty():
            self._jobs.get()()
        if self._retry and time.monotonic() > self._retry_at_s:
            again, self._retry = list(self._retry), set()
            self._arm(again)

    def _ring(self, rung: set[Partition]) -> None:
        with self._lock:
            rung &= self._watched
            busy = {partition: self._armed[partition] for partition in rung & self._news if partition in self._armed}
            self._news |= rung
            self._resting |= busy
        self._wake()
        if busy:
            self._rest(busy)

    def _rest(self, busy: dict[Partition, int]) -> None:
        with suppress(KafkaException):
            self._consumer.incremental_unassign([KafkaPartition(*partition) for partition in busy])
        try:
            ends = self._cluster.edges(list(busy), "end")
        except (TailraceError, KafkaException):
            return
        with self._lock:
            for partition, end in ends.items():
                # Only where `wait` has not named it yet: what comes after this end is news to whoever it is named to.
                if partition in self._resting and partition in self._news:
                    self._resting[partition] = max(end, busy[partition])

    def _arm(self, partitions: Sequence[Partition]) -> None:
        """Stand at the ends of `partitions`, then ring once more: what came before that moment was not heard."""
        ends: dict[Partition, Offset] = {}
        for some in ([partitions], [[each] for each in partitions]):  # one by one where they do not go together
            for part in some:
                with suppress(TailraceError, KafkaException):
                    ends |= self._cluster.edges([each for each in part if each not in ends], "end")
            if len(ends) == len(partitions):
                break
        with self._lock:
            wanted = [partition for partition in partitions if partition in self._watched]
            new = [partition for partition in wanted if partition in ends and partition not in self._armed]
        if new:
            with suppress(KafkaException):
                self._assign({each: ends[each] for each in new})
        self._retry.update(partition for partition in wanted if partition not in self._armed)
        self._retry_at_s = time.monotonic() + _RETRY_S
        with self._lock:
            self._news.update(wanted)
        self._wake()

    def _disarm(self, partitions: Sequence[Partition]) -> None:
        self._retry.difference_update(partitions)
        with self._lock:
            resting = {partition for partition in partitions if self._resting.pop(partition, None) is not None}
        armed = [each for each in partitions if self._armed.pop(each, None) is not None and each not in resting]
        if armed:
            with suppress(KafkaException):
                self._consumer.incremental_unassign([KafkaPartition(*partition) for partition in armed])

    def _resume(self, resting: dict[Partition, int]) -> None:
        again = {partition: at for partition, at in resting.items() if partition in self._armed}
        if again:
            with suppress(KafkaException):
                self._assign(again)

    def _assign(self, places: Mapping[Partition, int]) -> None:
        """Fetch from there. Raises KafkaException."""
        self._consumer.incremental_assign([KafkaPartition(*partition, at) for partition, at in places.items()])
        self._armed.update(places)
        # librdkafka 2.16 begins to fetch when its thread for the broker next wakes, up to a second later where it had
        # nothing to do. A question to the leaders wakes them; what they answer is of no use.
        self._consumer.offsets_for_times([KafkaPartition(*partition, OFFSET_END) for partition in places], _WAKE_S)

    def _wake(self) -> None:
        with self._lock:
            waiter = self._waiter
        if waiter is not None:
            with suppress(RuntimeError):
                waiter.get_loop().call_soon_threadsafe(_set, waiter)


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
