"""What a writer on Kafka makes of what its producer meets: no broker takes part."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from tailrace.log import (
    Append,
    FencedError,
    LogLimits,
    LogUnavailableError,
    NewRecord,
    Offset,
    OutcomeUnknownError,
    Partition,
)
from tailrace.log.kafka import _writer
from tailrace.log.kafka._clients import Clients
from tailrace.log.kafka._cluster import Cluster, Deadline
from tailrace.log.kafka._connections import Connections
from tailrace.log.kafka._reader import Reader
from tailrace.log.kafka._writer import KafkaWriter
from tailrace.runtime import Probe

ORDERS = Partition("orders")


class FakeProducer:
    """Takes everything, unless told otherwise."""

    def __init__(self, connections: Connections) -> None:
        self.connections = connections
        self.at_flush: Callable[[], None] = lambda: None
        self.at_commit: Callable[[], None] = lambda: None

    def breaks(self) -> None:
        self.connections.log(4, "%s", "Disconnected (after 5 ms in state UP)")

    def list_topics(self, *_: Any, **__: Any) -> None: ...

    def init_transactions(self, *_: Any) -> None: ...

    def begin_transaction(self) -> None: ...

    def abort_transaction(self, *_: Any) -> None: ...

    def poll(self, *_: Any) -> None: ...

    def purge(self) -> None: ...

    def flush(self, *_: Any) -> int:
        self.at_flush()
        return 0

    def commit_transaction(self, *_: Any) -> None:
        self.at_commit()


class FakeClients:
    limits, timeout_s, closed = LogLimits(), 5.0, False

    def producer(self, connections: Connections, **_: Any) -> FakeProducer:
        return FakeProducer(connections)

    def check_open(self) -> None: ...

    def unavailable(self, doing: str, error: object = None) -> LogUnavailableError:
        return LogUnavailableError("kafka://here", doing)


class FakeCluster:
    def describe(self, topics: list[str]) -> list[str]:
        return topics

    def check_there(self, _: Any) -> None: ...

    def forget(self, _: Any) -> None: ...

    def deadline(self) -> Deadline:
        return Deadline(5)

    def settled_ends(self, partitions: list[Partition]) -> dict[Partition, Offset]:
        return dict.fromkeys(partitions, Offset(0))


class FakeReader:
    def saw_end(self, *_: Any) -> None: ...

    def read(self, *_: Any) -> Any:
        return cast(Any, type("Nothing", (), {"records": []}))


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> KafkaWriter:
    monkeypatch.setattr(_writer, "end_unmarked", lambda *_: [])
    monkeypatch.setattr(_writer, "last_number", lambda *_: ("w", 0))
    monkeypatch.setattr(_writer, "produce_all", lambda *_, **__: None)
    clients, cluster, reader = cast(Clients, FakeClients()), cast(Cluster, FakeCluster()), cast(Reader, FakeReader())
    return KafkaWriter(clients, cluster, reader, Probe(), "w")


def producer_of(writer: KafkaWriter) -> FakeProducer:
    return cast(FakeProducer, cast(Producer, writer._producer))


def commit(writer: KafkaWriter) -> int:
    return writer.commit([Append(ORDERS, [NewRecord(b"a")])]).number


def fails(code: int) -> Callable[[], None]:
    def fail() -> None:
        raise KafkaException(KafkaError(code))

    return fail


@pytest.mark.parametrize("when", ["at_flush", "at_commit"])
def test_a_transaction_that_the_broker_ended_for_its_age_is_no_fence(
    writer: KafkaWriter, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """A machine that stood still would else end a host that is alone."""
    now_s = time.time()
    fenced = fails(KafkaError.INVALID_PRODUCER_EPOCH)

    def stand_still() -> None:
        monkeypatch.setattr(_writer.time, "time", lambda: now_s + 15.5)
        fenced()

    setattr(producer_of(writer), when, stand_still)
    with pytest.raises(OutcomeUnknownError, match="did this machine stand still"):
        commit(writer)


@pytest.mark.parametrize("when", ["at_flush", "at_commit"])
def test_another_that_opens_the_name_is_a_fence(writer: KafkaWriter, when: str) -> None:
    setattr(producer_of(writer), when, fails(KafkaError.INVALID_PRODUCER_EPOCH))
    with pytest.raises(FencedError):
        commit(writer)


def test_a_connection_that_broke_around_an_abort_is_not_forgotten(
    writer: KafkaWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long ago the last commit was: a copy of the abort may be on its way, and would end the next transaction."""
    now_s = time.monotonic()
    assert commit(writer) == 1
    monkeypatch.setattr(_writer.time, "monotonic", lambda: now_s + 60)

    def break_off() -> None:
        producer_of(writer).breaks()
        fails(KafkaError._TIMED_OUT)()

    producer_of(writer).at_flush = break_off
    with pytest.raises(LogUnavailableError):
        commit(writer)
    assert writer.lost
    monkeypatch.setattr(_writer.time, "monotonic", lambda: now_s + 120)
    assert not writer.lost
