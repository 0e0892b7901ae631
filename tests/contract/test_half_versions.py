"""Nobody sees half of a new version: activation is one transaction on both logs, also while another writer appends."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from table_reading import fold_topic, reader_of

from tailrace.log import Append, Log, NewRecord, Partition, TopicSpec, open_log
from tailrace.tables import message, rows_message
from tailrace.testing.kafka import LocalKafka

FIELDS = {"generation": "Integer", "row": "Integer"}
MESSAGES = 25
ROWS_PER_MESSAGE = 4


@pytest.fixture
def sqlite_log(tmp_path: Path) -> Iterator[Log]:
    log = open_log(f"sqlite:///{tmp_path / 'log.db'}")
    yield log
    log.close()


@pytest.fixture
def kafka_log(kafka_broker: LocalKafka) -> Iterator[Log]:
    log = open_log(kafka_broker.url)
    yield log
    log.close()


@pytest.fixture(params=["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest) -> Log:
    opened: Log = request.getfixturevalue(f"{request.param}_log")
    return opened


def rows(generation: int, first: int) -> NewRecord:
    found = [{"generation": generation, "row": first + number} for number in range(ROWS_PER_MESSAGE)]
    head = {"kind": "rows", "n": len(found), "fields": FIELDS}
    return NewRecord(rows_message(head, orjson.dumps(found)))


class Activations(threading.Thread):
    """Replaces the table again and again, each time with `MESSAGES` messages in one transaction."""

    def __init__(self, log: Log, partition: Partition) -> None:
        super().__init__(daemon=True)
        self._writer = log.open_writer(f"activations-{uuid.uuid4().hex}")
        self._partition = partition
        self.over = threading.Event()
        self.spans: list[tuple[float, float]] = []
        self.under_way: float | None = None

    def run(self) -> None:
        generation = 0
        while not self.over.is_set():
            generation += 1
            marker = NewRecord(message({"kind": "version", "fields": FIELDS}))
            messages = [rows(generation, number * ROWS_PER_MESSAGE) for number in range(MESSAGES)]
            self.under_way = began = time.monotonic()
            self._writer.commit([Append(self._partition, [marker, *messages])])
            self.spans.append((began, time.monotonic()))
            self.under_way = None
        self._writer.close()


class Appends(threading.Thread):
    """Another writer, without transactions: its rows belong to whatever version is active at their place."""

    def __init__(self, log: Log, partition: Partition) -> None:
        super().__init__(daemon=True)
        self._log, self._partition = log, partition
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            self._log.append(self._partition, [rows(-1, 0)])
            time.sleep(0.001)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("second_writer", [False, True])
@pytest.mark.parametrize("reads", [250, pytest.param(1_000, marks=pytest.mark.chaos)])
def test_no_read_sees_half_of_a_version(log: Log, reads: int, second_writer: bool) -> None:
    """Reads that overlap an activation, here a thousand in all: each sees all rows of one generation, or of none."""
    partition = Partition(f"half.{uuid.uuid4().hex}")
    log.create_topics([TopicSpec(partition.topic)])
    threads: list[Activations | Appends] = [activations := Activations(log, partition)]
    if second_writer:
        threads.append(Appends(log, partition))
    for thread in threads:
        thread.start()
    overlapping = 0
    fold, generations = None, set()
    try:
        deadline = time.monotonic() + 240
        while overlapping < reads:
            assert time.monotonic() < deadline, f"only {overlapping} reads overlapped an activation"
            began = time.monotonic()
            fold = fold_topic(log, partition, fold)
            reader = reader_of(log, partition, fold)
            if reader is None:
                continue
            table = reader.table().to_pylist()
            ended = time.monotonic()
            own = [row for row in table if row["generation"] != -1]
            seen = {row["generation"] for row in own}
            if own:
                assert len(seen) == 1, f"rows of generations {sorted(seen)} in one version"
                assert [row["row"] for row in own] == list(range(MESSAGES * ROWS_PER_MESSAGE))
                generations |= seen
            under_way = activations.under_way
            spans = [*activations.spans[-200:], (under_way or ended, ended)]
            overlapping += any(start < ended and stop > began for start, stop in spans)
    finally:
        for thread in threads:
            thread.over.set()
        for thread in threads:
            thread.join(timeout=30)
    print(f"{overlapping} overlapping reads of {len(generations)} generations")
    assert len(generations) > 20


def test_a_stream_over_a_replaced_table_gives_each_new_row_once(log: Log) -> None:
    """Wherever the stream stood: the rows of the new version, each once, none of the old ones."""
    partition = Partition(f"half.{uuid.uuid4().hex}")
    log.create_topics([TopicSpec(partition.topic)])
    writer = log.open_writer(f"replace-{uuid.uuid4().hex}")
    place, given = (0, 0), []
    for generation in range(20):
        marker = NewRecord(message({"kind": "version", "fields": FIELDS}))
        writer.commit([Append(partition, [marker, rows(generation, 0), rows(generation, ROWS_PER_MESSAGE)])])
        reader = reader_of(log, partition, fold_topic(log, partition, settled=True))
        assert reader is not None
        for batch in reader.stream(*place):
            for row, after in zip(batch.rows, batch.places, strict=True):
                if generation % 3 == 2 and row["row"] == 5:
                    break  # left in the middle: the rest of this version is never asked for
                given.append((row["generation"], row["row"]))
                place = after
    writer.close()
    expected = [(g, row) for g in range(20) for row in range(5 if g % 3 == 2 else 2 * ROWS_PER_MESSAGE)]
    assert given == expected
