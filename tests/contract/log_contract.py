"""What every log does: one suite, run by each backend.

A backend's test class derives from `LogContract`, adds three fixtures and nothing else:

- `log_url`: where the log lies; another process can open it, too.
- `make_log(limits=..., runtime=...)`: opens one more handle on that log; handles are closed when the test ends.
- `commit_points`: names of the probe points just before and just after a transaction is committed.

Topics, groups and writers have fresh names, so that the suite runs on a broker that others use.
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pytest

from tailrace.errors import AbortableError, FatalError, RejectedError, RetriableError, SettingError
from tailrace.log import (
    Append,
    FencedError,
    Log,
    LogBusyError,
    LogLimits,
    LogUnavailableError,
    NewRecord,
    Offset,
    OffsetGapError,
    OutcomeUnknownError,
    Partition,
    Place,
    Record,
    RecordTooLargeError,
    TopicNotFoundError,
    TopicSpec,
    Watch,
)
from tailrace.runtime import SYSTEM, Probe, Runtime

SMALL = LogLimits(record_bytes_max=1_000)
DEADLINE_S = 20.0


class MakeLog(Protocol):
    """Opens one more handle on the log under test."""

    def __call__(self, *, limits: LogLimits = ..., runtime: Runtime = ...) -> Log: ...


class LostAnswer(Probe):
    """Breaks the connection at a commit that the test chooses, before or after it has happened."""

    def __init__(self, commit_points: tuple[str, str]) -> None:
        self._before, self._after = commit_points
        self._at: str | None = None

    def lose_next(self, *, happened: bool) -> None:
        self._at = self._after if happened else self._before

    def reached(self, point: str) -> None:
        if point == self._at:
            self._at = None
            raise ConnectionResetError(f"the test cut the line at {point}")


def fresh(name: str) -> str:
    """A name that nobody used before."""
    return f"{name}.{secrets.token_hex(5)}"


def record(text: str, key: str | None = None) -> NewRecord:
    return NewRecord(text.encode(), None if key is None else key.encode())


def numbered(count: int, prefix: str = "") -> list[NewRecord]:
    return [record(f"{prefix}{number}") for number in range(count)]


def everything(log: Log, partition: Partition, start: int | None = None) -> list[Record]:
    """All records from `start` (the log's own where None) up to the settled end."""
    end = log.settled_ends([partition])[partition]
    at = log.starts([partition])[partition] if start is None else Offset(start)
    records: list[Record] = []
    while at < end:
        batch = log.read(partition, at, stop=end)
        assert batch.next > at, "a read before the end must come further"
        records += batch.records
        at = batch.next
    return records


def texts(records: Sequence[Record]) -> list[str | None]:
    return [None if found.value is None else found.value.decode() for found in records]


def trim_to(log: Log, partition: Partition, before: int, records_max: int = 5_000) -> int:
    """Trim to `before`, counting the steps."""
    steps = 0
    while log.trim(partition, Offset(before), records_max=records_max) < before:
        steps += 1
        assert steps < 1_000
    return steps + 1


class LogContract:
    """What every `Log` does."""

    @pytest.fixture
    def log(self, make_log: MakeLog) -> Log:
        return make_log()

    @pytest.fixture
    def partition(self, log: Log) -> Partition:
        """The only partition of a new topic."""
        return self.partitions(log, 1)[0]

    def partitions(self, log: Log, topics: int, *, compacted: bool = False) -> list[Partition]:
        specs = [TopicSpec(fresh("orders"), compacted=compacted) for _ in range(topics)]
        log.create_topics(specs)
        return [Partition(spec.name) for spec in specs]

    # Topics

    def test_a_topic_is_what_it_was_made_as(self, log: Log, make_log: MakeLog) -> None:
        name = fresh("made")
        made = log.create_topics([TopicSpec(name, partitions=3, compacted=True)])[name]
        assert (made.name, made.partitions, made.compacted) == (name, 3, True)
        assert abs(made.born_ms - time.time() * 1000) < 600_000
        assert make_log().topics(name)[name] == made  # born_ms too: ids of rows are made from it

    def test_making_a_topic_again_changes_nothing(self, log: Log) -> None:
        """Two starters race, or one was killed between topics: the call is made again, with what is missing."""
        name, other = fresh("made"), fresh("made")
        made = log.create_topics([TopicSpec(name, partitions=2)])
        log.append(Partition(name, 1), [record("a")])
        again = log.create_topics([TopicSpec(name, partitions=5, compacted=True), TopicSpec(other)])
        assert again[name] == made[name]
        assert set(again) == {name, other}
        assert texts(everything(log, Partition(name, 1))) == ["a"]

    def test_topics_are_listed_by_prefix(self, log: Log) -> None:
        prefix = fresh("list")
        names = [f"{prefix}.{end}" for end in "cab"]
        log.create_topics([TopicSpec(name) for name in [*names, fresh("other")]])
        log.open_writer(fresh("writer")).commit()
        assert list(log.topics(f"{prefix}.")) == sorted(names)
        assert log.topics(fresh("nothing")) == {}
        assert set(names) <= set(log.topics())
        assert not [name for name in log.topics() if name.startswith("__")]  # a broker's own are left out

    @pytest.mark.parametrize("name", ["", "with space", "slash/ed", "ünïcode", ".", "..", "x" * 250])
    def test_a_topic_name_that_one_log_cannot_have_none_takes(self, log: Log, name: str) -> None:
        with pytest.raises(SettingError):
            log.create_topics([TopicSpec(name)])

    def test_a_topic_needs_a_partition(self, log: Log) -> None:
        with pytest.raises(SettingError):
            log.create_topics([TopicSpec(fresh("none"), partitions=0)])

    def test_a_deleted_topic_is_gone(self, log: Log, make_log: MakeLog, partition: Partition) -> None:
        log.append(partition, numbered(3))
        log.delete_topics([fresh("never-there"), partition.topic])
        for handle in (log, make_log()):
            assert handle.topics(partition.topic) == {}
            with pytest.raises(TopicNotFoundError):
                handle.read(partition, Offset(0))
            with pytest.raises(TopicNotFoundError):
                handle.append(partition, numbered(1))

    def test_a_topic_made_again_is_born_later_and_empty(self, log: Log, partition: Partition) -> None:
        """Row ids hold birth and offset: with the same birth, new rows would get ids of old ones."""
        first = log.topics(partition.topic)[partition.topic]
        for _ in range(3):
            log.append(partition, numbered(5))
            log.delete_topics([partition.topic])
            again = log.create_topics([TopicSpec(partition.topic)])[partition.topic]
            assert again.born_ms > first.born_ms
            first = again
            assert everything(log, partition) == []
            assert log.starts([partition])[partition] == 0
            assert texts(everything(log, partition)) == []

    def test_a_partition_that_is_not_there_is_told(self, log: Log, partition: Partition) -> None:
        for missing in (Partition(fresh("nowhere")), Partition(partition.topic, 1), Partition(partition.topic, -1)):
            calls: list[Callable[[], object]] = [
                lambda p=missing: log.append(p, numbered(1)),
                lambda p=missing: log.read(p, Offset(0)),
                lambda p=missing: log.ends([p]),
                lambda p=missing: log.starts([p]),
                lambda p=missing: log.settled_ends([p]),
                lambda p=missing: log.trim(p, Offset(1)),
            ]
            for call in calls:
                with pytest.raises(TopicNotFoundError) as told:
                    call()
                assert isinstance(told.value, RejectedError)
                assert (told.value.topic, told.value.partition) == missing

    # Appending and reading

    def test_what_was_appended_is_read_in_order(self, log: Log, make_log: MakeLog, partition: Partition) -> None:
        first = log.append(partition, [record("a"), record("b", "key")])
        second = log.append(partition, [record("c")])
        assert first.stop <= second.start
        for handle in (log, make_log()):
            found = everything(handle, partition)
            assert [(one.key, one.value) for one in found] == [(None, b"a"), (b"key", b"b"), (None, b"c")]
            assert all(first.start <= one.offset < first.stop for one in found[:2])
            assert [one.offset for one in found] == sorted({one.offset for one in found})
            assert all(abs(one.ts_ms - time.time() * 1000) < 600_000 for one in found)

    def test_reading_on_from_the_stop_of_an_append_finds_nothing(self, log: Log, partition: Partition) -> None:
        """`stop` is one past the last record: to go on from there must not give the last one again."""
        written = log.append(partition, numbered(2))
        assert log.read(partition, written.stop).records == []
        assert log.settled_ends([partition])[partition] >= written.stop

    def test_nothing_empty_and_missing_are_three_things(self, log: Log, partition: Partition) -> None:
        log.append(partition, [NewRecord(b"", b""), NewRecord(None, b"k"), NewRecord(b"v", None)])
        assert [(one.key, one.value) for one in everything(log, partition)] == [(b"", b""), (b"k", None), (None, b"v")]

    def test_appending_nothing_writes_nothing(self, log: Log, partition: Partition) -> None:
        log.append(partition, numbered(1))
        before = log.settled_ends([partition])
        written = log.append(partition, [])
        assert written.start == written.stop
        assert log.settled_ends([partition]) == before

    def test_any_bytes_come_back(self, log: Log, partition: Partition) -> None:
        values = [bytes(range(256)), b"\0", b'{"a": "\xc3\xa9"}', b"x" * 300_000]
        log.append(partition, [NewRecord(value, value[:50]) for value in values])
        assert [one.value for one in everything(log, partition)] == values

    def test_a_record_over_the_limit_is_refused_with_all_beside_it(
        self, make_log: MakeLog, partition: Partition
    ) -> None:
        log = make_log(limits=SMALL)
        fits = NewRecord(b"v" * 900, b"k" * 100)
        log.append(partition, [fits])
        with pytest.raises(RecordTooLargeError) as told:
            log.append(partition, [record("a"), NewRecord(b"v" * 901, b"k" * 100), record("b")])
        assert (told.value.record_bytes, told.value.record_bytes_max) == (1_001, 1_000)
        assert isinstance(told.value, RejectedError)
        assert [one.value for one in everything(log, partition)] == [fits.value]

    def test_a_read_is_bounded_by_stop(self, log: Log, partition: Partition) -> None:
        log.append(partition, numbered(10))
        offsets = [one.offset for one in everything(log, partition)]
        batch = log.read(partition, offsets[2], stop=offsets[7])
        assert texts(batch.records) == ["2", "3", "4", "5", "6"]
        assert batch.next == offsets[7]
        empty = log.read(partition, offsets[4], stop=offsets[4])
        assert (empty.records, empty.next) == ([], offsets[4])

    def test_a_read_is_bounded_by_records(self, log: Log, partition: Partition) -> None:
        log.append(partition, numbered(10))
        first = log.read(partition, Offset(0), records_max=4)
        assert texts(first.records) == ["0", "1", "2", "3"]
        assert texts(log.read(partition, first.next).records) == ["4", "5", "6", "7", "8", "9"]

    def test_a_read_is_bounded_by_bytes_but_gives_at_least_one(self, log: Log, partition: Partition) -> None:
        log.append(partition, [record(letter * 10_000) for letter in "abcdef"])
        first = log.read(partition, Offset(0), bytes_max=25_000)
        assert 1 <= len(first.records) <= 2
        at, pieces = Offset(0), []
        while batch := log.read(partition, at, bytes_max=1).records:
            assert len(batch) == 1
            pieces.append(batch[0].value)
            at = log.read(partition, at, bytes_max=1).next
        assert pieces == [letter.encode() * 10_000 for letter in "abcdef"]

    def test_next_is_stop_once_all_before_it_was_given(self, log: Log, partition: Partition) -> None:
        """Else a reader that was told to read up to a cut never knows that it is done."""
        log.append(partition, numbered(3))
        writer = log.open_writer(fresh("writer"))
        writer.commit([Append(partition, numbered(3, "w"))])
        end = log.settled_ends([partition])[partition]
        at = Offset(0)
        for _ in range(10):
            at = log.read(partition, at, stop=end).next
        assert at == end
        assert log.read(partition, Offset(0), stop=Offset(end + 1_000)).next <= end
        assert log.read(partition, end, stop=Offset(end + 1_000)) == ([], end)

    def test_a_read_at_the_end_does_not_wait(self, log: Log, partition: Partition) -> None:
        end = log.append(partition, numbered(1)).stop
        began = time.monotonic()
        for _ in range(3):
            assert log.read(partition, end).records == []
        assert time.monotonic() - began < DEADLINE_S / 2

    def test_pages_of_any_size_add_up(self, log: Log, partition: Partition) -> None:
        for part in range(5):
            log.append(partition, numbered(500, f"{part}."))
        whole = everything(log, partition)
        assert len(whole) == 2_500
        for records_max in (1_000, 333):
            at, found = Offset(0), []
            while batch := log.read(partition, at, records_max=records_max):
                if not batch.records:
                    break
                assert len(batch.records) <= records_max
                found += batch.records
                at = batch.next
            assert found == whole

    def test_partitions_of_a_topic_are_apart(self, log: Log) -> None:
        name = fresh("parts")
        log.create_topics([TopicSpec(name, partitions=4)])
        for number in range(4):
            log.append(Partition(name, number), numbered(number + 1, f"{number}."))
        for number in range(4):
            assert texts(everything(log, Partition(name, number))) == [f"{number}.{n}" for n in range(number + 1)]
        ends = log.settled_ends([Partition(name, number) for number in range(4)])
        assert [ends[Partition(name, number)] for number in range(4)] == [1, 2, 3, 4]
        assert set(log.starts(list(ends)).values()) == {0}

    def test_ends_name_what_can_be_read(self, log: Log, partition: Partition) -> None:
        assert log.ends([partition]) == {partition: 0}
        assert log.ends([]) == {}
        writer = log.open_writer(fresh("writer"))
        for number in range(5):
            writer.commit([Append(partition, [record(str(number))])])
            end = log.settled_ends([partition])[partition]
            assert log.ends([partition])[partition] == end
            assert texts(everything(log, partition))[-1] == str(number)

    def test_a_compacted_topic_keeps_the_last_record_of_each_key(self, log: Log) -> None:
        (partition,) = self.partitions(log, 1, compacted=True)
        writer = log.open_writer(fresh("writer"))
        for number in range(20):
            writer.commit(
                [Append(partition, [record(str(number), f"k{number % 3}"), record("x", "once" + str(number))])]
            )
        writer.commit([Append(partition, [NewRecord(None, b"k0"), record("a", "k1"), record("b", "k1")])])
        found = {one.key: one.value for one in everything(log, partition)}
        assert found.pop(b"k0") is None  # deleted, and the reader that knew it is told
        assert found.pop(b"k1") == b"b"
        assert found.pop(b"k2") == b"17"
        assert found == {f"once{number}".encode(): b"x" for number in range(20)}

    def test_offsets_of_a_compacted_topic_stay_what_they_were(self, log: Log) -> None:
        (partition,) = self.partitions(log, 1, compacted=True)
        for number in range(10):
            log.append(partition, [record(str(number), "same")])
        last = log.append(partition, [record("last", "same")])
        assert (last.start, last.stop) == (10, 11)
        found = everything(log, partition)
        assert (found[-1].offset, found[-1].value) == (10, b"last")
        assert log.read(partition, Offset(0), stop=Offset(11), records_max=1_000).next == 11

    # Writers

    def test_a_commit_writes_everything_at_once(self, log: Log, make_log: MakeLog) -> None:
        one, two, three = self.partitions(log, 3)
        group = fresh("group")
        log.append(one, [record("before")])
        commit = log.open_writer(fresh("writer")).commit(
            [Append(one, numbered(3, "a")), Append(two, numbered(2, "b")), Append(one, [record("a3")])],
            {group: {three: Place(Offset(0), "row 4")}},
        )
        assert commit.number == 1
        assert set(commit.written) == {one, two}
        for handle in (log, make_log()):
            assert texts(everything(handle, one)) == ["before", "a0", "a1", "a2", "a3"]
            assert texts(everything(handle, two)) == ["b0", "b1"]
            assert handle.places(group, [one, three]) == {three: Place(Offset(0), "row 4")}
            start, stop = commit.written[one]
            assert texts(handle.read(one, start, stop=stop).records) == ["a0", "a1", "a2", "a3"]

    def test_commits_are_numbered_over_all_writers_of_the_name(
        self, log: Log, make_log: MakeLog, partition: Partition
    ) -> None:
        """Also those without a place: a run that commits none must be told from one that never happened."""
        name = fresh("writer")
        writer = log.open_writer(name)
        assert (writer.name, writer.commits) == (name, 0)
        assert writer.commit([Append(partition, numbered(1))]).number == 1
        assert writer.commit().number == 2
        assert writer.commits == 2
        writer.close()
        second = make_log().open_writer(name)
        assert second.commits == 2
        assert second.commit([], {}).number == 3
        assert second.commit(places={fresh("group"): {partition: Place(Offset(1))}}).number == 4
        assert log.open_writer(name).commits == 4

    def test_an_opened_name_fences_the_older_writer(self, log: Log, make_log: MakeLog, partition: Partition) -> None:
        name, group = fresh("writer"), fresh("group")
        old = log.open_writer(name)
        old.commit([Append(partition, [record("old")])], {group: {partition: Place(Offset(1))}})
        new = make_log().open_writer(name)
        for _ in range(2):
            with pytest.raises(FencedError) as told:
                old.commit([Append(partition, [record("late")])], {group: {partition: Place(Offset(9))}})
            assert told.value.name == name
            assert isinstance(told.value, FatalError)
            assert not old.lost, "it was told why; to open the name again would take it back"
        assert new.commit([Append(partition, [record("new")])]).number == 2
        assert texts(everything(log, partition)) == ["old", "new"]
        assert log.places(group, [partition]) == {partition: Place(Offset(1))}

    def test_writers_of_other_names_are_not_fenced(self, log: Log, partition: Partition) -> None:
        writers = [log.open_writer(fresh("writer")) for _ in range(3)]
        for writer in [*writers, *reversed(writers)]:
            writer.commit([Append(partition, [record(writer.name)])])
        assert [writer.commits for writer in writers] == [2, 2, 2]
        assert len(everything(log, partition)) == 6

    def test_what_is_read_after_opening_stays_true(self, log: Log, make_log: MakeLog, partition: Partition) -> None:
        """The older one commits as fast as it can; once the name is opened again nothing of it comes any more."""
        name, group = fresh("writer"), fresh("group")
        old = log.open_writer(name)
        committed: list[int] = []
        started = threading.Event()

        def commit_until_fenced() -> None:
            with pytest.raises(FencedError):
                for number in range(100_000):
                    old.commit(
                        [Append(partition, [record(str(number))])], {group: {partition: Place(Offset(number + 1))}}
                    )
                    committed.append(number)
                    started.set()

        thread = threading.Thread(target=commit_until_fenced)
        thread.start()
        assert started.wait(DEADLINE_S)
        handle = make_log()
        new = handle.open_writer(name)
        there = texts(everything(handle, partition))
        place = handle.places(group, [partition])[partition]
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
        assert new.commits == len(there) == place.offset >= len(committed)
        assert texts(everything(handle, partition)) == there
        assert handle.places(group, [partition])[partition] == place

    def test_a_refused_commit_leaves_nothing_and_a_good_writer(self, make_log: MakeLog) -> None:
        log = make_log(limits=SMALL)
        one, two = self.partitions(log, 2)
        group = fresh("group")
        writer = log.open_writer(fresh("writer"))
        writer.commit([Append(one, [record("first")])])
        place = {group: {one: Place(Offset(1))}}
        with pytest.raises(RecordTooLargeError):
            writer.commit(
                [Append(one, numbered(3)), Append(two, [record("a"), record("b" * 1_001), record("c")])], place
            )
        with pytest.raises(TopicNotFoundError):
            writer.commit([Append(one, numbered(3)), Append(Partition(fresh("nowhere")), numbered(1))], place)
        with pytest.raises(TopicNotFoundError):
            writer.commit([Append(one, numbered(3)), Append(Partition(one.topic, 7), numbered(1))], place)
        assert (texts(everything(log, one)), everything(log, two), log.places(group, [one])) == (["first"], [], {})
        assert writer.commits == 1
        assert writer.commit([Append(two, [record("second")])], place).number == 2
        assert texts(everything(log, two)) == ["second"]
        assert log.places(group, [one]) == place[group]

    @pytest.mark.parametrize("happened", [True, False])
    @pytest.mark.parametrize("with_records", [True, False])
    def test_after_an_unknown_outcome_the_number_tells(
        self, log: Log, make_log: MakeLog, commit_points: tuple[str, str], happened: bool, with_records: bool
    ) -> None:
        (partition,) = self.partitions(log, 1)
        name, group = fresh("writer"), fresh("group")
        lost = LostAnswer(commit_points)
        handle = make_log(runtime=Runtime(clock=SYSTEM.clock, random=SYSTEM.random, probe=lost))
        writer = handle.open_writer(name)
        writer.commit([Append(partition, [record("first")])])
        lost.lose_next(happened=happened)
        appends = [Append(partition, [record("second")])] if with_records else []
        with pytest.raises(OutcomeUnknownError) as told:
            writer.commit(appends, {group: {partition: Place(Offset(7))}} if with_records else None)
        assert isinstance(told.value, AbortableError)
        with pytest.raises(FencedError):
            writer.commit()
        again = log.open_writer(name)
        assert again.commits == (2 if happened else 1)
        assert texts(everything(log, partition)) == ["first", *(["second"] if happened and with_records else [])]
        assert bool(log.places(group, [partition])) == (happened and with_records)
        assert again.commit([Append(partition, [record("third")])]).number == again.commits
        assert texts(everything(log, partition))[-1] == "third"

    def test_no_reader_sees_half_a_transaction(self, log: Log, make_log: MakeLog, partition: Partition) -> None:
        writer = log.open_writer(fresh("writer"))
        reader = make_log()
        done = threading.Event()

        def commit() -> None:
            try:
                for number in range(100):
                    writer.commit([Append(partition, [record(str(number))] * 20)])
            finally:
                done.set()

        thread = threading.Thread(target=commit)
        thread.start()
        reads, at, seen = 0, Offset(0), 0
        while True:
            last = done.is_set()
            batch = reader.read(partition, at)
            found = texts(batch.records)
            assert len(found) % 20 == 0, f"{len(found)} records of transactions of 20"
            assert found == [str(seen + number // 20) for number in range(len(found))]
            seen += len(found) // 20
            reads, at = reads + 1, batch.next
            if last and seen == 100:
                break
            if last and not found:
                assert reads < 1_000_000
        thread.join()
        assert seen == 100

    def test_writers_of_many_threads_do_not_mix(self, log: Log, make_log: MakeLog) -> None:
        partitions = self.partitions(log, 2)

        def work(number: int) -> None:
            handle = log if number % 2 else make_log()
            writer = handle.open_writer(fresh(f"writer{number}"))
            for step in range(15):
                part = [record(f"{number} {step} {which}") for which in range(3)]
                writer.commit([Append(partition, part) for partition in partitions])
                handle.append(partitions[0], [record("alone")])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        for partition in partitions:
            found = [text for text in texts(everything(log, partition)) if text != "alone"]
            for number in range(4):
                own = [text for text in found if text and text.startswith(f"{number} ")]
                assert own == [f"{number} {step} {which}" for step in range(15) for which in range(3)]
        assert texts(everything(log, partitions[0])).count("alone") == 60

    # Groups

    def test_places_are_those_of_the_group(self, log: Log, make_log: MakeLog) -> None:
        one, two = self.partitions(log, 2)
        mine, other = fresh("group"), fresh("group")
        writer = log.open_writer(fresh("writer"))
        writer.commit(
            places={mine: {one: Place(Offset(3), "a")}, other: {one: Place(Offset(5)), two: Place(Offset(6))}}
        )
        writer.commit(places={mine: {one: Place(Offset(2), "back, é")}})
        for handle in (log, make_log()):
            assert handle.places(mine, [one, two]) == {one: Place(Offset(2), "back, é")}
            assert handle.places(other, [two]) == {two: Place(Offset(6))}
            assert handle.places(fresh("group"), [one, two]) == {}
            assert handle.places(mine, []) == {}

    def test_a_deleted_group_has_no_places(self, log: Log, partition: Partition) -> None:
        group, other = fresh("group"), fresh("group")
        writer = log.open_writer(fresh("writer"))
        writer.commit(places={group: {partition: Place(Offset(1))}, other: {partition: Place(Offset(2))}})
        log.delete_group(group)
        log.delete_group(fresh("never-there"))
        assert log.places(group, [partition]) == {}
        assert log.places(other, [partition]) == {partition: Place(Offset(2))}
        writer.commit(places={group: {partition: Place(Offset(3))}})
        assert log.places(group, [partition]) == {partition: Place(Offset(3))}

    # Trimming

    def test_a_trim_takes_what_lies_before(self, log: Log, make_log: MakeLog, partition: Partition) -> None:
        log.append(partition, numbered(12))
        trim_to(log, partition, 5, records_max=2)
        for handle in (log, make_log()):
            assert handle.starts([partition]) == {partition: 5}
            assert texts(handle.read(partition, Offset(5)).records) == [str(number) for number in range(5, 12)]
            for start in (0, 4):
                with pytest.raises(OffsetGapError) as told:
                    handle.read(partition, Offset(start), stop=Offset(8))
                assert (told.value.topic, told.value.partition) == partition
                assert (told.value.wanted, told.value.start) == (start, 5)
                assert isinstance(told.value, RejectedError)

    def test_a_trim_never_goes_back(self, log: Log, partition: Partition) -> None:
        log.append(partition, numbered(10))
        trim_to(log, partition, 6)
        assert log.trim(partition, Offset(3)) >= 3
        assert log.starts([partition])[partition] == 6
        assert log.trim(partition, Offset(0)) >= 0
        assert len(everything(log, partition)) == 4

    def test_the_end_outlives_the_records(self, log: Log, make_log: MakeLog, partition: Partition) -> None:
        """A place that points to the end must not come to lie before new records' offsets."""
        end = log.append(partition, numbered(7)).stop
        trim_to(log, partition, end)
        for handle in (log, make_log()):
            assert handle.starts([partition]) == handle.settled_ends([partition]) == {partition: end}
            assert handle.read(partition, end) == ([], end)
        assert log.append(partition, numbered(1)).start == end
        assert texts(everything(log, partition)) == ["0"]

    def test_trimming_a_compacted_topic_takes_keys_along(self, log: Log) -> None:
        (partition,) = self.partitions(log, 1, compacted=True)
        log.append(partition, [record("a", "a"), record("b", "b"), record("c", "c")])
        trim_to(log, partition, 2)
        assert texts(everything(log, partition)) == ["c"]
        log.append(partition, [record("a2", "a"), record("c2", "c")])
        assert {one.key: one.value for one in everything(log, partition)} == {b"a": b"a2", b"c": b"c2"}

    # Waiting for news

    async def wait_for(self, watch: Watch, partition: Partition) -> None:
        """Returns at the first news of `partition`."""
        async with asyncio.timeout(DEADLINE_S):
            while partition not in await watch.wait(1.0):
                pass

    async def test_a_watched_partition_counts_as_news_at_once(self, log: Log) -> None:
        one, two = self.partitions(log, 2)
        watch = log.watch([one])
        assert await watch.wait(DEADLINE_S) == {one}
        watch.add([two])
        await self.wait_for(watch, two)
        watch.close()

    async def test_each_kind_of_write_rings(self, log: Log, make_log: MakeLog) -> None:
        one, two, other = self.partitions(log, 3)
        handle = make_log()
        writer = handle.open_writer(fresh("writer"))
        appender = handle.appender()
        watch = log.watch([one, two])
        assert await watch.wait(DEADLINE_S) == {one, two}
        for partition in (one, two):
            await asyncio.to_thread(handle.append, partition, numbered(1))
            await self.wait_for(watch, partition)
            await asyncio.to_thread(writer.commit, [Append(partition, numbered(1)), Append(other, numbered(1))])
            await self.wait_for(watch, partition)
            await appender.append(partition, record("a"))
            await self.wait_for(watch, partition)
        await appender.close()
        watch.close()

    async def test_the_wait_ends_with_the_commit(self, log: Log, partition: Partition) -> None:
        """A doorbell, not a timer: the median over several commits is far under any pause between looks."""
        watch = log.watch([partition])
        await self.wait_for(watch, partition)
        delays_s: list[float] = []
        loop = asyncio.get_running_loop()
        for number in range(15):
            while await watch.wait(0.001):
                pass
            wait = asyncio.create_task(self.wait_for(watch, partition))
            await asyncio.sleep(0)
            await asyncio.to_thread(log.append, partition, [record(str(number))])
            began_s = loop.time()
            await wait
            delays_s.append(loop.time() - began_s)
        watch.close()
        assert sorted(delays_s)[7] < 0.25, delays_s

    async def test_a_commit_of_another_process_rings(self, log: Log, log_url: str, partition: Partition) -> None:
        watch = log.watch([partition])
        await self.wait_for(watch, partition)
        script = (
            "import sys; from tailrace.log import *\n"
            "log = open_log(sys.argv[1])\n"
            "log.append(Partition(sys.argv[2]), [NewRecord(b'from afar')])\n"
            "log.close()\n"
        )
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, log_url, partition.topic)
        async with asyncio.timeout(DEADLINE_S):
            while not log.read(partition, Offset(0)).records:
                await watch.wait()
        assert await process.wait() == 0
        watch.close()

    async def test_no_commit_is_left_out(self, log: Log, make_log: MakeLog) -> None:
        """More commits than any buffer holds rings, while the watcher is slow: it still comes to all of them."""
        partitions = self.partitions(log, 4)
        handle = make_log()
        watch = log.watch(partitions)

        def commit() -> None:
            for number in range(120):
                handle.append(partitions[number * 7 % 4], [record(str(number))])

        writing = asyncio.create_task(asyncio.to_thread(commit))
        at = dict.fromkeys(partitions, Offset(0))
        count = 0
        async with asyncio.timeout(DEADLINE_S * 2):
            while count < 120:
                for partition in await watch.wait():
                    batch = log.read(partition, at[partition])
                    at[partition] = batch.next
                    count += len(batch.records)
                    time.sleep(0.002)  # holds the loop up, as a busy host would
        await writing
        watch.close()

    async def test_a_wait_without_news_is_empty_after_its_time(self, log: Log, partition: Partition) -> None:
        """It may name one without news now and then, never for ever."""
        watch = log.watch([partition])
        async with asyncio.timeout(DEADLINE_S):
            while await watch.wait(0.05):
                pass
        watch.close()

    async def test_a_removed_partition_is_not_named(self, log: Log) -> None:
        one, two = self.partitions(log, 2)
        watch = log.watch([one, two])
        watch.remove([one])
        await asyncio.to_thread(log.append, one, numbered(1))
        await asyncio.to_thread(log.append, two, numbered(1))
        named: set[Partition] = set()
        async with asyncio.timeout(DEADLINE_S):
            while two not in named:
                named |= await watch.wait(1.0)
        assert named == {two}
        watch.close()

    async def test_a_cancelled_wait_loses_no_news(self, log: Log, partition: Partition) -> None:
        watch = log.watch([partition])
        await self.wait_for(watch, partition)
        for _ in range(10):
            wait = asyncio.create_task(watch.wait())
            await asyncio.sleep(0)
            wait.cancel()
            await asyncio.gather(wait, return_exceptions=True)
        await asyncio.to_thread(log.append, partition, numbered(1))
        await self.wait_for(watch, partition)
        watch.close()

    async def test_a_closed_watch_waits_no_more(self, log: Log, partition: Partition) -> None:
        watch = log.watch([partition])
        await self.wait_for(watch, partition)
        watch.close()
        with pytest.raises(LogUnavailableError):
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    await watch.wait(1.0)

    # Appending for many

    async def test_many_callers_append_at_once(self, log: Log) -> None:
        partitions = self.partitions(log, 3)
        appender = log.appender()
        await asyncio.gather(
            *(appender.append(partitions[number % 3], record(str(number), "k")) for number in range(900))
        )
        found = [text for partition in partitions for text in texts(everything(log, partition))]
        assert sorted(found, key=lambda text: int(text or 0)) == [str(number) for number in range(900)]
        await appender.close()

    async def test_appends_after_one_another_keep_their_order(self, log: Log, partition: Partition) -> None:
        appender = log.appender()

        async def caller(name: str) -> None:
            for number in range(20):
                await appender.append(partition, record(f"{name}{number}"))

        await asyncio.gather(*(caller(name) for name in "abc"))
        found = texts(everything(log, partition))
        for name in "abc":
            assert [text for text in found if text and text[0] == name] == [f"{name}{number}" for number in range(20)]
        await appender.close()

    async def test_a_bad_append_fails_alone(self, make_log: MakeLog, partition: Partition) -> None:
        log = make_log(limits=SMALL)
        appender = log.appender()
        outcomes = await asyncio.gather(
            appender.append(partition, record("good")),
            appender.append(partition, record("x" * 1_001)),
            appender.append(Partition(fresh("nowhere")), record("lost")),
            appender.append(Partition(partition.topic, 1), record("lost")),
            appender.append(partition, record("also good")),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [
            type(None),
            RecordTooLargeError,
            TopicNotFoundError,
            TopicNotFoundError,
            type(None),
        ]
        assert texts(everything(log, partition)) == ["good", "also good"]
        await appender.close()

    async def test_a_cancelled_append_disturbs_nobody(self, log: Log, partition: Partition) -> None:
        appender = log.appender()
        tasks = [asyncio.create_task(appender.append(partition, record(str(number)))) for number in range(30)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        done = {str(number) for number, outcome in enumerate(outcomes) if outcome is None}
        assert len(done) >= 20
        await appender.close()
        assert done <= set(texts(everything(log, partition)))

    async def test_callers_over_the_bound_are_refused(self, make_log: MakeLog, partition: Partition) -> None:
        log = make_log(limits=LogLimits(append_wait_max=10))
        appender = log.appender()
        outcomes = await asyncio.gather(
            *(appender.append(partition, record(str(number))) for number in range(50)), return_exceptions=True
        )
        accepted = [str(number) for number, outcome in enumerate(outcomes) if outcome is None]
        refused = [outcome for outcome in outcomes if outcome is not None]
        assert len(accepted) >= 10
        assert refused
        for outcome in refused:
            assert isinstance(outcome, LogBusyError)
            assert isinstance(outcome, RetriableError)
            assert (outcome.waiting, outcome.append_wait_max) == (10, 10)
        await appender.append(partition, record("later"))  # room again
        assert texts(everything(log, partition)) == [*accepted, "later"]
        await appender.close()

    async def test_closing_an_appender_finishes_what_waits(self, log: Log, partition: Partition) -> None:
        appender = log.appender()
        tasks = [asyncio.create_task(appender.append(partition, record(str(number)))) for number in range(50)]
        await asyncio.sleep(0)
        await appender.close()
        assert await asyncio.gather(*tasks) == [None] * 50
        assert len(everything(log, partition)) == 50
        with pytest.raises(LogUnavailableError):
            await appender.append(partition, record("late"))
        await appender.close()

    async def test_an_append_whose_answer_is_lost_says_so(
        self, log: Log, make_log: MakeLog, commit_points: tuple[str, str], partition: Partition
    ) -> None:
        if not commit_points[0].startswith("sqlite"):
            pytest.skip("the appender of this log writes outside transactions")
        lost = LostAnswer(commit_points)
        handle = make_log(runtime=Runtime(clock=SYSTEM.clock, random=SYSTEM.random, probe=lost))
        appender = handle.appender()
        for happened in (True, False):
            lost.lose_next(happened=happened)
            with pytest.raises(OutcomeUnknownError):
                await appender.append(partition, record(str(happened)))
        await appender.append(partition, record("after"))  # and it goes on
        assert texts(everything(log, partition)) == ["True", "after"]
        await appender.close()

    # The handle

    def test_threads_share_a_handle(self, log: Log, partition: Partition) -> None:
        def work(name: int) -> None:
            for number in range(25):
                log.append(partition, [record(f"{name} {number}")])
                own = [text for text in texts(everything(log, partition)) if text and text.startswith(f"{name} ")]
                assert own == [f"{name} {done}" for done in range(number + 1)]

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        assert len(everything(log, partition)) == 100

    async def test_a_closed_log_answers_nothing(self, make_log: MakeLog, partition: Partition) -> None:
        log = make_log()
        writer = log.open_writer(fresh("writer"))
        watch = log.watch([partition])
        await watch.wait(DEADLINE_S)
        appender = log.appender()
        await appender.append(partition, record("a"))
        log.close()
        log.close()
        calls: list[Callable[[], object]] = [
            lambda: log.append(partition, numbered(1)),
            lambda: log.read(partition, Offset(0)),
            lambda: log.ends([partition]),
            lambda: log.settled_ends([partition]),
            lambda: log.starts([partition]),
            lambda: log.places("group", [partition]),
            lambda: log.trim(partition, Offset(1)),
            lambda: log.topics(),
            lambda: log.create_topics([TopicSpec(fresh("late"))]),
            lambda: log.delete_topics([fresh("late")]),
            lambda: log.delete_group(fresh("late")),
            lambda: log.open_writer(fresh("writer")),
            lambda: writer.commit([Append(partition, numbered(1))]),
        ]
        for call in calls:
            with pytest.raises(LogUnavailableError):
                call()
        with pytest.raises(LogUnavailableError):
            await appender.append(partition, record("late"))
        with pytest.raises(LogUnavailableError):
            while True:
                await watch.wait(0.1)
        assert texts(everything(make_log(), partition)) == ["a"]
        await appender.close()

    def test_what_one_process_wrote_the_next_one_reads(self, log: Log, log_url: str, partition: Partition) -> None:
        name = fresh("writer")
        script = (
            "import sys; from tailrace.log import *\n"
            "log = open_log(sys.argv[1])\n"
            "writer = log.open_writer(sys.argv[3])\n"
            "p = Partition(sys.argv[2])\n"
            "print(writer.commit([Append(p, [NewRecord(b'one'), NewRecord(b'two', b'key')])]).number, flush=True)\n"
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", script, log_url, partition.topic, name], capture_output=True, text=True, timeout=60
        )
        assert (ran.returncode, ran.stdout) == (-9, "1\n"), ran.stderr
        assert texts(everything(log, partition)) == ["one", "two"]
        assert log.open_writer(name).commits == 1
