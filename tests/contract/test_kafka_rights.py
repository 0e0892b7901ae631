"""A cluster that lets nobody do more than docs/operations.md lists, and one that is not as it must be."""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)

from tailrace.doctor import Facts, MachineFacts, examine_all, topic_mends
from tailrace.lake import LakeFacts
from tailrace.log import (
    Append,
    BrokerTooOldError,
    LogUnavailableError,
    NewRecord,
    Offset,
    Partition,
    Place,
    TopicSpec,
    examine,
    mend_topics,
    open_log,
)
from tailrace.testing.kafka import LocalKafka

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
ORDERS = Partition("shop.orders")
USERS = " ".join(f'user_{name}="{name}"' for name in ("admin", "app", "poor"))
SETTINGS = {
    "listener.security.protocol.map": "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "listener.name.plaintext.plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule "
    f'required username="admin" password="admin" {USERS};',
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:admin;User:ANONYMOUS",
}


def as_user(broker: LocalKafka, name: str) -> str:
    login = f"security.protocol=SASL_PLAINTEXT&sasl.mechanism=PLAIN&sasl.username={name}&sasl.password={name}"
    return f"{broker.url}?{login}"


def listed() -> Iterator[tuple[str, str, str]]:
    """Kind, prefix and operation, as the page has them."""
    for kind, prefixes, operations in re.findall(
        r"^\| (\w+) \| ([^|]+) \| ([A-Z_, ]+) \|", PAGE.read_text(), re.MULTILINE
    ):
        for prefix in re.findall(r"`([^`]+)`", prefixes):
            for operation in operations.split(", "):
                yield kind, prefix.replace("<slug>", "shop"), operation.strip()


def allow(admin: AdminClient, user: str, kind: str, prefix: str, operation: str) -> None:
    pattern = ResourcePatternType.LITERAL if kind == "cluster" else ResourcePatternType.PREFIXED
    kinds = {
        "topic": ResourceType.TOPIC,
        "group": ResourceType.GROUP,
        "transactional": ResourceType.TRANSACTIONAL_ID,
        "cluster": ResourceType.BROKER,
    }
    binding = AclBinding(
        kinds[kind], prefix, pattern, f"User:{user}", "*", AclOperation[operation], AclPermissionType.ALLOW
    )
    for future in admin.create_acls([binding]).values():
        future.result(10)


@pytest.fixture(scope="module")
def strict_broker() -> Iterator[LocalKafka]:
    with LocalKafka(settings=SETTINGS) as broker:
        admin = _admin(broker)
        for kind, prefix, operation in listed():
            allow(admin, "app", kind, prefix, operation)
        for operation in ("READ", "DESCRIBE"):
            for prefix in ("shop.", "_tailrace."):
                allow(admin, "poor", "topic", prefix, operation)
        allow(admin, "poor", "group", "tailrace", "DESCRIBE")
        yield broker


def _admin(broker: LocalKafka) -> AdminClient:
    return AdminClient(
        {
            "bootstrap.servers": broker.address,
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "admin",
            "sasl.password": "admin",
        }
    )


def found(url: str) -> Facts:
    return Facts(log=examine(url), lake=LakeFacts(url="none"), machine=MachineFacts(python=(3, 11, 0)))


@pytest.mark.kafka
def test_the_rights_of_the_page_are_enough_and_doctor_names_those_that_are_missing(strict_broker: LocalKafka) -> None:
    url = as_user(strict_broker, "app")
    log = open_log(url)
    log.create_topics([TopicSpec("shop.orders"), TopicSpec("shop._state", compacted=True)])
    writer = log.open_writer("shard-0")
    writer.commit([Append(ORDERS, [NewRecord(b"1")] * 3)], {"shop.node": {ORDERS: Place(Offset(1))}})
    log.append(ORDERS, [NewRecord(b"2")])
    assert log.places("shop.node", [ORDERS])[ORDERS].offset == 1
    assert "shop.node" in log.cut().places
    assert log.trim(ORDERS, Offset(1)) == 1
    writer.close()
    log.delete_group("shop.node")
    log.close()
    facts = found(url)
    assert not [each for each in examine_all(facts) if each.check == "permissions" and each.level != "ok"]

    poor = as_user(strict_broker, "poor")
    told = [each for each in examine_all(found(poor)) if each.check == "permissions"]
    assert any("poor lacks CREATE on topics _tailrace." in each.what for each in told)
    assert any("poor lacks" in each.what and "WRITE" in each.what and "shop.orders" in each.what for each in told)
    log = open_log(poor)
    with pytest.raises(LogUnavailableError, match="denied to the user poor"):
        log.create_topics([TopicSpec("shop.more")])
    log.close()


@pytest.mark.kafka
def test_settings_that_would_lose_rows_are_found_and_mended(strict_broker: LocalKafka) -> None:
    url = as_user(strict_broker, "app")
    log = open_log(url)
    log.create_topics([TopicSpec("shop.wrong")])
    log.close()
    wrong = {"retention.ms": "1000", "cleanup.policy": "compact"}
    entries = [ConfigEntry(*each, incremental_operation=AlterConfigOpType.SET) for each in wrong.items()]
    resource = ConfigResource(ResourceType.TOPIC, "shop.wrong", incremental_configs=entries)
    admin = _admin(strict_broker)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10)
    facts = found(url)
    [finding] = [each for each in examine_all(facts) if each.check == "topic settings"]
    assert finding.level == "wrong"
    assert "retention.ms is 1000, not -1" in finding.what
    assert finding.mend == "tailrace doctor --fix"
    mend_topics(url, topic_mends(facts))
    assert [each.level for each in examine_all(found(url)) if each.check == "topic settings"] == ["ok"]


def test_an_older_broker_is_refused_by_name() -> None:
    """What a broker answers to the question every client asks first: here with the requests of a Kafka 3.9."""
    server = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1024)
            body = struct.pack(">ihi", 1, 0, 2) + struct.pack(">hhh", 0, 0, 11) + struct.pack(">hhh", 1, 0, 17)
            connection.sendall(struct.pack(">i", len(body)) + body)

    thread = threading.Thread(target=answer)
    thread.start()
    with server, pytest.raises(BrokerTooOldError, match=r"older than 4\.0") as told:
        open_log(f"kafka://127.0.0.1:{server.getsockname()[1]}")
    thread.join()
    assert "upgrade the brokers" in told.value.hint
