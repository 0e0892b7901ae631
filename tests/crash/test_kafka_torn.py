"""Torn transactions: whatever happens to the requests that end them, each is there whole, once, or not at all."""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from confluent_kafka import Producer
from kafka_proxy import FIND_COORDINATOR, Fault, KafkaProxy

from tailrace.log import (
    Append,
    Log,
    LogLimits,
    LogUnavailableError,
    NewRecord,
    Offset,
    OutcomeUnknownError,
    Partition,
    Place,
    TopicSpec,
    Writer,
    open_log,
)
from tailrace.log.kafka._sender import Delivered, produce_all
from tailrace.runtime import Crash
from tailrace.testing.kafka import LocalKafka

pytestmark = pytest.mark.kafka

HASTY = LogLimits(request_timeout=timedelta(seconds=1), transaction_timeout=timedelta(seconds=10))
"""Of the writers behind the proxy: an answer that is lost is given up soon."""

WRITERS = 8
TOPICS = 4
TRIES_MAX = 50


@dataclass
class House:
    """A broker, the proxy before it, and topics that nobody else writes."""

    broker: LocalKafka
    proxy: KafkaProxy
    log: Log
    topics: list[Partition]


@dataclass
class Ledger:
    """What one writer did, by its own account."""

    name: str
    group: str
    rows: dict[Partition, list[str]]
    place: Place | None = None
    commits: int = 0
    happened: int = 0
    """Unknown outcomes that had committed."""
    not_happened: int = 0
    """Unknown outcomes that had not."""
    faults: Counter[str] = field(default_factory=Counter)


@pytest.fixture(scope="module")
def proxied() -> Iterator[tuple[LocalKafka, KafkaProxy]]:
    with KafkaProxy() as proxy, LocalKafka(proxy_port=proxy.port) as broker:
        host, _, port = broker.proxied_address.rpartition(":")
        proxy.upstream = (host, int(port))
        yield broker, proxy


@pytest.fixture
def house(proxied: tuple[LocalKafka, KafkaProxy]) -> Iterator[House]:
    broker, proxy = proxied
    log = open_log(broker.url)
    names = [f"torn.{secrets.token_hex(4)}.{number}" for number in range(TOPICS)]
    log.create_topics([TopicSpec(name) for name in names])
    yield House(broker, proxy, log, [Partition(name) for name in names])
    log.close()


class Client:
    """Writes transactions through the proxy, and after an unknown outcome asks the number what became of it."""

    def __init__(self, house: House, seed: int) -> None:
        self.house = house
        self.random = random.Random(seed)
        name = f"torn-{secrets.token_hex(4)}"
        self.ledger = Ledger(name, f"group-{name}", {topic: [] for topic in house.topics})
        self.log = open_log(f"kafka://127.0.0.1:{house.proxy.port}", limits=HASTY)
        self.writer = self.open()

    @property
    def transactional_id(self) -> str:
        return f"tailrace.{self.ledger.name}"

    def open(self) -> Writer:
        for _ in range(TRIES_MAX):
            try:
                return self.log.open_writer(self.ledger.name)
            except LogUnavailableError:
                pass
        raise AssertionError("the writer could not be opened")

    def run(self, transactions: int, faults: list[Fault | None]) -> Ledger:
        deck = (faults * (transactions // len(faults) + 1))[:transactions]
        self.random.shuffle(deck)
        for step, fault in enumerate(deck):
            self.transact(step, fault)
        self.deliver()
        self.log.close()
        return self.ledger

    def transact(self, step: int, fault: Fault | None) -> None:
        topics = self.random.sample(self.house.topics, self.random.randint(2, TOPICS))
        rows = {topic: [f"{self.ledger.name} {step} {n}" for n in range(self.random.randint(1, 4))] for topic in topics}
        place = Place(Offset(step + 1), str(step)) if self.random.random() < 0.5 else None
        appends = [Append(topic, [NewRecord(row.encode()) for row in of_topic]) for topic, of_topic in rows.items()]
        places = None if place is None else {self.ledger.group: {topics[0]: place, topics[1]: place}}
        if fault is not None:
            self.house.proxy.plan(self.transactional_id, fault)
        for _ in range(TRIES_MAX):
            try:
                self.writer.commit(appends, places)
                break
            except LogUnavailableError:
                continue
            except OutcomeUnknownError:
                if self.settle():
                    break
        else:
            raise AssertionError(f"transaction {step} did not come through")
        self.house.proxy.forget_plan(self.transactional_id)
        self.ledger.commits += 1
        for topic, of_topic in rows.items():
            self.ledger.rows[topic] += of_topic
        if place is not None:
            self.ledger.place = place

    def settle(self) -> bool:
        """Whether the transaction in doubt was committed. What was held of it arrives once the next writer is open."""
        self.house.proxy.forget_plan(self.transactional_id)
        self.writer = self.open()
        self.deliver()
        happened = self.writer.commits > self.ledger.commits
        assert self.writer.commits - self.ledger.commits in (0, 1)
        if happened:
            self.ledger.happened += 1
        else:
            self.ledger.not_happened += 1
        return happened

    def deliver(self) -> None:
        if self.house.proxy.holds(self.transactional_id):
            self.house.proxy.deliver_held(self.transactional_id)


class AlwaysAgain(Client):
    """Planted: takes every unknown outcome for one that did not happen."""

    def settle(self) -> bool:
        happened = super().settle()
        self.ledger.commits += happened
        return False


class NeverAgain(Client):
    """Planted: takes every unknown outcome for one that happened."""

    def settle(self) -> bool:
        happened = super().settle()
        self.ledger.commits -= not happened
        return True


def check(house: House, ledgers: list[Ledger]) -> list[str]:
    """What is wrong with what is in the log, against what the writers say."""
    wrong: list[str] = []
    for topic in house.topics:
        end = house.log.settled_ends([topic])[topic]
        found: list[str] = []
        at = Offset(0)
        while at < end:
            batch = house.log.read(topic, at, stop=end)
            found += [(record.value or b"").decode() for record in batch.records]
            at = batch.next
        for ledger in ledgers:
            own = [row for row in found if row.startswith(f"{ledger.name} ")]
            if own != ledger.rows[topic]:
                extra, lost = Counter(own) - Counter(ledger.rows[topic]), Counter(ledger.rows[topic]) - Counter(own)
                wrong.append(f"{topic.topic}: {ledger.name} has {list(extra)} too many, lacks {list(lost)}")
    for ledger in ledgers:
        places = house.log.places(ledger.group, house.topics)
        latest = max(places.values(), default=None)
        if latest != ledger.place:
            wrong.append(f"{ledger.group} stands at {latest}, its writer says {ledger.place}")
        commits = house.log.open_writer(ledger.name).commits
        if commits != ledger.commits:
            wrong.append(f"{ledger.name} has {commits} commits in the log, and {ledger.commits} by its own account")
    return wrong


def seed_of_this_run() -> int:
    seed = int(os.environ.get("TAILRACE_SEED") or secrets.randbits(32))
    print(f"TAILRACE_SEED={seed} runs this again")
    return seed


MIX: list[Fault | None] = [*Fault, *[None] * 5]


@pytest.mark.parametrize(
    "transactions", [200, pytest.param(2_000, marks=[pytest.mark.chaos, pytest.mark.timeout(1_800)])]
)
def test_no_transaction_is_torn_lost_or_applied_twice(house: House, transactions: int) -> None:
    """The proxy loses, delays, holds and repeats what ends transactions; each is there whole and once all the same."""
    seed = seed_of_this_run()
    clients = [Client(house, seed + number) for number in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as pool:
        runs = [pool.submit(client.run, transactions // WRITERS, MIX) for client in clients]
        ledgers = [run.result() for run in runs]
    assert check(house, ledgers) == []
    assert sum(ledger.commits for ledger in ledgers) == transactions // WRITERS * WRITERS
    happened, not_happened = sum(each.happened for each in ledgers), sum(each.not_happened for each in ledgers)
    print(f"{happened} unknown outcomes had committed, {not_happened} had not; {house.proxy.done}")
    assert min(happened, not_happened) >= 20


def test_a_commit_does_not_wait_for_ever_for_a_coordinator(house: House) -> None:
    """librdkafka waits for the coordinator of the places' group for as long as nobody answers, whatever its time."""
    client = Client(house, 3)
    topic = house.topics[0]
    appends, places = [Append(topic, [NewRecord(b"row")])], {client.ledger.group: {topic: Place(Offset(1))}}
    house.proxy.swallowed = frozenset({FIND_COORDINATOR})
    began_s = time.monotonic()
    try:
        with pytest.raises(OutcomeUnknownError):
            client.writer.commit(appends, places)
    finally:
        house.proxy.swallowed = frozenset()
    assert time.monotonic() - began_s < 20  # about three; the call alone does not come back
    client.writer = client.open()
    assert client.writer.commits == 0
    client.writer.commit(appends, places)
    assert house.log.places(client.ledger.group, [topic]) == {topic: Place(Offset(1))}
    client.log.close()


@pytest.mark.parametrize(("planted", "fault"), [(AlwaysAgain, Fault.LOSE_ANSWER), (NeverAgain, Fault.LOSE_REQUEST)])
def test_the_check_finds_who_ignores_the_number(house: House, planted: type[Client], fault: Fault) -> None:
    ledger = planted(house, 1).run(3, [fault])
    assert check(house, [ledger]) != []


@pytest.mark.parametrize("careful", [True, False])
def test_a_request_that_arrives_in_the_next_transaction_of_its_producer(
    house: House, monkeypatch: pytest.MonkeyPatch, careful: bool
) -> None:
    """The connection breaks while a commit is on its way, the client library repeats it on a new one, and the first copy
    comes in the middle of the next transaction, whose process then dies. Nothing of that one may be there: so the
    producer is not used again. Where it is (the planted fault), the copy commits what was sent so far.
    """
    if not careful:
        monkeypatch.setattr("tailrace.log.kafka._connections.Connections.broken", property(lambda self: False))
    client = Client(house, 2)
    client.transact(0, Fault.HOLD_AND_CUT)
    assert client.house.proxy.holds(client.transactional_id) != careful

    def send_half_and_die(
        producer: Producer, partition: Partition, records: Sequence[NewRecord], **callbacks: Delivered
    ) -> None:
        produce_all(producer, partition, records, **callbacks)
        assert producer.flush(10) == 0
        end = house.log.ends([partition])[partition]
        if not careful:
            client.deliver()
            while house.log.ends([partition])[partition] == end:
                threading.Event().wait(0.01)
        raise Crash("half way")

    with monkeypatch.context() as dying, pytest.raises(Crash):
        dying.setattr("tailrace.log.kafka._writer.produce_all", send_half_and_die)
        client.transact(1, None)
    client.writer = client.open()
    client.log.close()
    assert (check(house, [client.ledger]) == []) == careful
