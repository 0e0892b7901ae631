"""A transaction that was decided and lacks its markers, as a broker leaves it that died at the wrong moment."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tailrace.doctor import Facts, MachineFacts, examine_all, hanging_writers
from tailrace.lake import LakeFacts
from tailrace.log import Append, Log, LogLimits, NewRecord, Offset, Partition, TopicSpec, end_hanging, examine, open_log
from tailrace.log.kafka._log import KafkaLog
from tailrace.log.kafka._unmarked import COORDINATOR, ENTRY, coordinator_partition, entries, transactional_id
from tailrace.log.kafka._writer import numbers_topic
from tailrace.runtime import Runtime, SystemClock
from tailrace.testing.kafka import LocalKafka

TABLE = Partition("orders")
CONTROL = 0x20
COMPLETE = (4, 5)
"""Statuses of a transaction there: it is committed or aborted, and all its markers are written."""

SHORT = LogLimits(request_timeout=timedelta(seconds=3))
"""The lag behind what hangs cannot be told: that question takes as long as one may."""

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


class LaterClock(SystemClock):
    """A minute later than it is."""

    def now_ms(self) -> int:
        return super().now_ms() + 60_000


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[LocalKafka]:
    """A broker of its own, because it dies."""
    with LocalKafka(folder=tmp_path / "kafka", startup_timeout=timedelta(minutes=2)) as broker:
        yield broker


def without_last_marker(partition: Path) -> None:
    """Take the last batch of a partition away, which is to be a marker, and what the broker remembers of it apart from that."""
    [segment] = partition.glob("*.log")
    data, at, last = segment.read_bytes(), 0, 0
    while at + 12 <= len(data) and (size := struct.unpack_from(">i", data, at + 8)[0]) > 0:
        last, at = at, at + 12 + size
    assert struct.unpack_from(">h", data, last + 21)[0] & CONTROL, "the last batch is no marker"
    segment.write_bytes(data[:last])
    for more in (*partition.glob("*.index"), *partition.glob("*.timeindex"), *partition.glob("*.snapshot")):
        more.unlink()


def is_complete(log: KafkaLog, writer: str) -> bool:
    """Whether the coordinator has written down that the writer's last transaction has its markers: else it writes them
    once it is back."""
    name = transactional_id(writer)
    topic = log._cluster.describe([COORDINATOR])[COORDINATOR]
    partition = Partition(COORDINATOR, coordinator_partition(name, topic.partitions))
    records = log.read(partition, Offset(0), stop=log.ends([partition])[partition]).records
    *_, last = entries(records, name)
    return ENTRY.unpack_from(last)[-1] in COMPLETE


def leave_unmarked(kafka: LocalKafka, log: Log, *writers: str) -> None:
    """The last transactions of writers lose their markers, in the table and in the writers' own topics."""
    assert isinstance(log, KafkaLog)
    while not all(is_complete(log, writer) for writer in writers):
        time.sleep(0.05)
    log.close()
    kafka.kill()
    for topic, number in (TABLE, *(Partition(numbers_topic(writer)) for writer in writers)):
        without_last_marker(kafka.folder / "data" / f"{topic}-{number}")
    kafka.restart()


def values(log: Log) -> list[bytes | None]:
    end = log.settled_ends([TABLE])[TABLE]
    return [record.value for record in log.read(TABLE, Offset(0), stop=end).records]


def test_a_commit_without_markers_is_ended_by_the_next_opener_and_by_doctor(kafka: LocalKafka) -> None:
    """Nothing of it is lost, its number is not either, and what was aborted stays aborted."""
    log = open_log(kafka.url)
    log.create_topics([TopicSpec("orders")])
    for name in ("w", "other"):
        writer = log.open_writer(name)
        writer.commit([Append(TABLE, [NewRecord(b"1")])])
        writer.close()

    # Both commits, as far as the numbers tell; the table's last marker was of `other`.
    leave_unmarked(kafka, log, "w", "other")
    log = open_log(kafka.url)
    assert len(log.read(TABLE, Offset(0)).records) == 1, "what has no marker is not seen"
    assert log.open_writer("w").commits == 1

    facts = Facts(
        log=examine(kafka.url, limits=SHORT, runtime=Runtime(clock=LaterClock())),
        lake=LakeFacts(url="none"),
        machine=MachineFacts(python=(3, 11, 0)),
    )
    found = [each for each in examine_all(facts) if each.check == "transactions"]
    assert {each.what.partition(" ")[0] for each in found} == {"orders/0", f"{numbers_topic('other')}/0"}
    assert {each.mend for each in found} == {"tailrace doctor --fix"}
    assert hanging_writers(facts) == ["other"]
    end_hanging(kafka.url, hanging_writers(facts))
    assert values(log) == [b"1", b"1"]
    assert log.open_writer("other").commits == 1
    log.close()


def test_an_abort_without_markers_stays_an_abort(kafka: LocalKafka) -> None:
    log = open_log(kafka.url)
    log.create_topics([TopicSpec("orders")])
    writer = log.open_writer("w")
    writer.commit([Append(TABLE, [NewRecord(b"1")])])
    writer.close()
    rival = Producer({"bootstrap.servers": kafka.address, "transactional.id": transactional_id("w")})
    rival.init_transactions(30)
    rival.begin_transaction()
    for topic in (TABLE.topic, numbers_topic("w")):
        rival.produce(topic, b"aborted", partition=0)
    rival.flush(30)
    rival.abort_transaction(30)

    leave_unmarked(kafka, log, "w")
    log = open_log(kafka.url)
    again = log.open_writer("w")
    assert again.commits == 1
    assert values(log) == [b"1"]
    again.commit([Append(TABLE, [NewRecord(b"2")])])
    assert values(log) == [b"1", b"2"]
    log.close()
