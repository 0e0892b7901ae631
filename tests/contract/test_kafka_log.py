"""The log's contract on a real Kafka, and what Kafka alone has."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, NewTopic
from log_contract import LogContract, MakeLog, fresh

from tailrace.errors import RetriableError
from tailrace.log import (
    Append,
    FencedError,
    Log,
    LogLimits,
    LogUnavailableError,
    LogUrlError,
    NewRecord,
    Offset,
    OutcomeUnknownError,
    Partition,
    TopicSpec,
    Writer,
    open_log,
)
from tailrace.log.kafka import _writer
from tailrace.log.kafka._cluster import Deadline
from tailrace.log.kafka._connections import Connections
from tailrace.log.kafka._log import KafkaLog
from tailrace.log.kafka._registry import Registry
from tailrace.log.kafka._transactions import transactional_ids
from tailrace.log.kafka._unmarked import transactional_id
from tailrace.log.kafka._url import KafkaUrl
from tailrace.log.kafka._writer import _group_metadata
from tailrace.runtime import SYSTEM, Runtime
from tailrace.testing.kafka import LocalKafka


@pytest.mark.kafka
class TestKafkaLog(LogContract):
    """On new topics of the session's broker."""

    @pytest.fixture
    def log_url(self, kafka_broker: LocalKafka) -> str:
        return kafka_broker.url

    @pytest.fixture
    def commit_points(self) -> tuple[str, str]:
        return "kafka-commit-before", "kafka-commit-after"

    @pytest.fixture
    def make_log(self, log_url: str) -> Iterator[MakeLog]:
        handles: list[Log] = []

        def make(*, limits: LogLimits | None = None, runtime: Runtime = SYSTEM) -> Log:
            handles.append(open_log(log_url, limits=limits, runtime=runtime))
            return handles[-1]

        yield make
        for handle in handles:
            handle.close()


HASTY = LogLimits(request_timeout=timedelta(seconds=1), transaction_timeout=timedelta(seconds=5))


def test_a_kafka_that_is_not_there_is_told_with_its_address() -> None:
    with socket.socket() as taken, pytest.raises(LogUnavailableError) as told:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        began_s = time.monotonic()
        open_log(f"kafka://{address}", limits=HASTY)
    assert time.monotonic() - began_s < 10
    assert address in str(told.value)
    assert "advertised.listeners" in str(told.value)


@pytest.mark.parametrize(
    "url",
    [
        "kafka://",
        "kafka://?a=b",
        "kafka://host:port",
        "kafka://user:hunter2@host:9092",
        "kafka://host:9092?sasl.password=hunter2&acks=0",
        "kafka://127.0.0.1:1?sasl.password=hunter2&no.such.setting=1",
        "kafka://127.0.0.1:1?sasl.password",
    ],
)
def test_a_url_that_cannot_work_is_told_without_its_secrets(url: str) -> None:
    with pytest.raises(LogUrlError) as told:
        open_log(url, limits=HASTY)
    assert "hunter2" not in str(told.value) + repr(told.value.__dict__)


def test_secrets_are_in_no_error_and_no_repr() -> None:
    url = KafkaUrl.parse("kafka://one,two:9093?security.protocol=SASL_SSL&sasl.username=me&sasl.password=hunter2")
    assert url.servers == "one:9092,two:9093"
    assert url.settings["sasl.password"] == "hunter2"
    assert url.shown == "kafka://one,two:9093?security.protocol=SASL_SSL&sasl.username=me&sasl.password=***"
    assert "hunter2" not in repr(url)


def test_a_group_is_named_as_the_client_library_names_it() -> None:
    """The form is librdkafka's own; making it here saves a consumer a group."""
    consumer = Consumer({"group.id": "grüppe-1", "bootstrap.servers": "127.0.0.1:1", "log_level": 0})
    assert _group_metadata("grüppe-1") == consumer.consumer_group_metadata()
    consumer.close()


@pytest.mark.kafka
def test_a_topic_of_somebody_elses_is_not_listed_until_it_is_made(kafka_broker: LocalKafka) -> None:
    """As after a crash between making and registering it: making it again completes it."""
    name = fresh("foreign")
    admin = AdminClient({"bootstrap.servers": kafka_broker.address, "log_level": 0})
    admin.create_topics([NewTopic(name, 3, 1)])[name].result(10)
    log = open_log(kafka_broker.url)
    assert log.topics(name) == {}
    made = log.create_topics([TopicSpec(name)])[name]
    assert made.partitions == 3
    assert log.topics(name) == {name: made}
    log.close()


@pytest.mark.kafka
def test_a_topic_made_again_behind_our_back_is_born_later(kafka_broker: LocalKafka) -> None:
    name = fresh("again")
    log = open_log(kafka_broker.url)
    first = log.create_topics([TopicSpec(name)])[name]
    admin = AdminClient({"bootstrap.servers": kafka_broker.address, "log_level": 0})
    admin.delete_topics([name], operation_timeout=10)[name].result(10)
    assert log.topics(name) == {}
    assert log.create_topics([TopicSpec(name)])[name].born_ms > first.born_ms
    log.close()


@pytest.mark.kafka
def test_makers_who_race_agree_on_the_birth(kafka_broker: LocalKafka) -> None:
    names = [fresh("race") for _ in range(3)]
    logs = [open_log(kafka_broker.url) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda log: log.create_topics([TopicSpec(name) for name in names]), logs))
    assert made[0] == made[1] == made[2] == {name: logs[0].topics(name)[name] for name in names}
    for log in logs:
        log.close()


@pytest.mark.kafka
def test_makers_who_overtake_each_other_stand_back(kafka_broker: LocalKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """Services that start together on a slow machine: each is fenced by the next before it has written."""
    names = [fresh(f"slow-{number}") for number in range(4)]  # so that none of them does another's work
    logs = [open_log(kafka_broker.url, limits=LogLimits(request_timeout=timedelta(seconds=3))) for _ in names]
    original = Registry._open

    def slow(self: Registry, deadline: Deadline) -> Writer:
        writer = original(self, deadline)
        time.sleep(0.3)  # long enough for the others to open it, too
        return writer

    monkeypatch.setattr(Registry, "_open", slow)
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda log, name: log.create_topics([TopicSpec(name)]), logs, names))
    assert set(logs[0].topics("slow-")) >= set(names)
    for log in logs:
        log.close()


def opened_in_time(log: Log, name: str, timeout_s: float) -> Writer:
    """The writer, asked for again and again while the log is away, as hosts do."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return log.open_writer(name)
        except LogUnavailableError:
            if time.monotonic() > deadline_s:
                raise


@pytest.mark.kafka
@pytest.mark.timeout(240)
def test_a_broker_that_dies_and_comes_back() -> None:
    """Everything that was answered is there; calls in between say that the log is away; then it all goes on."""
    with LocalKafka() as broker:
        patient = open_log(broker.url)
        partition = Partition("orders")
        patient.create_topics([TopicSpec("orders")])
        patient.open_writer("w").close()
        patient.close()
        log = open_log(
            broker.url, limits=LogLimits(request_timeout=timedelta(seconds=2), transaction_timeout=timedelta(seconds=5))
        )
        writer = log.open_writer("w")
        log.append(partition, [NewRecord(b"a")])
        writer.commit([Append(partition, [NewRecord(b"b")])])
        broker.kill()  # perhaps before it has written the markers of the commit
        with pytest.raises((OutcomeUnknownError, LogUnavailableError)):
            log.append(partition, [NewRecord(b"lost")])
        with pytest.raises(LogUnavailableError):  # nothing is sent while nobody is there
            log.append(partition, [NewRecord(b"lost")])
        with pytest.raises((OutcomeUnknownError, LogUnavailableError)):
            writer.commit([Append(partition, [NewRecord(b"lost")])])
        with pytest.raises(LogUnavailableError):
            log.ends([partition])
        began_s = time.monotonic()
        broker.restart()
        log.close()
        assert time.monotonic() - began_s < 60
        log = open_log(broker.url)
        again = opened_in_time(log, "w", 120)  # it may take the broker so long to end what was open when it died
        again.commit([Append(partition, [NewRecord(b"c")])])
        log.append(partition, [NewRecord(b"d")])
        end = log.settled_ends([partition])[partition]
        values = [record.value for record in log.read(partition, Offset(0), stop=end).records]
        assert [value for value in values if value != b"lost"] == [b"a", b"b", b"c", b"d"]
        assert again.commits in (2, 3)
        log.close()


@pytest.mark.kafka
@pytest.mark.timeout(240)
def test_who_asks_while_a_broker_dies_is_told_no_wrong_ends(tmp_path: Path) -> None:
    """librdkafka answers OFFSET_INVALID, and no error, where a connection breaks under the question; whoever took that for
    an end would think it had read everything."""
    partitions = [Partition("orders"), Partition("returns")]
    with LocalKafka(folder=tmp_path / "kafka") as broker:
        with closing(open_log(broker.url)) as log:
            log.create_topics([TopicSpec(each.topic) for each in partitions])
            for partition in partitions:
                log.append(partition, [NewRecord(b"a"), NewRecord(b"b")])
        asked, back = threading.Barrier(9), threading.Event()

        def ask_on_and_on() -> set[Offset]:
            """All the answers, up to the first one to a question that was asked after the broker was back."""
            found: set[Offset] = set()
            with closing(open_log(broker.url)) as log:
                found.update(log.ends(partitions).values())
                asked.wait(60)
                while True:
                    is_back = back.is_set()
                    with suppress(RetriableError):
                        found.update(log.ends(partitions).values())
                        if is_back:
                            return found

        with ThreadPoolExecutor(8) as threads:
            asking = [threads.submit(ask_on_and_on) for _ in range(8)]
            asked.wait(60)
            broker.kill()  # some question is on its way at any time
            broker.restart()
            back.set()
            answers = set[Offset]().union(*(each.result(60) for each in asking))
    assert answers == {2}


@pytest.mark.kafka
@pytest.mark.timeout(240)
def test_who_asks_while_a_broker_restarts_has_an_answer_soon_after(tmp_path: Path) -> None:
    """librdkafka's admin client may find no leaders for ever after, where it asked for many topics at the wrong moment; and
    ends the process where it asked for places."""
    names = [f"t{number}" for number in range(40)]
    partitions = [Partition(name) for name in names]
    with LocalKafka(folder=tmp_path / "kafka") as broker:
        with closing(open_log(broker.url)) as log:
            log.create_topics([TopicSpec(name) for name in names])
        back, over = threading.Event(), threading.Event()

        def ask_on_and_on() -> float:
            """Seconds from when the broker was back to the first answer to a question that was asked after."""
            with closing(open_log(broker.url)) as log:
                while not over.is_set():
                    is_back, asked_s = back.is_set(), time.monotonic()
                    with suppress(RetriableError):
                        log.ends(partitions)
                        log.places("readers", partitions)
                        if is_back:
                            return time.monotonic() - asked_s
                    time.sleep(0.06)
            return float("inf")

        with ThreadPoolExecutor(12) as threads:
            asking = [threads.submit(ask_on_and_on) for _ in range(12)]
            broker.stop()
            broker.start()
            back.set()
            wait(asking, timeout=20)
            over.set()
            answers_s = [each.result() for each in asking]
    assert max(answers_s) < 10, answers_s


@pytest.mark.kafka
def test_a_writer_that_rests_may_lose_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brokers close idle ones: what a run of an hour wants to commit is not to be thrown away for that."""
    forgotten: list[Connections] = []
    forget = Connections.forget
    monkeypatch.setattr(Connections, "forget", lambda self: (forgotten.append(self), forget(self)))
    monkeypatch.setattr(_writer, "_REST_S", 0.5)
    with LocalKafka(settings={"connections.max.idle.ms": "1500"}) as broker:
        log = open_log(broker.url)
        log.create_topics([TopicSpec("orders")])
        writer = log.open_writer("w")
        writer.commit([Append(Partition("orders"), [NewRecord(b"a")])])
        deadline_s = time.monotonic() + 60
        while not forgotten:
            assert not writer.lost
            assert time.monotonic() < deadline_s, "the broker closed no connection"
            time.sleep(0.05)
        assert writer.commit([Append(Partition("orders"), [NewRecord(b"b")])]).number == 2
        log.close()


@pytest.mark.kafka
def test_a_writer_that_the_cluster_has_forgotten_is_not_fenced() -> None:
    """Clusters forget the ids of who has committed nothing for a week: a node that runs each month is to go on."""
    expiry = {
        "transactional.id.expiration.ms": "1000",
        "transaction.remove.expired.transaction.cleanup.interval.ms": "500",
        "producer.id.expiration.ms": "1000",
        "producer.id.expiration.check.interval.ms": "500",
    }
    with LocalKafka(settings=expiry) as broker:
        log = open_log(broker.url)
        log.create_topics([TopicSpec("orders")])
        writer = log.open_writer("w")
        writer.commit([Append(Partition("orders"), [NewRecord(b"a")])])
        assert isinstance(log, KafkaLog)
        deadline_s = time.monotonic() + 60
        while transactional_id("w") in transactional_ids(log._clients, []).values():
            assert time.monotonic() < deadline_s, "the cluster forgets nothing"
            time.sleep(0.2)
        again = [Append(Partition("orders"), [NewRecord(b"b")])]
        with pytest.raises(RetriableError):
            writer.commit(again)
        assert writer.commit(again).number == 2
        assert log.open_writer("w").commits == 2
        log.close()


@pytest.mark.kafka
@pytest.mark.kafka
def test_what_is_fenced_or_closed_leaves_no_client_behind(kafka_broker: LocalKafka) -> None:
    """Each has four threads and a connection, and a fleet that is rebalanced fences again and again."""

    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    def settle(at_most: int) -> None:
        until_s = time.monotonic() + 30
        while threads() > at_most:
            assert time.monotonic() < until_s, f"{threads()} threads"
            time.sleep(0.05)

    at_first = threads()
    with closing(open_log(kafka_broker.url)) as log:
        partition = Partition(fresh("t"))
        log.create_topics([TopicSpec(partition.topic)])
        name, before = fresh("w"), threads()
        for _ in range(10):
            with closing(log.open_writer(name)) as older, closing(log.open_writer(name)) as newer:
                newer.commit([Append(partition, [NewRecord(b"x")])])
                with pytest.raises(FencedError):
                    older.commit([Append(partition, [NewRecord(b"y")])])
        settle(before + 20)  # the clients that the log itself has made
    for _ in range(10):
        open_log(kafka_broker.url).close()
    settle(at_first + 10)


def test_a_broker_ends_with_the_process_that_started_it() -> None:
    script = (
        "import sys, time\n"
        "from tailrace.testing.kafka import LocalKafka\n"
        "broker = LocalKafka().start()\n"
        "print(broker.pid, broker.folder, flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid, folder = process.stdout.readline().split()
    process.kill()
    process.wait()
    process.stdout.close()
    deadline_s = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() or Path(folder).exists():
        assert time.monotonic() < deadline_s, "the broker was left behind"
        time.sleep(0.02)
