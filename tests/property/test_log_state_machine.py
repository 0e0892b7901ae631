"""Every log and a model in memory, side by side: whatever is done in whatever order, they agree.

`LogMachine` holds the steps. It takes any list of backends; offsets may differ between them (on Kafka the end of a
transaction takes one), so the model counts records and each side keeps the offsets of its own.
"""

from __future__ import annotations

import itertools
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tailrace.errors import TailraceError
from tailrace.log import (
    Append,
    Commit,
    FencedError,
    Log,
    LogLimits,
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
    Writer,
)
from tailrace.log.sqlite import SqliteLog
from tailrace.log.sqlite._records import put_places
from tailrace.log.sqlite._writer import SqliteWriter
from tailrace.runtime import SYSTEM, Probe, Runtime
from tailrace.testing.kafka import LocalKafka

LIMITS = LogLimits(record_bytes_max=200)
WRITERS = ("north", "south")
GROUPS = ("one", "two")
STEPS = frozenset(
    [
        "make",
        "append",
        "transact",
        "places",
        "abort-too-large",
        "abort-no-topic",
        "open",
        "fence",
        "late-opener",
        "unknown-committed",
        "unknown-not",
        "read",
        "read-below-start",
        "trim",
        "trim-all",
        "delete",
        "recreate",
        "reopen",
    ]
)


class LostAnswer(Probe):
    """Breaks the line at one of the two points around a commit."""

    def __init__(self) -> None:
        self.at: str | None = None

    def reached(self, point: str) -> None:
        if point == self.at:
            self.at = None
            raise ConnectionResetError(f"the test cut the line at {point}")


@dataclass
class Backend:
    """One kind of log: how to open it, and the names of its points before and after a commit."""

    name: str
    open: Callable[[Runtime], Log]
    commit_points: tuple[str, str]


@dataclass
class ModelPartition:
    """What one partition holds."""

    compacted: bool
    records: list[NewRecord] = field(default_factory=list)
    trimmed: int = 0

    @property
    def live(self) -> list[NewRecord]:
        return self.records[self.trimmed :]


@dataclass
class Model:
    """What a log holds."""

    partitions: dict[Partition, ModelPartition] = field(default_factory=dict)
    commits: Counter[str] = field(default_factory=Counter)
    places: dict[tuple[str, Partition], Place] = field(default_factory=dict)

    def apply(self, appends: Sequence[Append], places: Mapping[str, Mapping[Partition, Place]]) -> None:
        for partition, records in appends:
            self.partitions[partition].records += records
        for group, of_group in places.items():
            for partition, place in of_group.items():
                self.places[group, partition] = place


class Side:
    """One backend with everything that is open on it."""

    def __init__(self, backend: Backend, unique: str) -> None:
        self.backend, self._unique = backend, unique
        self.lost = LostAnswer()
        self.log = self.open()
        self.writers: dict[str, Writer] = {}
        self.fenced: list[Writer] = []
        self.offsets: dict[Partition, list[Offset]] = {}
        self.ends: dict[Partition, Offset] = {}

    def open(self) -> Log:
        return self.backend.open(Runtime(clock=SYSTEM.clock, random=SYSTEM.random, probe=self.lost))

    def own(self, name: str) -> str:
        """Writers and groups of this run alone."""
        return f"{self._unique}.{name}"

    def open_writer(self, name: str, log: Log | None = None) -> Writer:
        if name in self.writers:
            self.fenced.append(self.writers[name])
        writer = self.writers[name] = (log or self.log).open_writer(self.own(name))
        return writer

    def commit(
        self, name: str, appends: Sequence[Append], places: Mapping[str, Mapping[Partition, Place]] | None = None
    ) -> Commit:
        own = {self.own(group): of_group for group, of_group in (places or {}).items()}
        return self.writers[name].commit(appends, own)

    def everything(self, partition: Partition) -> list[Record]:
        end = self.log.settled_ends([partition])[partition]
        assert end >= self.ends.get(partition, 0), f"the end of {partition} went back to {end}"
        self.ends[partition] = end
        at = self.log.starts([partition])[partition]
        found: list[Record] = []
        while at < end:
            batch = self.log.read(partition, at, stop=end)
            assert batch.next > at
            found += batch.records
            at = batch.next
        return found

    def close(self) -> None:
        for writer in [*self.writers.values(), *self.fenced]:
            writer.close()
        self.writers.clear()
        self.fenced.clear()
        self.log.close()


_runs = itertools.count()
values = st.binary(max_size=6)
keys = st.sampled_from([b"a", b"b", b"c"])
records = st.lists(st.builds(NewRecord, st.none() | values, keys), min_size=1, max_size=4)
too_large = NewRecord(b"x" * 201, b"a")


class LogMachine(RuleBasedStateMachine):
    """The steps; `backends` and `counts` are set by `machine_of`."""

    backends: Sequence[Backend] = ()
    counts: Counter[str] = Counter()
    topics_max = 4

    def __init__(self) -> None:
        super().__init__()
        self.unique = f"m{next(_runs)}-{secrets.token_hex(4)}"
        self.model = Model()
        self.sides = [Side(backend, self.unique) for backend in self.backends]
        self.topic_numbers = itertools.count()
        self.deleted: list[tuple[str, bool, dict[str, int]]] = []
        self.reopened_at = -1

    @initialize(compacted=st.booleans())
    def begin(self, compacted: bool) -> None:
        self._make(f"{self.unique}.first", compacted=False)
        self._make(f"{self.unique}.second", compacted=compacted)

    # Topics

    @precondition(lambda self: len(self.model.partitions) < self.topics_max)
    @rule(compacted=st.booleans())
    def make(self, compacted: bool) -> None:
        self.counts["make"] += 1
        self._make(f"{self.unique}.t{next(self.topic_numbers)}", compacted=compacted)

    @precondition(lambda self: len(self.model.partitions) > 1)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        self.counts["delete"] += 1
        partition = self._some(data)
        compacted = self.model.partitions.pop(partition).compacted
        born = {}
        for side in self.sides:
            born[side.backend.name] = side.log.topics(partition.topic)[partition.topic].born_ms
            side.log.delete_topics([partition.topic])
            side.offsets.pop(partition, None)
            side.ends.pop(partition, None)
            with pytest.raises(TopicNotFoundError):
                side.log.read(partition, Offset(0))
        for group, placed in list(self.model.places):
            if placed == partition:
                del self.model.places[group, placed]
        self.deleted.append((partition.topic, compacted, born))

    @precondition(lambda self: self.deleted)
    @rule()
    def recreate(self) -> None:
        self.counts["recreate"] += 1
        name, compacted, born = self.deleted.pop()
        self._make(name, compacted=compacted)
        for side in self.sides:
            assert side.log.topics(name)[name].born_ms > born[side.backend.name]
            assert side.everything(Partition(name)) == []

    # Writing

    @rule(data=st.data(), new=records)
    def append(self, data: st.DataObject, new: list[NewRecord]) -> None:
        self.counts["append"] += 1
        partition = self._some(data)
        for side in self.sides:
            before = side.log.settled_ends([partition])[partition]
            written = side.log.append(partition, new)
            assert before <= written.start < written.stop
        self.model.apply([Append(partition, new)], {})
        self._compare(partition)

    @rule(name=st.sampled_from(WRITERS), data=st.data())
    def transact(self, name: str, data: st.DataObject) -> None:
        self.counts["transact"] += 1
        appends, places = self._transaction(data)
        self._ensure_open(name)
        for side in self.sides:
            commit = side.commit(name, appends, places)
            assert commit.number == self.model.commits[name] + 1
            for partition, (start, stop) in commit.written.items():
                expected = [(one.key, one.value) for to, new in appends if to == partition for one in new]
                if not self.model.partitions[partition].compacted:
                    side.log.settled_ends([partition])  # across partitions it may take some milliseconds to show
                    found = side.log.read(partition, start, stop=stop).records
                    assert [(one.key, one.value) for one in found] == expected
        self.model.commits[name] += 1
        self.model.apply(appends, places)
        self._compare(*{partition for partition, _ in appends})
        self._compare_places()

    @rule(name=st.sampled_from(WRITERS), group=st.sampled_from(GROUPS), data=st.data(), offset=st.integers(0, 99))
    def commit_places(self, name: str, group: str, data: st.DataObject, offset: int) -> None:
        self.counts["places"] += 1
        partition = self._some(data)
        places = {group: {partition: Place(Offset(offset), f"row {offset}")}}
        self._ensure_open(name)
        for side in self.sides:
            assert side.commit(name, (), places).number == self.model.commits[name] + 1
        self.model.commits[name] += 1
        self.model.apply((), places)
        self._compare_places()

    @rule(name=st.sampled_from(WRITERS), data=st.data(), no_topic=st.booleans())
    def abort(self, name: str, data: st.DataObject, no_topic: bool) -> None:
        """A commit that is refused as a whole, with good records on both sides of the bad one."""
        self.counts["abort-no-topic" if no_topic else "abort-too-large"] += 1
        appends, places = self._transaction(data)
        bad = Append(Partition(f"{self.unique}.never"), [NewRecord(b"lost", b"a")])
        if not no_topic:
            bad = Append(appends[0].partition, [NewRecord(b"good", b"a"), too_large, NewRecord(b"good", b"a")])
        error = TopicNotFoundError if no_topic else RecordTooLargeError
        self._ensure_open(name)
        for side in self.sides:
            with pytest.raises(error):
                side.commit(name, [*appends, bad, *appends], places)
            assert side.writers[name].commits == self.model.commits[name]
        self._compare(*{partition for partition, _ in appends})
        self._compare_places()

    @rule(name=st.sampled_from(WRITERS))
    def open_writer(self, name: str) -> None:
        self.counts["open"] += 1
        for side in self.sides:
            assert side.open_writer(name).commits == self.model.commits[name]

    @precondition(lambda self: all(side.fenced for side in self.sides))
    @rule(data=st.data())
    def fence(self, data: st.DataObject) -> None:
        """A writer whose name was opened again comes to itself and commits."""
        self.counts["fence"] += 1
        appends, places = self._transaction(data)
        for side in self.sides:
            own = {side.own(group): of_group for group, of_group in places.items()}
            with pytest.raises(FencedError):
                side.fenced.pop().commit(appends, own)
        self._compare(*{partition for partition, _ in appends})
        self._compare_places()

    @rule(name=st.sampled_from(WRITERS), data=st.data())
    def late_opener(self, name: str, data: st.DataObject) -> None:
        """Another process takes the name over: what it reads after opening is the last commit's, and stays so."""
        self.counts["late-opener"] += 1
        before, places = self._transaction(data)
        after, _ = self._transaction(data)
        self._ensure_open(name)
        for side in self.sides:
            side.commit(name, before, places)
        self.model.commits[name] += 1
        self.model.apply(before, places)
        for side in self.sides:
            other = side.open()
            old = side.writers.pop(name)
            late = side.open_writer(name, other)
            assert late.commits == self.model.commits[name]
            self._compare_places()
            with pytest.raises(FencedError):
                old.commit(before)
            assert late.commit(after).number == self.model.commits[name] + 1
            late.close()
            del side.writers[name]
            other.close()
        self.model.commits[name] += 1
        self.model.apply(after, {})
        self._compare(*{partition for partition, _ in [*before, *after]})

    @rule(name=st.sampled_from(WRITERS), data=st.data(), happened=st.booleans(), with_records=st.booleans())
    def unknown_outcome(self, name: str, data: st.DataObject, happened: bool, with_records: bool) -> None:
        """The answer to a commit is lost; the number of the next writer tells what became of it."""
        self.counts["unknown-committed" if happened else "unknown-not"] += 1
        appends, places = self._transaction(data) if with_records else ([], {})
        self._ensure_open(name)
        for side in self.sides:
            side.lost.at = side.backend.commit_points[happened]
            with pytest.raises(OutcomeUnknownError):
                side.commit(name, appends, places)
            assert side.lost.at is None, "the commit did not come by the point"
            with pytest.raises(FencedError):
                side.commit(name, ())
            side.writers.pop(name).close()
            assert side.open_writer(name).commits == self.model.commits[name] + happened
        if happened:
            self.model.commits[name] += 1
            self.model.apply(appends, places)
        self._compare(*self.model.partitions)
        self._compare_places()

    # Reading and trimming

    @rule(data=st.data(), records_max=st.integers(1, 6))
    def read(self, data: st.DataObject, records_max: int) -> None:
        plain = [partition for partition, held in self.model.partitions.items() if not held.compacted]
        if not plain:
            return
        self.counts["read"] += 1
        partition = data.draw(st.sampled_from(sorted(plain)))
        live = self.model.partitions[partition].live
        first = data.draw(st.integers(0, len(live)))
        last = data.draw(st.integers(first, len(live)))
        for side in self.sides:
            everything = side.everything(partition)
            edges = [*(one.offset for one in everything), side.ends[partition]]
            start, stop = edges[first], edges[last]
            batch = side.log.read(partition, start, stop=stop, records_max=records_max)
            assert batch.records == everything[first : min(last, first + records_max)]
            while batch.next < stop:
                at = batch.next
                batch = side.log.read(partition, at, stop=stop)
                assert batch.next > at
            assert batch.next == stop

    @rule(data=st.data(), whole=st.booleans(), records_max=st.integers(1, 5))
    def trim(self, data: st.DataObject, whole: bool, records_max: int) -> None:
        plain = [partition for partition, held in self.model.partitions.items() if not held.compacted and held.live]
        if not plain:
            return
        self.counts["trim-all" if whole else "trim"] += 1
        partition = data.draw(st.sampled_from(sorted(plain)))
        held = self.model.partitions[partition]
        count = len(held.live) if whole else data.draw(st.integers(1, len(held.live)))
        for side in self.sides:
            everything = side.everything(partition)
            before = everything[count].offset if count < len(everything) else side.ends[partition]
            while side.log.trim(partition, before, records_max=records_max) < before:
                pass
            side.offsets[partition] = side.offsets[partition][count:]
            assert side.log.starts([partition])[partition] == before
            self.counts["read-below-start"] += 1
            with pytest.raises(OffsetGapError):
                side.log.read(partition, everything[count - 1].offset)
        held.trimmed += count
        self._compare(partition)

    @precondition(lambda self: self.counts.total() > self.reopened_at)
    @rule()
    def reopen(self) -> None:
        """Every process ends and starts again; not twice in a row, which Hypothesis would like best of all."""
        self.counts["reopen"] += 1
        self.reopened_at = self.counts.total()
        for side in self.sides:
            side.close()
            side.log = side.open()
        self._compare(*self.model.partitions)
        self._compare_places()

    def teardown(self) -> None:
        for side in self.sides:
            side.log.delete_topics([partition.topic for partition in self.model.partitions])
            side.close()

    # What the steps share

    def _make(self, name: str, *, compacted: bool) -> None:
        for side in self.sides:
            side.log.create_topics([TopicSpec(name, compacted=compacted)])
        self.model.partitions[Partition(name)] = ModelPartition(compacted)

    def _some(self, data: st.DataObject) -> Partition:
        return data.draw(st.sampled_from(sorted(self.model.partitions)))

    def _ensure_open(self, name: str) -> None:
        for side in self.sides:
            if name not in side.writers:
                side.open_writer(name)

    def _transaction(self, data: st.DataObject) -> tuple[list[Append], dict[str, dict[Partition, Place]]]:
        some = st.sampled_from(sorted(self.model.partitions))
        appends = data.draw(st.lists(st.builds(Append, some, records), min_size=1, max_size=3))
        place = st.builds(Place, st.integers(0, 99).map(Offset), st.text("xyz", max_size=3))
        places = data.draw(
            st.dictionaries(st.sampled_from(GROUPS), st.dictionaries(some, place, max_size=2), max_size=2)
        )
        return appends, places

    def _compare(self, *partitions: Partition) -> None:
        for partition in partitions:
            held = self.model.partitions[partition]
            expected = [(one.key, one.value) for one in held.live]
            for side in self.sides:
                found = side.everything(partition)
                offsets = [one.offset for one in found]
                assert offsets == sorted(set(offsets))
                if held.compacted:
                    assert {one.key: one.value for one in found} == dict(expected)
                else:
                    assert [(one.key, one.value) for one in found] == expected, side.backend.name
                    known = side.offsets.get(partition, [])
                    assert offsets[: len(known)] == known, "records moved"
                    side.offsets[partition] = offsets

    def _compare_places(self) -> None:
        for group in GROUPS:
            expected = {partition: place for (of, partition), place in self.model.places.items() if of == group}
            for side in self.sides:
                assert side.log.places(side.own(group), list(self.model.partitions)) == expected, side.backend.name


def machine_of(backends: Sequence[Backend], counts: Counter[str]) -> type[LogMachine]:
    return type("Machine", (LogMachine,), {"backends": tuple(backends), "counts": counts})


def run(
    backends: Sequence[Backend],
    *,
    examples: int,
    steps: int,
    repeatable: bool = True,
    shrink: bool = True,
    seed_number: int | None = None,
) -> Counter[str]:
    """The steps taken, by kind. Short runs take the same ones each time (others with TAILRACE_SEED=n), long ones never."""
    counts: Counter[str] = Counter()
    machine = machine_of(backends, counts)
    if "TAILRACE_SEED" in os.environ:
        seed_number = int(os.environ["TAILRACE_SEED"]) + (seed_number or 0)
    run_state_machine_as_test(
        machine if seed_number is None else seed(seed_number)(machine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            database=None,
            derandomize=repeatable,
            # Not `explain`: its tracer runs inside librdkafka's callbacks, and is slow.
            phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    return counts


def run_until_all_kinds(
    backends: Sequence[Backend],
    *,
    least: int,
    examples: int,
    steps: int,
    rounds_max: int,
    repeatable: bool = True,
    shrink: bool = True,
) -> None:
    """A number of examples holds each kind of step so often most of the time, but not always: a seed takes other steps when
    other modules are loaded, since Hypothesis draws from their constants, too. Then more are taken."""
    counts: Counter[str] = Counter()
    for round_number in range(1, rounds_max + 1):
        seed_number = round_number if repeatable else None
        counts += run(
            backends, examples=examples, steps=steps, repeatable=repeatable, shrink=shrink, seed_number=seed_number
        )
        rarest = min(STEPS, key=lambda kind: counts[kind])
        print(f"round {round_number}: {counts.total()} steps, of {rarest} {counts[rarest]}", flush=True)
        if counts[rarest] >= least:
            break
    assert_all_kinds(counts, least)


def assert_all_kinds(counts: Counter[str], least: int) -> None:
    print("steps:", ", ".join(f"{kind} {counts[kind]}" for kind in sorted(STEPS)))
    assert set(counts) == STEPS
    assert min(counts.values()) >= least, counts


def sqlite_backend(folder: Path, kind: Callable[..., Log] = SqliteLog) -> Backend:
    url = f"sqlite://{folder}/tailrace.db"
    return Backend(
        "sqlite",
        lambda runtime: kind(url, limits=LIMITS, runtime=runtime),
        ("sqlite-commit-before", "sqlite-commit-after"),
    )


def kafka_backend(broker: LocalKafka) -> Backend:
    from tailrace.log.kafka import KafkaLog

    return Backend(
        "kafka",
        lambda runtime: KafkaLog(broker.url, limits=LIMITS, runtime=runtime),
        ("kafka-commit-before", "kafka-commit-after"),
    )


def test_sqlite_and_the_model_agree(tmp_path: Path) -> None:
    """In orders that nobody thought of."""
    run_until_all_kinds([sqlite_backend(tmp_path)], least=3, examples=25, steps=40, rounds_max=8)


@pytest.mark.chaos
@pytest.mark.timeout(1_200)
def test_sqlite_and_the_model_agree_for_long(tmp_path: Path) -> None:
    assert_all_kinds(run([sqlite_backend(tmp_path)], examples=300, steps=60, repeatable=False), least=100)


@pytest.mark.kafka
@pytest.mark.timeout(300)
def test_sqlite_kafka_and_the_model_agree(tmp_path: Path, kafka_broker: LocalKafka) -> None:
    """The same steps on both logs at once: nothing above the contract can tell which one it runs on."""
    backends = [sqlite_backend(tmp_path), kafka_backend(kafka_broker)]
    run_until_all_kinds(backends, least=1, examples=6, steps=30, rounds_max=20, shrink=False)


@pytest.mark.kafka
@pytest.mark.chaos
@pytest.mark.timeout(5_400)
def test_sqlite_kafka_and_the_model_agree_for_long(tmp_path: Path, kafka_broker: LocalKafka) -> None:
    backends = [sqlite_backend(tmp_path), kafka_backend(kafka_broker)]
    run_until_all_kinds(backends, least=100, examples=100, steps=50, rounds_max=10, repeatable=False, shrink=False)


# Planted faults: logs that are wrong in one way each, which the machine must find.


class NoFence(SqliteWriter):
    """Takes every epoch for its own."""

    def commit(self, *arguments: Any, **named: Any) -> Commit:
        with self._database.reading() as connection:
            self._epoch, self._commits = connection.execute(
                "SELECT epoch, commits FROM writers WHERE name = ?", (self.name,)
            ).fetchone()
        return super().commit(*arguments, **named)


class NoNumber(SqliteWriter):
    """Forgets to keep the number in the log."""

    def commit(self, *arguments: Any, **named: Any) -> Commit:
        commit = super().commit(*arguments, **named)
        with self._database.writing("fault") as connection:
            connection.execute("UPDATE writers SET commits = commits - 1 WHERE name = ?", (self.name,))
        return commit


class PlacesApart(SqliteWriter):
    """Commits places in a transaction of their own."""

    def commit(
        self, appends: Sequence[Append] = (), places: Mapping[str, Mapping[Partition, Place]] | None = None
    ) -> Commit:
        with self._database.writing("fault") as connection:
            put_places(connection, places or {})
        return super().commit(appends)


class HalfTransactions(SqliteWriter):
    """Commits the records of each partition by themselves."""

    def commit(
        self, appends: Sequence[Append] = (), places: Mapping[str, Mapping[Partition, Place]] | None = None
    ) -> Commit:
        for one in appends[:-1]:
            super().commit([one])
            self._commits -= 1
        return super().commit(appends[-1:], places)


def log_with(writer: type[SqliteWriter]) -> type[SqliteLog]:
    class Faulty(SqliteLog):
        def open_writer(self, name: str) -> Writer:
            return writer(self._database, self._bells, self._runtime.clock, self.limits.record_bytes_max, name)

    return Faulty


class ForgottenEnd(SqliteLog):
    """Takes the end of a partition from its last record, and begins at 0 again when there is none."""

    def trim(self, partition: Partition, before: Offset, *, records_max: int = 5_000) -> Offset:
        start = super().trim(partition, before, records_max=records_max)
        if self.ends([partition])[partition] == start:
            with self._database.writing("fault") as connection:
                connection.execute(
                    "UPDATE partitions SET end_offset = 0, start_offset = 0 WHERE topic = ?", partition[:1]
                )
        return start


class KeepsAnything(SqliteLog):
    """Does not compare what is between a place and the log's start."""

    def read(self, partition: Partition, start: Offset, **bounds: Any) -> Any:
        return super().read(partition, max(start, self.starts([partition])[partition]), **bounds)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Failures that are meant to happen are not reported at length."""
    monkeypatch.setattr("hypothesis.core.report", lambda text: None)
    yield


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(log_with(NoFence), id="no fencing"),
        pytest.param(log_with(NoNumber), id="commit number ignored"),
        pytest.param(log_with(PlacesApart), id="places outside the transaction"),
        pytest.param(log_with(HalfTransactions), id="half transactions"),
        pytest.param(ForgottenEnd, id="trim forgets the end"),
        pytest.param(KeepsAnything, id="gaps are jumped over"),
    ],
)
def test_the_machine_finds_a_planted_fault(tmp_path: Path, kind: Callable[..., Log]) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception, TailraceError, ExceptionGroup)):
        run([sqlite_backend(tmp_path, kind)], examples=100, steps=30, shrink=False)
