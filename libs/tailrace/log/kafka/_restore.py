"""Making a log again on a cluster: every record at its offset.

A broker numbers records itself, one after the other. Offsets that hold none (what was trimmed, compacted away, aborted,
or is a transaction's marker) are taken up so that no reader sees anything there: by records of an aborted transaction, by
a marker of one that is committed, and before a partition's first record by fillers that are trimmed away.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from tailrace.log.contract import LogCut, LogLimits, NewRecord, Offset, Partition, Record, TopicSpec, Writer
from tailrace.log.errors import NotEmptyError
from tailrace.log.kafka._appends import Appends
from tailrace.log.kafka._clients import Clients, discard
from tailrace.log.kafka._cluster import INTERNAL, RESTORING, Cluster
from tailrace.log.kafka._failures import CLIENT_ERRORS
from tailrace.log.kafka._reader import Reader
from tailrace.log.kafka._registry import REGISTRY_WRITER, Registry
from tailrace.log.kafka._url import KafkaUrl
from tailrace.log.kafka._writer import NUMBERS_SETTINGS, KafkaWriter, mark_of, numbers_topic
from tailrace.runtime import SYSTEM, Runtime

__all__ = ["KafkaRestore"]

_FILLERS_MAX = 500_000
"""Most fillers of one aborted transaction: with a slow broker still far from its time-out."""

_PRODUCE_MAX = 5_000

_FILLER_KEY = b"-"
"""Compacted topics take no record without a key."""

_TOPICS_AT_ONCE = 100
_GROUPS_AT_ONCE = 50

_MARKER = Partition(RESTORING)


class KafkaRestore:
    """1. `restore-begun`     the topic `_tailrace.restoring` says which topics will be made. From now on the log cannot be
                           opened, and another restore deletes these topics before it begins.
    2. `restore-created`   the topics are there, and are registered nowhere.
    3. `restore-filled`    all records are at their offsets.
    4. `restore-settled`   writers' numbers, groups' places and births are those of the cut.
    5. `restore-finished`  the topic of step 1 is gone: the point of no return lies just before.
    """

    def __init__(self, url: str, cut: LogCut, *, limits: LogLimits, runtime: Runtime) -> None:
        self._cut, self._runtime = cut, runtime
        clients = self._clients = Clients(KafkaUrl.parse(url), limits)
        cluster = self._cluster = Cluster(clients)
        self._producer: Producer | None = None
        self._aborter: Producer | None = None
        self._wrong: Exception | None = None
        self._reader = Reader(clients, cluster)
        self._appends = Appends(clients, cluster)
        try:
            self._begin()
            self._fillings = {partition: _Filling(first=stands.start) for partition, stands in cut.partitions.items()}
        except BaseException:
            self.close()
            raise

    def put(self, partition: Partition, records: Sequence[Record]) -> None:
        filling = self._filling(partition)
        with self._telling("restoring records"):
            for run in _runs(records):
                self._gap(partition, filling, run[0].offset)
                self._send(self._plain(), partition, run[:-1])
                filling.at = run[-1].offset
                filling.held = run[-1]
            self._flush(self._plain())

    def finish(self, starts: Mapping[Partition, Offset] | None = None) -> None:
        with self._telling("restoring the ends of partitions"):
            for partition, stands in self._cut.partitions.items():
                filling = self._filling(partition)
                self._gap(partition, filling, stands.stop)
                self._flush(self._plain())
                start = max(filling.first, (starts or {}).get(partition, Offset(0)))
                if start > 0 and self._cluster.trim(partition, start) != start:
                    raise self._clients.unavailable(f"trimming {partition.topic}/{partition.number}")
        names = list(self._cut.topics)
        for at in range(0, len(names), _TOPICS_AT_ONCE):
            self._cluster.set_topics(names[at : at + _TOPICS_AT_ONCE], {"message.timestamp.type": "LogAppendTime"})
        self._runtime.probe.reached("restore-filled")
        numbers = {name: Partition(numbers_topic(name)) for name in self._cut.writers}
        if numbers:
            specs = [TopicSpec(partition.topic, compacted=True) for partition in numbers.values()]
            self._cluster.create(specs, NUMBERS_SETTINGS)
        for name, number in self._cut.writers.items():
            self._appends.append(numbers[name], [mark_of(name, number, "restore")])
        self._set_places()
        registry = Registry(self._clients, self._cluster, self._reader, self._runtime, self._open_writer)
        registry.register(self._cut.topics)
        registry.close()
        self._runtime.probe.reached("restore-settled")
        self._cluster.delete([RESTORING])
        self._runtime.probe.reached("restore-finished")

    def close(self) -> None:
        self._clients.closed = True
        self._appends.close()
        self._reader.close()
        self._cluster.close()
        for producer in (self._producer, self._aborter):
            if producer is not None:
                discard(producer)
        self._producer = self._aborter = None

    def _begin(self) -> None:
        names = self._cluster.hello()
        own = [name for name in names if name.startswith(INTERNAL) and name != RESTORING]
        if RESTORING in names:
            self._cluster.delete(sorted({*self._half_made(), *own} & names))
        else:
            self._check_empty(names)
            self._cluster.delete(own)
            self._cluster.create([TopicSpec(RESTORING)])
        self._appends.append(_MARKER, [NewRecord(json.dumps(list(self._cut.topics)).encode())])
        self._runtime.probe.reached("restore-begun")
        specs = [TopicSpec(info.name, info.partitions, info.compacted) for info in self._cut.topics.values()]
        for at in range(0, len(specs), _TOPICS_AT_ONCE):
            # Records keep their times; those that come later get the broker's again.
            self._cluster.create(specs[at : at + _TOPICS_AT_ONCE], {"message.timestamp.type": "CreateTime"})
        self._runtime.probe.reached("restore-created")

    def _check_empty(self, names: frozenset[str]) -> None:
        registry = Registry(self._clients, self._cluster, self._reader, self._runtime, self._open_writer)
        if found := registry.topics(""):
            raise NotEmptyError(self._clients.url.shown, f"a log of {len(found)} topics")
        if taken := sorted(names & self._cut.topics.keys()):
            raise NotEmptyError(
                self._clients.url.shown, f"topics of somebody else with our names: {', '.join(taken[:5])}"
            )

    def _half_made(self) -> Iterator[str]:
        end = self._cluster.settled_ends([_MARKER])[_MARKER]
        at = Offset(0)
        while at < end:
            batch = self._reader.read(_MARKER, at, end, 100, 16 << 20)
            for record in batch.records:
                yield from json.loads(record.value or b"[]")
            at = batch.next

    def _open_writer(self, name: str) -> Writer:
        return KafkaWriter(self._clients, self._cluster, self._reader, SYSTEM.probe, name)

    def _set_places(self) -> None:
        places = self._cut.places
        for group in list(places)[:1]:  # sending one to a cluster that never had a group would wait for ever
            self._cluster.places(group, list(places[group]))
        writer = self._open_writer(REGISTRY_WRITER)  # one whose number is no part of a cut
        groups = list(places)
        for at in range(0, len(groups), _GROUPS_AT_ONCE):
            writer.commit((), {group: places[group] for group in groups[at : at + _GROUPS_AT_ONCE]})
        writer.close()

    # Records at their offsets

    def _filling(self, partition: Partition) -> _Filling:
        filling = self._fillings[partition]
        if filling.at == 0 and filling.first > 0:
            self._fill_plainly(partition, filling.first - 1)
            filling.at = filling.first - 1
            filling.held = Record(Offset(filling.at), self._runtime.clock.now_ms(), _FILLER_KEY, None)
        return filling

    def _gap(self, partition: Partition, filling: _Filling, to: Offset) -> None:
        """Bring out the record that was held back, so that the next one lies at `to`."""
        held, filling.held = filling.held, None
        missing = to - filling.at - (held is not None)
        assert missing >= 0, f"{partition}: {to} comes after {filling.at}"
        if held is not None and missing == 1:
            self._flush(self._plain())
            self._transact(partition, lambda producer: self._send(producer, partition, [held]), Offset(to), commit=True)
        else:
            if held is not None:
                self._send(self._plain(), partition, [held])
                filling.at = filling.at + 1
            if missing == 1:  # nothing lies before it that could carry a marker
                self._fill_plainly(partition, 1)
                self._fillings[partition].first = Offset(max(filling.first, to))
            elif missing:
                self._flush(self._plain())
                self._fill(partition, filling.at, missing)
        filling.at = to

    def _fill(self, partition: Partition, at: int, missing: int) -> None:
        while missing:
            some = min(missing, _FILLERS_MAX)
            some -= missing - some == 1  # one alone could not be filled
            self._transact(
                partition,
                lambda producer, count=some - 1: self._send_fillers(producer, partition, count),  # type: ignore[misc]
                Offset(at + some),
                commit=False,
            )
            at, missing = at + some, missing - some

    def _fill_plainly(self, partition: Partition, count: int) -> None:
        """With records that readers could see: `finish` trims them away."""
        while count:
            some = min(count, _FILLERS_MAX)
            self._send_fillers(self._plain(), partition, some)
            self._flush(self._plain())
            count -= some

    def _transact(self, partition: Partition, send: Callable[[Producer], None], end: Offset, *, commit: bool) -> None:
        producer = self._transactional()
        producer.begin_transaction()
        send(producer)
        self._flush(producer)
        (producer.commit_transaction if commit else producer.abort_transaction)(self._clients.timeout_s)
        # The answer comes before the marker is written: what is sent next must not come before it.
        deadline = self._cluster.deadline()
        while (found := self._cluster.edges([partition], "very-end")[partition]) != end:
            if found > end:
                raise self._somebody_else(partition)
            if deadline.passed:
                raise self._clients.unavailable(f"ending a transaction in {partition.topic}/{partition.number}")
            deadline.pause()

    def _send(self, producer: Producer, partition: Partition, records: Sequence[Record]) -> None:
        topic, number = partition
        for _, ts_ms, key, value in records[:-1]:  # one by one: `produce_batch` takes no times
            producer.produce(topic, value, key, number, timestamp=ts_ms)
        if records:
            offset, ts_ms, key, value = records[-1]
            producer.produce(topic, value, key, number, timestamp=ts_ms, on_delivery=self._expect(partition, offset))

    def _send_fillers(self, producer: Producer, partition: Partition, count: int) -> None:
        filler = {"value": None, "key": _FILLER_KEY}
        for at in range(0, count, _PRODUCE_MAX):
            some = min(_PRODUCE_MAX, count - at)
            if producer.produce_batch(partition.topic, [filler] * some, partition.number) < some:
                raise KafkaException(KafkaError(KafkaError._QUEUE_FULL))

    def _expect(self, partition: Partition, offset: int) -> Callable[[KafkaError | None, Any], None]:
        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is not None:
                self._wrong = self._wrong or KafkaException(error)
            elif message.offset() != offset:
                self._wrong = self._wrong or self._somebody_else(partition)

        return delivered

    def _somebody_else(self, partition: Partition) -> NotEmptyError:
        return NotEmptyError(f"{partition.topic}/{partition.number}", "records that somebody else wrote meanwhile")

    def _flush(self, producer: Producer) -> None:
        left = producer.flush(self._clients.timeout_s)
        if self._wrong is not None:
            raise self._wrong
        if left:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "records were not taken in time"))

    def _plain(self) -> Producer:
        if self._producer is None:
            self._producer = self._clients.producer(**{"compression.type": "zstd", "linger.ms": 5})
        return self._producer

    def _transactional(self) -> Producer:
        if self._aborter is None:
            self._aborter = self._clients.producer(
                **{
                    "transactional.id": f"tailrace.{RESTORING}",
                    "compression.type": "zstd",
                    "transaction.timeout.ms": int(self._clients.limits.transaction_timeout.total_seconds() * 1000),
                }
            )
            self._aborter.init_transactions(self._clients.timeout_s)
        return self._aborter

    def _telling(self, doing: str) -> _Telling:
        return _Telling(self._clients, doing)


@dataclass
class _Filling:
    """How far one partition came."""

    first: Offset
    """What lies before it is trimmed away at the end."""
    at: int = 0
    """The offset that the next record gets, or that of `held`."""
    held: Record | None = None
    """The last record that was given: how it is sent depends on what comes after it."""


class _Telling:
    """Makes errors of the client into errors of the log."""

    def __init__(self, clients: Clients, doing: str) -> None:
        self._clients, self._doing = clients, doing

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CLIENT_ERRORS):
            raise self._clients.unavailable(self._doing, error) from error


def _runs(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Records that lie side by side."""
    begin = 0
    for at in range(1, len(records) + 1):
        if at == len(records) or records[at].offset != records[at - 1].offset + 1:
            yield records[begin:at]
            begin = at
