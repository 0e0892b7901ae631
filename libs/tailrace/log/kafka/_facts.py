"""What a cluster says of itself, of our topics and of what we may do there."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from tailrace.errors import TailraceError
from tailrace.log.contract import Append, NewRecord, Offset, Partition, Place, TopicInfo, TopicSpec
from tailrace.log.errors import BrokerTooOldError
from tailrace.log.facts import HangingTransaction, KafkaFacts, KafkaTopicFacts
from tailrace.log.kafka._clients import Clients
from tailrace.log.kafka._cluster import INTERNAL, Cluster, topic_settings
from tailrace.log.kafka._failures import error_of
from tailrace.log.kafka._transactions import open_transactions, transactional_ids
from tailrace.log.kafka._unmarked import writer_of
from tailrace.log.kafka._url import KafkaUrl
from tailrace.runtime import Clock

__all__ = ["FETCH_VERSION_MIN", "check_version", "fetch_version_min", "find_facts", "mend_topics"]

FETCH_VERSION_MIN = 4
"""Brokers from 4.0 on take no older request to fetch (KIP-896)."""

_TOPIC_RIGHTS = ("READ", "WRITE", "CREATE", "DELETE", "DESCRIBE", "DESCRIBE_CONFIGS", "ALTER_CONFIGS")
_TIMEOUT_S = 3.0
_ABORTED_MS = 15_000
"""How long after its time-out a transaction may stay open: brokers look for such ones each 10 s."""
_ADVICE = ("min.insync.replicas",)


def find_facts(
    clients: Clients, cluster: Cluster, topics: Sequence[TopicInfo], clock: Clock
) -> tuple[KafkaFacts, int | None]:
    """The facts, and how far the broker's clock is ahead of ours."""
    admin = clients.admin()
    missing: set[str] = set()
    brokers = 0
    with suppress(KafkaException):
        described = admin.describe_cluster(include_authorized_operations=True, request_timeout=_TIMEOUT_S).result()
        brokers = len(described.nodes)
    ahead_ms = _try_everything(clients, cluster, clock, missing)
    return (
        KafkaFacts(
            servers=clients.url.servers,
            user=clients.url.settings.get("sasl.username", ""),
            fetch_version_min=fetch_version_min(clients.url),
            brokers=brokers,
            topics=_topics(admin, clients, topics),
            missing_rights=frozenset(missing),
            hanging=_hanging(clients, cluster, clock),
            settings=_settings(admin, [ConfigResource(ResourceType.BROKER, "1")]).get("1", {}),
        ),
        ahead_ms,
    )


def _try_everything(clients: Clients, cluster: Cluster, clock: Clock, missing: set[str]) -> int | None:
    """Do once what the services do, in a topic of our own; returns how far the broker's clock is ahead."""
    from tailrace.log.kafka._appends import Appends
    from tailrace.log.kafka._reader import Reader
    from tailrace.log.kafka._writer import KafkaWriter, numbers_topic
    from tailrace.runtime import Probe

    topic = f"{INTERNAL}doctor"
    partition, writer_name, group = Partition(topic), f"{INTERNAL}doctor", "tailrace.doctor"
    reader, appends = Reader(clients, cluster), Appends(clients, cluster)
    ahead_ms: int | None = None

    def tried(what: str, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except (TailraceError, KafkaException, RuntimeError) as error:
            missing.add(f"{what}: {_short(error)}")
            return None

    try:
        tried(f"CREATE on topics {INTERNAL}*", lambda: cluster.create([TopicSpec(topic)]))
        if missing:
            return None
        before_ms = clock.now_ms()
        written = tried(f"WRITE on topics {INTERNAL}*", lambda: appends.append(partition, [NewRecord(b"doctor")]))
        after_ms = clock.now_ms()
        if written is not None:
            batch = tried(f"READ on topics {INTERNAL}*", lambda: reader.read(partition, Offset(0), None, 1, 1))
            if batch is not None and batch.records:
                ts_ms = batch.records[0].ts_ms
                ahead_ms = min(ts_ms - before_ms, 0) + max(ts_ms - after_ms, 0)
        tried("DESCRIBE on the groups", lambda: cluster.places(group, [partition]))

        def transact() -> bool:
            writer = KafkaWriter(clients, cluster, reader, Probe(), writer_name)
            writer.commit([Append(partition, [NewRecord(b"doctor")])], {group: {partition: Place(Offset(0))}})
            writer.close()
            return True

        tried("WRITE on transactional ids tailrace.*, READ on the groups", transact)
        tried("DELETE on the groups", lambda: cluster.delete_group(group))
    finally:
        reader.close()
        appends.close()
        tried(f"DELETE on topics {INTERNAL}*", lambda: cluster.delete([topic, numbers_topic(writer_name)]))
    return ahead_ms


def _hanging(clients: Clients, cluster: Cluster, clock: Clock) -> list[HangingTransaction]:
    """Transactions that are open for longer than the cluster lets any of ours be open."""
    least_ms = int(clients.limits.transaction_timeout.total_seconds() * 1000) + _ABORTED_MS
    try:
        there = cluster.describe([name for name in cluster.hello() if not name.startswith("__")])
        partitions = [Partition(name, number) for name, found in there.items() for number in range(found.partitions)]
        ends, very_ends = cluster.edges(partitions, "end"), cluster.edges(partitions, "very-end")
        still_open = [partition for partition in partitions if ends[partition] < very_ends[partition]]
        opened = open_transactions(clients, still_open) if still_open else []
        now_ms = clock.now_ms()
        hanging = [each for each in opened if now_ms - each.last_ms > least_ms]
        names = transactional_ids(clients, {each.producer_id for each in hanging}) if hanging else {}
    except TailraceError:  # what is missing for it is told among the rights
        return []
    return [
        HangingTransaction(
            topic=each.partition.topic,
            number=each.partition.number,
            start=each.start,
            open_ms=now_ms - each.last_ms,
            writer=writer_of(names.get(each.producer_id, "")),
        )
        for each in hanging
    ]


def _short(error: BaseException) -> str:
    text = str(error)
    found = error_of(error) or error_of(error.__cause__) if error.__cause__ else error_of(error)
    return found.str() if isinstance(found, KafkaError) else text[:200]


def _topics(admin: AdminClient, clients: Clients, topics: Sequence[TopicInfo]) -> list[KafkaTopicFacts]:
    names = [info.name for info in topics]
    if not names:
        return []
    settings = _settings(admin, [ConfigResource(ResourceType.TOPIC, name) for name in names])
    described = admin.describe_topics(
        TopicCollection(names), include_authorized_operations=True, request_timeout=_TIMEOUT_S
    )
    found = []
    for info in topics:
        try:
            topic = described[info.name].result()
        except KafkaException:
            continue
        may = {operation.name for operation in topic.authorized_operations or ()}
        found.append(
            KafkaTopicFacts(
                name=info.name,
                replication=min(len(each.replicas) for each in topic.partitions),
                in_sync=min(len(each.isr) for each in topic.partitions),
                settings={
                    name: settings.get(info.name, {}).get(name, "")
                    for name in (*topic_settings(clients, compacted=info.compacted), *_ADVICE)
                    if info.name in settings
                },
                wanted=topic_settings(clients, compacted=info.compacted),
                missing_rights=frozenset(set(_TOPIC_RIGHTS) - may - {"ALL"}) if may else frozenset(),
            )
        )
    return found


def _settings(admin: AdminClient, resources: list[ConfigResource]) -> dict[str, dict[str, str]]:
    found = {}
    for resource, future in admin.describe_configs(resources, request_timeout=_TIMEOUT_S).items():
        with suppress(KafkaException):
            found[resource.name] = {name: str(entry.value) for name, entry in future.result().items()}
    return found


def mend_topics(cluster: Cluster, wrong: dict[str, dict[str, str]]) -> None:
    """Give topics the settings that our promises rest on."""
    for name, settings in wrong.items():
        cluster.set_topics([name], settings)


def check_version(clients: Clients) -> None:
    """Raises BrokerTooOldError where a broker says that it is; one that does not tell is let pass."""
    found = fetch_version_min(clients.url)
    if found is not None and found < FETCH_VERSION_MIN:
        raise BrokerTooOldError(clients.url.shown)


def fetch_version_min(url: KafkaUrl) -> int | None:
    """Asked before any login, as every client does (ApiVersions, version 0)."""
    for server in url.servers.split(","):
        host, _, port = server.rpartition(":")
        with suppress(OSError, struct.error, IndexError):
            return _ask_versions(host.strip("[]"), int(port), url)
    return None


def _ask_versions(host: str, port: int, url: KafkaUrl) -> int | None:
    body = struct.pack(">hhih", 18, 0, 1, 8) + b"tailrace"
    with socket.create_connection((host, port), _TIMEOUT_S) as plain:
        connection: socket.socket = plain
        if (context := url.ssl_context()) is not None:
            connection = context.wrap_socket(plain, server_hostname=host)
        connection.sendall(struct.pack(">i", len(body)) + body)
        (length,) = struct.unpack(">i", _exactly(connection, 4))
        answer = _exactly(connection, min(length, 1 << 16))
    _, error, count = struct.unpack_from(">ihi", answer)
    if error:
        return None
    ranges = (struct.unpack_from(">hhh", answer, 10 + 6 * index) for index in range(count))
    return next((lowest for key, lowest, _ in ranges if key == 1), None)


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        if not (more := connection.recv(length - len(data))):
            raise OSError("the connection was closed")
        data += more
    return data
