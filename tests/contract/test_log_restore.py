"""A log's cut, made again on either log: every record at its offset, whatever the gaps, whatever dies when."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tailrace.log import (
    Append,
    Log,
    LogCut,
    NewRecord,
    NotEmptyError,
    Offset,
    Partition,
    Place,
    Record,
    RestoreUnfinishedError,
    TopicSpec,
    open_log,
    open_restore,
    scan,
)
from tailrace.runtime import Crash, CrashAt, ManualClock, Probe, Runtime
from tailrace.testing.kafka import LocalKafka

PLAIN, PARTED, COMPACTED = "shop.orders", "shop.parted", "shop._state"
POINTS = {
    "sqlite": ["restore-begun", "restore-filled"],
    "kafka": ["restore-begun", "restore-created", "restore-filled", "restore-settled"],
}
LOGS = ["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)]


@pytest.fixture(scope="module")
def own_broker() -> Iterator[LocalKafka]:
    """One that no other test writes to: a restore goes only where nothing is."""
    with LocalKafka() as broker:
        yield broker


@pytest.fixture
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Kind -> URL of an empty log."""
    urls = {"sqlite": f"sqlite://{tmp_path}/to/tailrace.db"}
    if request.node.get_closest_marker("kafka") is not None:
        urls["kafka"] = request.getfixturevalue("own_broker").url
        _empty(urls["kafka"])
    yield urls
    if "kafka" in urls:
        _empty(urls["kafka"])


def _empty(url: str) -> None:
    try:
        log = open_log(url)
    except RestoreUnfinishedError:
        open_restore(url, LogCut({}, {}, {}, {})).finish()
        log = open_log(url)
    log.delete_topics(list(log.topics()))
    log.close()


def write_history(log: Log) -> None:
    """What a deployment leaves: trims, keys that were written again, deleted keys, transactions over partitions."""
    log.create_topics([TopicSpec(PLAIN), TopicSpec(PARTED, 3), TopicSpec(COMPACTED, compacted=True), TopicSpec("a.b")])
    writer = log.open_writer("shard-0")
    for number in range(40):
        state = NewRecord(b"%d" % number if number % 7 else None, b"slot-%d" % (number % 3))
        rows = [NewRecord(b"row %d.%d" % (number, each)) for each in range(number % 4)]
        written = [
            Append(Partition(PLAIN), rows),
            Append(Partition(PARTED, number % 2), [NewRecord(b"p", b"k")]),
            Append(Partition(COMPACTED), [state]),
        ]
        places = {"shop.node": {Partition(PLAIN): Place(Offset(number), f"row {number}")}}
        writer.commit([each for each in written if each.records], places)
    log.append(Partition(PLAIN), [NewRecord(b"", None), NewRecord(b"x" * 70_000, b"large")])
    log.trim(Partition(PLAIN), Offset(10))
    writer.close()


def contents(log: Log, cut: LogCut) -> dict[Partition, list[Record]]:
    found: dict[Partition, list[Record]] = {}
    for partition, stands in cut.partitions.items():
        batches = scan(log, partition, stands.start, stands.stop)
        found[partition] = [record for batch in batches for record in batch.records]
    return found


def restore(url: str, cut: LogCut, records: dict[Partition, list[Record]], probe: Probe | None = None) -> None:
    into = open_restore(url, cut, runtime=Runtime(probe=probe or Probe()))
    try:
        for partition, all_of_it in records.items():
            for at in range(0, len(all_of_it), 7):
                into.put(partition, all_of_it[at : at + 7])
        into.finish()
    finally:
        into.close()


def check(url: str, cut: LogCut, records: dict[Partition, list[Record]]) -> None:
    log = open_log(url)
    try:
        now = log.cut()
        assert (now.topics, now.places, now.writers) == (cut.topics, cut.places, cut.writers)
        assert {at: each.start for at, each in now.partitions.items()} == {
            at: each.start for at, each in cut.partitions.items()
        }
        found = contents(log, now)
        for partition, there in records.items():
            if not cut.topics[partition.topic].compacted:
                assert found[partition] == there
            assert {each.key: each for each in found[partition]} == {each.key: each for each in there}
        end = log.ends([Partition(PLAIN)])[Partition(PLAIN)]
        assert log.append(Partition(PLAIN), [NewRecord(b"goes on")]).start == end
        assert abs(log.read(Partition(PLAIN), end).records[0].ts_ms - cut.topics[PLAIN].born_ms) < 600_000
    finally:
        log.close()


@pytest.fixture
def history(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[LogCut, dict[Partition, list[Record]]]:
    """A log of the kind that the test names, cut."""
    kind = request.param
    url = f"sqlite://{tmp_path}/from/tailrace.db"
    if kind == "kafka":
        url = request.getfixturevalue("own_broker").url
        _empty(url)
    log = open_log(url)
    write_history(log)
    cut = log.cut()
    found = contents(log, cut)
    log.close()
    return cut, found


@pytest.mark.parametrize("to", LOGS)
@pytest.mark.parametrize("history", LOGS, indirect=True)
def test_a_log_made_again_has_every_record_at_its_offset(
    history: tuple[LogCut, dict[Partition, list[Record]]], to: str, places: dict[str, str]
) -> None:
    """Positions lie in State, indexes, run history and the lake: none of them may mean another record."""
    cut, records = history
    restore(places[to], cut, records)
    check(places[to], cut, records)


@pytest.mark.parametrize("to", LOGS)
@pytest.mark.parametrize("history", ["sqlite"], indirect=True)
def test_a_restore_that_died_is_told_and_begun_again(
    history: tuple[LogCut, dict[Partition, list[Record]]], to: str, places: dict[str, str]
) -> None:
    cut, records = history
    for point in POINTS[to]:
        with pytest.raises(Crash):
            restore(places[to], cut, records, CrashAt(point))
        if to == "kafka":
            with pytest.raises(RestoreUnfinishedError, match="half restored"):
                open_log(places[to])
    restore(places[to], cut, records)
    check(places[to], cut, records)
    with pytest.raises(NotEmptyError):
        restore(places[to], cut, records)


@pytest.mark.kafka
def test_a_cut_never_splits_a_transaction(places: dict[str, str]) -> None:
    """While two writers commit to two topics each, both topics end with the same commit of each of them."""
    log = open_log(places["kafka"])
    log.create_topics([TopicSpec("cut.a"), TopicSpec("cut.b")])
    stop = threading.Event()

    def write(name: str) -> None:
        writer = log.open_writer(name)
        while not stop.is_set():
            value = [NewRecord(f"{name} {writer.commits}".encode())]
            writer.commit([Append(Partition("cut.a"), value), Append(Partition("cut.b"), value)])
            stop.wait(0.05)
        writer.close()

    threads = [threading.Thread(target=write, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            cut = log.cut()
            found = contents(log, cut)
            one, two = ([each.value for each in found[Partition(name)]] for name in ("cut.a", "cut.b"))
            assert sorted(filter(None, one)) == sorted(filter(None, two))
            assert cut.writers.get("one", 0) + cut.writers.get("two", 0) == len(one)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        log.close()


def test_the_births_of_a_sqlite_log_made_again_are_not_given_twice(tmp_path: Path) -> None:
    """A clock that went back must not make a topic as old as one that is restored."""
    born = Runtime(clock=ManualClock(2_000_000_000_000))
    log = open_log(f"sqlite://{tmp_path}/one/tailrace.db", runtime=born)
    log.create_topics([TopicSpec("old")])
    cut = log.cut()
    log.close()
    url = f"sqlite://{tmp_path}/two/tailrace.db"
    restore(url, cut, {})
    again = open_log(url, runtime=Runtime(clock=ManualClock(1_000_000_000_000)))
    assert again.create_topics([TopicSpec("new")])["new"].born_ms > cut.topics["old"].born_ms
    again.close()
