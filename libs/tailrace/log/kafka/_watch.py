"""A doorbell over partitions: a consumer that stands at their ends, and a thread that waits for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from tailrace.errors import TailraceError
from tailrace.log.contract import Partition
from tailrace.log.errors import LogUnavailableError
from tailrace.log.kafka._clients import Clients
from tailrace.log.kafka._cluster import Cluster

__all__ = ["KafkaWatch"]

_LONG_POLL_MS = 100
"""How long the broker holds a fetch back while there is nothing. A partition that was just added, or paused for its
many records, is first asked for with the next fetch, so that this is its longest delay; ten fetches a second are the
price, far under a hundredth of a core."""

_DRAIN_MAX = 1_000
_POLL_S = 0.25
_RETRY_S = 0.2
_SELF_HEAL_S = 5.0


class KafkaWatch:
    """Each watched partition is fetched from its end on; a record that comes rings.

    One that goes on getting records while its ring was not answered yet is paused, so that the data of busy partitions is
    not read twice, and goes on at the end that was asked for before `wait` named it.
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
        self._paused: dict[Partition, int] = {}
        """Paused ones, and where they go on: an end asked for before they were named. -1: where they were paused."""
        self._armed: set[Partition] = set()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self.add(partitions)
        threading.Thread(target=self._listen, name="tailrace-kafka-watch", daemon=True).start()
        threading.Thread(target=self._work, name="tailrace-kafka-watch-arm", daemon=True).start()

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
                resumed = {partition: self._paused.pop(partition) for partition in news if partition in self._paused}
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
        self._jobs.put(None)
        self._on_closed(self)
        self._wake()

    # The thread that listens

    def _listen(self) -> None:
        consumer = self._consumer
        while not self._closed:
            try:
                first = consumer.poll(_POLL_S)
                if first is None:
                    continue
                messages = [first, *consumer.consume(_DRAIN_MAX, 0)]
            except (KafkaException, RuntimeError):
                continue
            rung: set[Partition] = set()
            for message in messages:
                # An error of a partition rings, too: whoever reads it next is told what is wrong.
                if message.topic() is not None and message.partition() is not None and message.partition() >= 0:
                    rung.add(Partition(message.topic(), message.partition()))
            self._ring(rung)
        consumer.close()

    def _ring(self, rung: set[Partition]) -> None:
        with self._lock:
            rung &= self._watched
            busy = rung & self._news - self._paused.keys()
            self._news |= rung
            for partition in busy:
                self._paused[partition] = -1
        self._wake()
        if busy:
            self._pause(busy)

    def _pause(self, busy: set[Partition]) -> None:
        with suppress(KafkaException):
            self._consumer.pause([KafkaPartition(*partition) for partition in busy])
        try:
            ends = self._cluster.edges(list(busy), "end")
        except (TailraceError, KafkaException):
            return
        with self._lock:
            for partition, end in ends.items():
                # Only where `wait` has not named it yet: what comes after this end is news to whoever it is named to.
                if partition in self._paused and partition in self._news:
                    self._paused[partition] = end

    # The thread that arms: it waits for answers, so that neither the loop nor the listener has to

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _arm(self, partitions: Sequence[Partition]) -> None:
        """Stand at the ends of `partitions`, then ring once more: what came before that moment was not heard."""
        try:
            ends = self._cluster.edges(partitions, "end")
        except (TailraceError, KafkaException):
            ends = self._ends_one_by_one(partitions)
        with self._lock:
            wanted = [partition for partition in ends if partition in self._watched]
        if wanted:
            with suppress(KafkaException, RuntimeError):
                self._consumer.incremental_assign(
                    [
                        KafkaPartition(*partition, ends[partition])
                        for partition in wanted
                        if partition not in self._armed
                    ]
                )
                self._armed.update(wanted)
        with self._lock:
            self._news.update(wanted)
            retry = [p for p in partitions if p not in ends and p in self._watched and not self._closed]
            self._news.update(retry)
        self._wake()
        if retry:
            timer = threading.Timer(_RETRY_S, lambda: self._jobs.put(lambda: self._arm(retry)))
            timer.daemon = True
            timer.start()

    def _ends_one_by_one(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        ends: dict[Partition, int] = {}
        for partition in partitions:
            with suppress(TailraceError, KafkaException):
                ends.update(self._cluster.edges([partition], "end"))
        return ends

    def _disarm(self, partitions: Sequence[Partition]) -> None:
        gone = [partition for partition in partitions if partition in self._armed]
        self._armed.difference_update(gone)
        with self._lock:
            for partition in partitions:
                self._paused.pop(partition, None)
        if gone:
            with suppress(KafkaException, RuntimeError):
                self._consumer.incremental_unassign([KafkaPartition(*partition) for partition in gone])

    def _resume(self, paused: dict[Partition, int]) -> None:
        for partition, end in paused.items():
            if partition not in self._armed:
                continue
            with suppress(KafkaException, RuntimeError):
                if end >= 0:
                    self._consumer.seek(KafkaPartition(*partition, end))
                self._consumer.resume([KafkaPartition(*partition)])

    def _wake(self) -> None:
        with self._lock:
            waiter = self._waiter
        if waiter is not None:
            with suppress(RuntimeError):
                waiter.get_loop().call_soon_threadsafe(_set, waiter)


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
