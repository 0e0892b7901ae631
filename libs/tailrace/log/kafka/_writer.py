"""The one living writer of a name: Kafka's transactions, with a number that outlives every one of them."""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from hashlib import blake2b
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from tailrace.errors import TailraceError
from tailrace.log.contract import Append, Commit, NewRecord, Offset, OffsetRange, Partition, Place, Record, TopicSpec
from tailrace.log.errors import FencedError, LogUnavailableError, OutcomeUnknownError, TopicNotFoundError
from tailrace.log.group_commit import check_sizes
from tailrace.log.kafka._appends import rejection
from tailrace.log.kafka._clients import LOGGER, Clients, discard, make_contact
from tailrace.log.kafka._cluster import INTERNAL, Cluster, Deadline
from tailrace.log.kafka._connections import Connections
from tailrace.log.kafka._failures import CLIENT_ERRORS, FENCED, MISSING, PASSING, error_of, reason_of
from tailrace.log.kafka._reader import Reader
from tailrace.log.kafka._sender import produce_all
from tailrace.log.kafka._unmarked import end_unmarked, transactional_id
from tailrace.runtime import Probe

__all__ = ["NUMBERS", "NUMBERS_SETTINGS", "KafkaWriter", "last_number", "mark_of", "numbers_topic"]

NUMBERS = f"{INTERNAL}writer."
"""Names of the book-keeping topics of writers begin so."""


NUMBERS_SETTINGS = {
    # Small segments, compacted soon: only the last record counts, and it is looked for at the end.
    "segment.bytes": str(1 << 20),
    "min.cleanable.dirty.ratio": "0.1",
    # A writer that was fenced looks whether its last commit happened; the record must not be compacted away before.
    "min.compaction.lag.ms": "120000",
}
_ABORT_S = 2.0
"""Longest wait for an abort, after the call's own time: what cannot be aborted by then is left to the next opener."""

_LOOK_S = 0.05
"""How often the connections are looked at while places are sent."""

_REST_S = 30.0
"""A connection that breaks so long after the last transaction takes nothing along: that has its markers, and nothing is on its way.
Brokers close connections that are idle (for ten minutes, unless set); what runs longer than that must be able to commit."""

_LOOK_BACK = 64
"""Offsets before the end among which the last number is looked for first."""


def numbers_topic(name: str) -> str:
    """The book-keeping topic of a writer: one for each, so that nobody else's open transaction hides its end."""
    readable = re.sub(r"[^A-Za-z0-9.-]", "-", name)[:150]
    return f"{NUMBERS}{readable}.{blake2b(name.encode(), digest_size=8).hexdigest()}"


class KafkaWriter:
    """Opening, so that a late opener can not commit over what it has not seen:

    1. `init_transactions` fences older producers of the name and ends what they had open.
    2. What a broker that died has left open of theirs all the same is ended as it was decided (see `_unmarked`).
    3. Only then the number of the last commit is read, up to a settled end.

    A commit:

    1. records, the number's record and places are sent inside the transaction. A crash leaves an open transaction,
       which the next opener aborts (or the broker, after `transaction_timeout`).
    2. `kafka-commit-before`  everything was taken; the commit is asked for next.
    3. `kafka-commit-after`   the point of no return is between the two: the coordinator's own log.

    After an unknown outcome the producer is thrown away for good. librdkafka does not implement KIP-890, so its delayed
    request to end a transaction could end the next one of the same producer; a new one has a newer epoch. The same
    holds when a connection broke meanwhile (see `Connections`): librdkafka repeats its requests by itself, and even a
    commit that was answered may have a copy on its way. It then counts as unknown, too.

    So does a transaction that was open for longer than `transaction_timeout`, as where the machine stood still: the broker
    has ended it, with an answer as if another had opened the name. Whether one has is seen when the name is opened again.
    """

    def __init__(self, clients: Clients, cluster: Cluster, reader: Reader, probe: Probe, name: str) -> None:
        self._clients, self._cluster, self._reader, self._probe = clients, cluster, reader, probe
        self._name = name
        self._token = secrets.token_hex(8)
        self._numbers = Partition(numbers_topic(name))
        self._closed = False
        self._connections = Connections(LOGGER)
        self._producer: Producer | None = None
        if not cluster.describe([self._numbers.topic]):
            cluster.create([TopicSpec(self._numbers.topic, compacted=True)], NUMBERS_SETTINGS)
        self._producer = self._open(cluster.deadline())
        self._commits = self._read_number()
        self._rests_since_s = time.monotonic()
        self._began_s = 0.0
        """When the last transaction began, on the clock that brokers go by: it goes on while a machine sleeps."""

    @property
    def name(self) -> str:
        return self._name

    @property
    def commits(self) -> int:
        return self._commits

    @property
    def lost(self) -> bool:
        if self._producer is None:  # whoever was told why does what is to be done
            return False
        self._producer.poll(0)
        if self._connections.broken and time.monotonic() - self._rests_since_s > _REST_S:
            self._connections.forget()
        return self._connections.broken

    def commit(
        self, appends: Sequence[Append] = (), places: Mapping[str, Mapping[Partition, Place]] | None = None
    ) -> Commit:
        self._clients.check_open()
        if self._producer is None:
            raise FencedError(self._name)
        places = places or {}
        by_partition: dict[Partition, list[NewRecord]] = {}
        for partition, records in appends:
            check_sizes(records, self._clients.limits.record_bytes_max)
            by_partition.setdefault(partition, []).extend(records)
        self._cluster.check_there(by_partition)
        self._cluster.check_there(partition for of_group in places.values() for partition in of_group)
        number = self._commits + 1
        deadline = self._cluster.deadline()
        sent = {partition: _Sent(partition) for partition, records in by_partition.items() if records}
        sent[self._numbers] = _Sent(self._numbers)
        try:
            # What the last commit wrote may lack its markers (see `_unmarked`), and an abort of this one would take it along.
            self._check_connections()
        except ConnectionResetError as error:
            self._give_up()
            raise self._unknown(number, error) from error
        self._began_s = time.time()
        try:
            self._send(
                {**by_partition, self._numbers: [mark_of(self._name, number, self._token)]}, places, sent, deadline
            )
        except CLIENT_ERRORS as error:
            raise self._undone(error, sent, number) from error
        except ConnectionResetError as error:
            self._give_up()
            raise self._unknown(number, error) from error
        except BaseException:
            self._give_up()
            raise
        try:
            self._end_transaction(deadline)
        except Exception as error:
            is_fenced = self._is_fenced(error)
            self._give_up()
            if not is_fenced:
                raise self._unknown(number, error) from error
            try:
                happened = self._happened(sent[self._numbers].start)
            except TailraceError:
                raise self._unknown(number, error) from error
            if not happened:
                raise self._fenced(number, error) from error
        except BaseException:
            self._give_up()
            raise
        self._commits, self._rests_since_s = number, time.monotonic()
        written = {
            partition: OffsetRange(Offset(each.start), Offset(each.stop))
            for partition, each in sent.items()
            if partition != self._numbers
        }
        return Commit(number, written)

    def close(self) -> None:
        self._give_up()

    def _send(
        self,
        by_partition: Mapping[Partition, Sequence[NewRecord]],
        places: Mapping[str, Mapping[Partition, Place]],
        sent: Mapping[Partition, _Sent],
        deadline: Deadline,
    ) -> None:
        # No local may hold the producer. Where it was fenced the client raises into a delivery callback and then keeps the
        # error for ever (confluent-kafka 2.16), with this frame: the producer's threads and connections would stay.
        self._alive.begin_transaction()
        for partition, records in by_partition.items():
            if records:
                produce_all(self._alive, partition, records, first=sent[partition].first, last=sent[partition].last)
        for group, of_group in places.items():
            if of_group:
                kafka_places = [
                    KafkaPartition(topic, number, place.offset, place.metadata)
                    for (topic, number), place in of_group.items()
                ]
                self._send_places(kafka_places, group, deadline)
        if self._alive.flush(max(deadline.left_s, 0.001)) > 0:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "records were not taken in time"))
        for each in sent.values():
            if each.error is not None:
                raise KafkaException(each.error)

    def _send_places(self, places: list[KafkaPartition], group: str, deadline: Deadline) -> None:
        """In a thread of its own, which is left behind when a connection breaks or the time is up. Where a broker dies while
        librdkafka asks for the group's coordinator it does not come back (2.16): its question goes on with the next change
        of a connection, which there may not be for minutes, and the time that the call is given counts for nothing.
        """
        sent: Future[None] = Future()

        def send() -> None:
            try:
                self._alive.send_offsets_to_transaction(places, _group_metadata(group), max(deadline.left_s, 0.001))
            except BaseException as error:
                sent.set_exception(error)
            else:
                sent.set_result(None)

        threading.Thread(target=send, name="tailrace-kafka-places", daemon=True).start()
        while True:
            try:
                return sent.result(_LOOK_S)
            except TimeoutError:
                self._check_connections()
                if deadline.passed:
                    late = KafkaError(KafkaError._TIMED_OUT, "the places were not taken in time")
                    raise KafkaException(late) from None

    @property
    def _alive(self) -> Producer:
        assert self._producer is not None
        return self._producer

    def _end_transaction(self, deadline: Deadline) -> None:
        assert self._producer is not None
        self._probe.reached("kafka-commit-before")
        self._check_connections()  # what was repeated so far could still arrive, and undo an order among it
        self._producer.commit_transaction(max(deadline.left_s, 0.001))
        self._check_connections()
        self._probe.reached("kafka-commit-after")

    def _check_connections(self) -> None:
        if self._producer is None:
            raise ConnectionResetError("it was thrown away")
        self._producer.poll(0)
        if self._connections.broken:
            raise ConnectionResetError("a connection broke: a copy of what was on its way may still arrive")

    def _undone(self, error: Exception, sent: Mapping[Partition, _Sent], number: int) -> TailraceError:
        """Abort, and say what went wrong. Nothing was written: the commit was never asked for."""
        producer = self._producer
        assert producer is not None
        known = error_of(error)
        if known is not None and known.code() in FENCED:
            self._give_up()
            return self._fenced(number, error)
        try:
            # A record's error may only say that the producer is done for; the abort then says why.
            producer.purge()
            producer.abort_transaction(_ABORT_S)
        except CLIENT_ERRORS as failed:
            self._give_up()
            code = error_of(failed)
            if code is not None and code.code() in FENCED:
                return self._fenced(number, error)
            return self._unknown(number, error)
        self._rests_since_s = time.monotonic()  # a copy of the abort may be on its way
        if known is None:
            self._give_up()
            return self._unknown(number, error)
        for each in sent.values():
            if each.error is not None:
                self._cluster.forget([each.partition.topic])
                try:
                    self._cluster.check_there([each.partition])
                except TopicNotFoundError as gone:
                    return gone
                except LogUnavailableError:
                    pass
                refused = rejection(each.error, each.partition) if each.error.code() not in MISSING else None
                if refused is not None:
                    return refused
        return self._clients.unavailable(f"commit {number} of writer {self._name!r}", error)

    def _fenced(self, number: int, error: Exception) -> TailraceError:
        """What it means that the broker refuses us as it refuses whose name was opened again."""
        limit_s = self._clients.limits.transaction_timeout.total_seconds()
        if time.time() - self._began_s < limit_s:
            return FencedError(self._name)
        reason = f"it took over {limit_s:g} s, after which the broker ends it; did this machine stand still?"
        return self._unknown(number, TimeoutError(f"{reason} ({reason_of(error)})"))

    def _unknown(self, number: int, error: Exception) -> OutcomeUnknownError:
        what = f"commit {number} of writer {self._name!r}"
        if error_of(error) is None:
            return OutcomeUnknownError(what, reason_of(error))
        return OutcomeUnknownError(what, self._clients.unavailable("it", error).cause)

    def _is_fenced(self, error: Exception) -> bool:
        """Whether a commit failed because the name was opened again."""
        known = error_of(error)
        if known is not None and known.code() == KafkaError.UNKNOWN and self._producer is not None:
            # What a broker of 4.3 answers to a commit that meets the fencing of its producer half way. The fence is
            # in place then, and refuses this.
            try:
                self._producer.abort_transaction(_ABORT_S)
            except CLIENT_ERRORS as refused:
                known = error_of(refused)
        return known is not None and known.code() in FENCED

    def _happened(self, offset: int) -> bool:
        """Whether the transaction that put our number at `offset` was committed: asked once it was fenced.

        Its request to commit may have been answered by nobody and repeated, and only the repetition was refused.
        """
        end = self._cluster.settled_ends([self._numbers])[self._numbers]
        batch = self._reader.read(self._numbers, Offset(offset), end, 1, 1)
        return bool(batch.records) and batch.records[0].offset == offset

    def _open(self, deadline: Deadline) -> Producer:
        timeout_ms = int(self._clients.limits.transaction_timeout.total_seconds() * 1000)
        while True:
            self._connections = Connections(LOGGER)
            producer = self._clients.producer(
                self._connections,
                **{
                    "transactional.id": transactional_id(self._name),
                    "transaction.timeout.ms": timeout_ms,
                    "message.timeout.ms": int(self._clients.timeout_s * 1000),
                },
            )
            try:
                make_contact(producer, self._numbers.topic, deadline.left_s)
                producer.init_transactions(max(deadline.left_s, 0.001))
                return producer
            except CLIENT_ERRORS as error:
                discard(producer)
                known = error_of(error)
                code = None if known is None else known.code()
                # Fenced: somebody else opens the name at this moment; whoever comes last has it.
                if deadline.passed or not (code in PASSING or code in FENCED):
                    raise self._clients.unavailable(f"opening writer {self._name!r}", error) from error
            deadline.pause()

    def _read_number(self) -> int:
        numbers = [self._numbers]
        # Whatever was open when the name was opened has been ended by that. If it has not, nobody else will do it.
        try:
            end_unmarked(self._clients, self._cluster, self._reader, transactional_id(self._name))
        except LogUnavailableError:  # a user who may not look; it is said where it matters
            if self._cluster.edges(numbers, "end") != self._cluster.edges(numbers, "very-end"):
                raise
        end = self._cluster.settled_ends(numbers)[self._numbers]
        self._reader.saw_end(self._numbers, end)
        _, number = last_number(self._cluster, self._reader, self._numbers, end)
        return number

    def _give_up(self) -> None:
        if self._producer is not None:
            discard(self._producer)
            self._producer = None


def mark_of(name: str, number: int, token: str) -> NewRecord:
    """The record that tells of a commit."""
    return NewRecord(json.dumps({"number": number, "writer": token}).encode(), name.encode())


def last_number(cluster: Cluster, reader: Reader, numbers: Partition, end: Offset) -> tuple[str, int]:
    """The name of a writer and the number of its last commit before `end`, by its book-keeping; 0 before the first."""
    start = cluster.edges([numbers], "start")[numbers]
    back = _LOOK_BACK
    while True:
        at = Offset(max(start, end - back))
        last: Record | None = None
        while at < end:
            batch = reader.read(numbers, at, end, 10_000, 16 << 20)
            if batch.records:
                last = batch.records[-1]
            at = batch.next
        if last is not None:
            return (last.key or b"").decode(), int(json.loads(last.value or b"")["number"])
        if end - back <= start:
            return "", 0
        back *= 8


class _Sent:
    """Where the first and the last record of one partition went."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.start, self.stop = -1, -1
        self.error: KafkaError | None = None

    def first(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self.start = message.offset()
        else:
            self.error = error

    def last(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self.stop = message.offset() + 1
            if self.start < 0:
                self.start = message.offset()
        else:
            self.error = error


def _group_metadata(group: str) -> bytes:
    """What `Consumer.consumer_group_metadata()` gives for a consumer of this group that only assigns.

    librdkafka's serialised form: magic, generation -1, group id, no member id, no instance id. A test compares the two.
    """
    return b"CGMDv2:\xff\xff\xff\xff" + group.encode() + b"\0\0\x01"
