"""What librdkafka has no calls for: which transactions are open in a partition, whose they are, and how to end one.

A few rare requests, sent with the client that Faust brings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, LeaderNotAvailableError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)
from aiokafka.structs import TopicPartition

from tailrace.log.contract import Offset, Partition
from tailrace.log.kafka._clients import Clients

__all__ = ["OpenTransaction", "end_transaction", "open_transactions", "transactional_ids"]

T = TypeVar("T")

_PAUSE_S = 0.1
"""Before a question is asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTransaction:
    """A transaction that is open in a partition."""

    partition: Partition
    start: Offset
    """Nothing from here on is seen by who reads what is committed."""
    producer_id: int
    epoch: int
    coordinator_epoch: int
    last_ms: int
    """When its producer last wrote to the partition."""


def open_transactions(clients: Clients, partitions: Iterable[Partition]) -> list[OpenTransaction]:
    """Those of these partitions, as their brokers know them. Takes the right to READ the topics.

    Raises LogUnavailableError (retriable).
    """

    async def ask(client: AIOKafkaClient) -> list[OpenTransaction]:
        found = []
        for node, some in (await _by_leader(client, partitions)).items():
            answer = await client.send(node, _DescribeProducers(some))
            for topic, of_topic, _ in answer.topics:
                for number, code, _, producers, _ in of_topic:
                    _check(code)
                    for producer_id, epoch, _, last_ms, coordinator_epoch, start, _ in producers:
                        if start >= 0:
                            found.append(
                                OpenTransaction(
                                    partition=Partition(topic, number),
                                    start=Offset(start),
                                    producer_id=producer_id,
                                    epoch=epoch,
                                    coordinator_epoch=max(coordinator_epoch, 0),
                                    last_ms=last_ms,
                                )
                            )
        return found

    return _asked(clients, "asking for open transactions", ask)


def transactional_ids(clients: Clients, producer_ids: Iterable[int]) -> dict[int, str]:
    """Producer id -> transactional id, of those that the coordinators know and we may DESCRIBE.

    Raises LogUnavailableError (retriable).
    """
    wanted = sorted(set(producer_ids))

    async def ask(client: AIOKafkaClient) -> dict[int, str]:
        found: dict[int, str] = {}
        for broker in client.cluster.brokers():
            answer = await client.send(broker.nodeId, _ListTransactions(wanted))
            _check(answer.error_code)
            found |= {producer_id: name for name, producer_id, _, _ in answer.transactions}
        return found

    return _asked(clients, "listing transactions", ask)


def end_transaction(clients: Clients, opened: Sequence[OpenTransaction], *, epoch: int, committed: bool) -> None:
    """Write markers that are missing, for a producer that is fenced; `epoch` is what it had when they were decided.
    Takes the right to ALTER the cluster.

    Raises LogUnavailableError (retriable).
    """

    async def ask(client: AIOKafkaClient) -> None:
        by_partition = {each.partition: each for each in opened}
        for node, some in (await _by_leader(client, by_partition)).items():
            markers: list[Any] = [
                (each.producer_id, epoch, committed, [(topic, [number], {})], each.coordinator_epoch, {})
                for (topic, number), each in ((partition, by_partition[partition]) for partition in some)
            ]
            answer = await client.send(node, _WriteMarkers(markers))
            for _, topics, _ in answer.markers:
                for _, of_topic, _ in topics:
                    for _, code, _ in of_topic:
                        _check(code)

    _asked(clients, "ending a transaction that the cluster left open", ask)


def _asked(clients: Clients, doing: str, ask: Callable[[AIOKafkaClient], Awaitable[T]]) -> T:
    url = clients.url

    async def connected() -> T:
        client = AIOKafkaClient(
            bootstrap_servers=url.servers,
            client_id="tailrace",
            request_timeout_ms=int(clients.timeout_s * 1000),
            security_protocol=url.settings.get("security.protocol", "plaintext").upper(),
            ssl_context=url.ssl_context(),
            sasl_mechanism=url.settings.get("sasl.mechanism", url.settings.get("sasl.mechanisms", "PLAIN")),
            sasl_plain_username=url.settings.get("sasl.username"),
            sasl_plain_password=url.settings.get("sasl.password"),
        )
        try:
            async with asyncio.timeout(clients.timeout_s):
                await client.bootstrap()
                while True:
                    try:
                        return await ask(client)
                    except KafkaError as error:  # a broker that has just started is not yet all that it will be
                        if not error.retriable:
                            raise
                        await asyncio.sleep(_PAUSE_S)
        finally:
            await client.close()

    clients.check_open()
    try:
        with ThreadPoolExecutor(1) as thread:  # the caller's may have an event loop of its own
            return thread.submit(asyncio.run, connected()).result()
    except (KafkaError, OSError, ValueError) as error:  # a ValueError: it can not log in as librdkafka does
        raise clients.unavailable(doing, error) from error


async def _by_leader(client: AIOKafkaClient, partitions: Iterable[Partition]) -> dict[int, list[Partition]]:
    cluster = await client.fetch_all_metadata()
    found: dict[int, list[Partition]] = {}
    for partition in partitions:
        leader = cluster.leader_for_partition(TopicPartition(*partition))
        if leader is None or leader < 0:
            raise LeaderNotAvailableError(f"{partition.topic}/{partition.number}")
        found.setdefault(leader, []).append(partition)
    return found


def _by_topic(partitions: Iterable[Partition]) -> list[tuple[str, list[int], dict[int, bytes]]]:
    found: dict[str, list[int]] = {}
    for topic, number in partitions:
        found.setdefault(topic, []).append(number)
    return [(topic, numbers, {}) for topic, numbers in found.items()]


def _check(code: int) -> None:
    if code:
        raise for_code(code)


def _tagged(*fields: tuple[str, Any]) -> Schema:
    return Schema(*fields, ("tags", TaggedFields))


_TEXT = CompactString("utf-8")


class _DescribeProducersAnswer(Response):
    API_KEY, API_VERSION = 61, 0
    SCHEMA = _tagged(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("name", _TEXT),
                (
                    "partitions",
                    CompactArray(
                        ("number", Int32),
                        ("error_code", Int16),
                        ("error_message", _TEXT),
                        (
                            "producers",
                            CompactArray(
                                ("producer_id", Int64),
                                ("epoch", Int32),
                                ("last_sequence", Int32),
                                ("last_ms", Int64),
                                ("coordinator_epoch", Int32),
                                ("start", Int64),
                                ("tags", TaggedFields),
                            ),
                        ),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
    )


class _DescribeProducersV0(RequestStruct):
    FLEXIBLE_VERSION, API_KEY, API_VERSION = True, 61, 0
    RESPONSE_TYPE = _DescribeProducersAnswer
    SCHEMA = _tagged(
        ("topics", CompactArray(("name", _TEXT), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)))
    )


class _ListTransactionsAnswer(Response):
    API_KEY, API_VERSION = 66, 0
    SCHEMA = _tagged(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("unknown_states", CompactArray(_TEXT)),
        (
            "transactions",
            CompactArray(("name", _TEXT), ("producer_id", Int64), ("state", _TEXT), ("tags", TaggedFields)),
        ),
    )


class _ListTransactionsV0(RequestStruct):
    FLEXIBLE_VERSION, API_KEY, API_VERSION = True, 66, 0
    RESPONSE_TYPE = _ListTransactionsAnswer
    SCHEMA = _tagged(("states", CompactArray(_TEXT)), ("producer_ids", CompactArray(Int64)))


class _WriteMarkersAnswer(Response):
    API_KEY, API_VERSION = 27, 1
    SCHEMA = _tagged(
        (
            "markers",
            CompactArray(
                ("producer_id", Int64),
                (
                    "topics",
                    CompactArray(
                        ("name", _TEXT),
                        (
                            "partitions",
                            CompactArray(("number", Int32), ("error_code", Int16), ("tags", TaggedFields)),
                        ),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        )
    )


class _WriteMarkersV1(RequestStruct):
    FLEXIBLE_VERSION, API_KEY, API_VERSION = True, 27, 1
    RESPONSE_TYPE = _WriteMarkersAnswer
    SCHEMA = _tagged(
        (
            "markers",
            CompactArray(
                ("producer_id", Int64),
                ("epoch", Int16),
                ("committed", Boolean),
                ("topics", CompactArray(("name", _TEXT), ("partitions", CompactArray(Int32)), ("tags", TaggedFields))),
                ("coordinator_epoch", Int32),
                ("tags", TaggedFields),
            ),
        )
    )


class _DescribeProducers(Request[_DescribeProducersV0]):
    API_KEY: ClassVar[int] = 61

    def __init__(self, partitions: Iterable[Partition]) -> None:
        self._topics = _by_topic(partitions)

    def build(self, kind: type[_DescribeProducersV0]) -> _DescribeProducersV0:
        return kind(self._topics, {})


class _ListTransactions(Request[_ListTransactionsV0]):
    API_KEY: ClassVar[int] = 66

    def __init__(self, producer_ids: Sequence[int]) -> None:
        self._producer_ids = producer_ids

    def build(self, kind: type[_ListTransactionsV0]) -> _ListTransactionsV0:
        return kind([], self._producer_ids, {})


class _WriteMarkers(Request[_WriteMarkersV1]):
    API_KEY: ClassVar[int] = 27

    def __init__(self, markers: Sequence[Any]) -> None:
        self._markers = markers

    def build(self, kind: type[_WriteMarkersV1]) -> _WriteMarkersV1:
        return kind(self._markers, {})
