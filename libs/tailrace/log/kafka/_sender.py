"""One idempotent producer outside transactions, shared by all plain appends of a log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from tailrace.log.contract import NewRecord, Partition
from tailrace.log.kafka._clients import Clients, discard, make_contact
from tailrace.log.kafka._failures import CLIENT_ERRORS

__all__ = ["Delivered", "Sender", "produce_all"]

Delivered = Callable[[KafkaError | None, Any], None]
"""Told of a message when the broker has it, or when it failed."""

_PRODUCE_MAX = 5_000
"""Most messages handed to librdkafka at once."""

_FIRST_CONTACT_S = 0.5
"""Longest that the first record waits for its producer's connection (`make_contact`): it takes 20 ms then, and 510 without."""


class Sender:
    """A producer and the thread that serves it.

    Records that go to one partition through it become durable in the order in which they were sent, without gaps:
    the broker checks their sequence, none is given up on its own (`message.timeout.ms` is unlimited), and an error
    that would leave a gap ends the producer (`enable.gapless.guarantee`). So the delivery of the last one says that
    those before it are there, too, and only the last one needs a callback, which costs more than all the rest.
    """

    def __init__(self, clients: Clients) -> None:
        self._producer: Producer = clients.producer(
            **{"message.timeout.ms": 0, "enable.gapless.guarantee": True, "linger.ms": 0}
        )
        self._ended = False
        self._is_new = True
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, name="tailrace-kafka-sender", daemon=True).start()

    @property
    def ended(self) -> bool:
        return self._ended

    def send(
        self, partition: Partition, records: Sequence[NewRecord], *, first: Delivered | None = None, last: Delivered
    ) -> None:
        """Hand `records` over, side by side; `last` is told of the last one. Raises as `produce_all`."""
        with self._lock:
            if self._is_new:
                with suppress(*CLIENT_ERRORS):
                    make_contact(self._producer, partition.topic, _FIRST_CONTACT_S)
                self._is_new = False
            produce_all(self._producer, partition, records, first=first, last=last)

    def end(self) -> None:
        """Give up what waits. Callbacks of what failed are called once more, by the serving thread."""
        self._ended = True

    def _serve(self) -> None:
        while not self._ended:
            try:
                self._producer.poll(0.25)
            except CLIENT_ERRORS:  # a fatal one: nothing goes through it any more
                self._ended = True
        with suppress(*CLIENT_ERRORS):
            self._producer.purge()
        while len(self._producer) > 0:
            with suppress(*CLIENT_ERRORS):
                self._producer.poll(0.1)
        discard(self._producer)


def produce_all(
    producer: Producer,
    partition: Partition,
    records: Sequence[NewRecord],
    *,
    first: Delivered | None = None,
    last: Delivered,
) -> None:
    """Hand `records` to `producer`; `first` and `last` are told of those two. One alone is the last.

    Raises KafkaException where it takes one of them not; some before it may be on their way.
    """
    topic, number = partition
    final = len(records) - 1
    for begin in range(0, len(records), _PRODUCE_MAX):
        chunk: list[dict[str, Any]] = [
            {"value": value, "key": key} for value, key in records[begin : begin + _PRODUCE_MAX]
        ]
        if begin == 0 and first is not None and final > 0:
            chunk[0]["callback"] = first
        if begin + len(chunk) > final:
            chunk[-1]["callback"] = last
        if producer.produce_batch(topic, chunk, number) < len(chunk):
            raise KafkaException(next(message["_error"] for message in chunk if "_error" in message))
