"""What is asked of the cluster as a whole: topics, ends, places, trimming. Each call asks again until its time is up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
)
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from tailrace.errors import SettingError
from tailrace.log.contract import Offset, Partition, Place, TopicSpec
from tailrace.log.errors import TopicNotFoundError
from tailrace.log.kafka._clients import Clients, discard
from tailrace.log.kafka._failures import MISSING, PASSING, STALE, error_of

__all__ = ["INTERNAL", "RESTORING", "Cluster", "Deadline", "TopicFound", "topic_settings"]

INTERNAL = "_tailrace."
"""Names of our book-keeping topics begin so."""

RESTORING = f"{INTERNAL}restoring"
"""A topic that is there as long as a restore is not finished."""

_ANY_TOPIC = f"{INTERNAL}topics"

_PAUSE_MIN_S, _PAUSE_MAX_S = 0.001, 0.1

_CONSUMERS_MAX = 2
"""Groups whose consumers are kept: that of the snapshotters is asked for again and again."""

_TRIES = 4
"""Into how many the time of a question is divided. A broker that is back is asked by a client that can hear it after a
quarter of that time at most; one that is busy has the quarter to answer in."""

Key = TypeVar("Key")
T = TypeVar("T")


def _places_of(answered: Iterable[KafkaPartition]) -> tuple[dict[Partition, Place], KafkaError | None]:
    """The places that there are, and what speaks against them for now."""
    found: dict[Partition, Place] = {}
    unsettled: KafkaError | None = None
    for each in answered:
        if each.error is not None and each.error.code() not in MISSING:
            unsettled = each.error
        elif each.error is None and each.offset >= 0:
            found[Partition(each.topic, each.partition)] = Place(Offset(each.offset), each.metadata or "")
    return found, unsettled


class TopicFound(NamedTuple):
    """A topic as the cluster knows it; `id` is another one when it is made again."""

    id: str
    partitions: int


class Deadline:
    """The time that a call has, and the pauses between its tries."""

    def __init__(self, timeout_s: float) -> None:
        self._end_s = time.monotonic() + timeout_s
        self._pause_s = _PAUSE_MIN_S

    @property
    def left_s(self) -> float:
        return max(self._end_s - time.monotonic(), 0.0)

    @property
    def passed(self) -> bool:
        return self.left_s <= 0

    def pause(self) -> None:
        time.sleep(min(self._pause_s, self.left_s))
        self._pause_s = min(self._pause_s * 2, _PAUSE_MAX_S)


def topic_settings(clients: Clients, *, compacted: bool) -> dict[str, str]:
    """What our promises rest on."""
    return {
        # Kafka cuts records off at a caller's wish only where `delete` is among the policies; with unlimited
        # retention it does nothing else.
        "cleanup.policy": "compact,delete" if compacted else "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "max.message.bytes": str(clients.message_bytes_max),
        "message.timestamp.type": "LogAppendTime",
    }


class Cluster:
    """Thread-safe."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._admin: AdminClient | None = clients.admin()
        self._lock = threading.Lock()
        """Over the clients that are kept."""
        self._consumers: dict[str, Consumer] = {}
        """By group, those that asked for its places of late; whoever uses one takes it out."""
        self._known: dict[str, int] = {}
        """Partition counts of topics that were seen; dropped when one seems to be gone."""
        self._has_coordinator = False

    def close(self) -> None:
        """Let go of the clients; whoever asks then hears that the log is closed."""
        with self._lock:
            admin, self._admin = self._admin, None
            consumers = list(self._consumers.values())
            self._consumers.clear()
        for client in (admin, *consumers):
            discard(client)

    @property
    def _asked(self) -> AdminClient:
        if self._admin is None:
            raise self._clients.unavailable("asking the cluster")
        return self._admin

    def deadline(self, times: float = 1) -> Deadline:
        return Deadline(self._clients.timeout_s * times)

    def hello(self) -> frozenset[str]:
        """Find the cluster, or raise LogUnavailableError; returns the names of all its topics."""
        return self._list_topics("finding the cluster")

    # Topics

    def check_there(self, partitions: Iterable[Partition]) -> None:
        for topic, number in partitions:
            known = self._known.get(topic)
            if known is None:
                known = self.describe([topic]).get(topic, TopicFound("", 0)).partitions
            if not 0 <= number < known:
                raise TopicNotFoundError(topic, number)

    def forget(self, topics: Iterable[str]) -> None:
        for topic in topics:
            self._known.pop(topic, None)

    def names(self) -> list[str]:
        """All topics that are not a broker's own or our book-keeping."""
        return sorted(name for name in self._list_topics("listing topics") if not name.startswith(("__", INTERNAL)))

    def _list_topics(self, doing: str) -> frozenset[str]:
        deadline = self.deadline()
        while True:
            self._clients.check_open()
            try:
                return frozenset(self._asked.list_topics(timeout=max(deadline.left_s, 0.05)).topics)
            except KafkaException as error:
                if deadline.passed:
                    raise self._clients.unavailable(doing, error) from error
            deadline.pause()

    def describe(self, names: Sequence[str]) -> dict[str, TopicFound]:
        """Those of them that are there."""
        found: dict[str, TopicFound] = {}
        if not names:
            return found
        answers = self._ask(
            "describing topics",
            list(names),
            lambda some, left_s: self._asked.describe_topics(TopicCollection(some), request_timeout=left_s),
            passed_over=MISSING | {KafkaError.TOPIC_EXCEPTION},
        )
        for name in names:
            described = answers.get(name)
            if described is None:
                self._known.pop(name, None)
            else:
                found[name] = TopicFound(str(described.topic_id), len(described.partitions))
                self._known[name] = len(described.partitions)
        return found

    def create(self, specs: Sequence[TopicSpec], settings: Mapping[str, str] | None = None) -> None:
        """Make them, and wait until they can be used; one that exists stays what it is."""
        wanted = {
            spec.name: NewTopic(
                spec.name,
                num_partitions=spec.partitions,
                config=topic_settings(self._clients, compacted=spec.compacted) | dict(settings or {}),
            )
            for spec in specs
        }

        def make(names: list[str], left_s: float) -> dict[str, Any]:
            return self._asked.create_topics(
                [wanted[name] for name in names], operation_timeout=left_s, request_timeout=left_s
            )

        try:
            self._ask("creating topics", list(wanted), make, passed_over={KafkaError.TOPIC_ALREADY_EXISTS})
        except KafkaException as error:
            known = error_of(error)
            if known is not None and known.code() in (KafkaError.TOPIC_EXCEPTION, KafkaError.INVALID_PARTITIONS):
                raise SettingError("topic", ", ".join(wanted), known.str()) from error
            raise
        # It is there for the controller; its leader may still be on the way.
        deadline = self.deadline()
        while missing := [name for name in wanted if name not in self.describe(list(wanted))]:
            if deadline.passed:
                raise self._clients.unavailable(f"seeing new topics {', '.join(missing)}")
            deadline.pause()
        self.edges([Partition(spec.name, number) for spec in specs for number in range(self._known[spec.name])], "end")

    def delete(self, names: Sequence[str]) -> None:
        """Delete them and wait until they are gone; those that do not exist are passed over."""
        if not names:
            return
        self.forget(names)
        self._ask(
            "deleting topics",
            list(names),
            lambda some, left_s: self._asked.delete_topics(some, operation_timeout=left_s, request_timeout=left_s),
            passed_over=MISSING | {KafkaError.TOPIC_EXCEPTION},
        )
        deadline = self.deadline()
        while self.describe(names):
            if deadline.passed:
                raise self._clients.unavailable("seeing deleted topics go")
            deadline.pause()

    def set_topics(self, names: Sequence[str], settings: Mapping[str, str]) -> None:
        """Give topics other settings."""
        changes = {
            ConfigResource(
                ResourceType.TOPIC,
                name,
                incremental_configs=[
                    ConfigEntry(each, value, incremental_operation=AlterConfigOpType.SET)
                    for each, value in settings.items()
                ],
            ): name
            for name in names
        }
        self._ask(
            "changing settings of topics",
            list(changes),
            lambda some, left_s: self._asked.incremental_alter_configs(some, request_timeout=left_s),
        )

    # Offsets

    def edges(self, partitions: Sequence[Partition], which: str) -> dict[Partition, Offset]:
        """`start`, `end` (of what is decided) or `very-end` (open transactions counted in) of each.

        Raises TopicNotFoundError.
        """
        if not partitions:
            return {}
        self.check_there(partitions)
        spec = OffsetSpec.earliest() if which == "start" else OffsetSpec.latest()  # type: ignore[no-untyped-call]
        isolation = IsolationLevel.READ_COMMITTED if which == "end" else IsolationLevel.READ_UNCOMMITTED
        keys = {KafkaPartition(topic, number): Partition(topic, number) for topic, number in partitions}
        answers = self._ask(
            "asking for ends of topics",
            list(keys),
            lambda some, left_s: self._asked.list_offsets(
                dict.fromkeys(some, spec), isolation_level=isolation, request_timeout=left_s
            ),
            missing=lambda key: keys[key],
            # Where the connection breaks under the question, librdkafka 2.16 answers OFFSET_INVALID without an error.
            answered=lambda info: info.offset >= 0,
        )
        return {keys[key]: Offset(answers[key].offset) for key in keys}

    def settled_ends(self, partitions: Sequence[Partition]) -> dict[Partition, Offset]:
        """As `Log.settled_ends`."""
        wanted = self.edges(partitions, "very-end")
        deadline = Deadline(self._clients.limits.transaction_timeout.total_seconds() + self._clients.timeout_s)
        settled: dict[Partition, Offset] = {}
        open_ones = list(wanted)
        while open_ones:
            settled |= (ends := self.edges(open_ones, "end"))
            open_ones = [partition for partition in open_ones if ends[partition] < wanted[partition]]
            if open_ones:
                if deadline.passed:
                    raise self._clients.unavailable(
                        "waiting for open transactions", f"still open: {open_ones[0].topic}/{open_ones[0].number}"
                    )
                deadline.pause()
        return settled

    def trim(self, partition: Partition, before: int) -> Offset:
        key = KafkaPartition(partition.topic, partition.number, before)
        answers = self._ask(
            "trimming",
            [key],
            lambda some, left_s: self._asked.delete_records(some, request_timeout=left_s, operation_timeout=left_s),
            missing=lambda _: partition,
            answered=lambda deleted: deleted.low_watermark >= 0,
        )
        return Offset(answers[key].low_watermark)

    # Groups

    def places(self, group: str, partitions: Sequence[Partition]) -> dict[Partition, Place]:
        """As `Log.places`.

        A consumer of the group asks, not the admin client: librdkafka 2.16 ends the process where a connection breaks while
        one of those asks a group's coordinator (librdkafka's pull request 5397).
        """
        if not partitions:
            return {}
        wanted = [KafkaPartition(*partition) for partition in partitions]

        def ask(deadline: Deadline) -> tuple[dict[Partition, Place], KafkaError | None]:
            consumer = self._take_consumer(group)
            try:
                answered = consumer.committed(wanted, timeout=self._try_s(deadline))
            except KafkaException as error:
                discard(consumer)  # a new one forgets a wrong coordinator
                unsettled = error_of(error)
                if unsettled is None:
                    raise self._clients.unavailable(f"asking for places of {group}", error) from error
                return {}, unsettled
            self._give_back(group, consumer)
            return _places_of(answered)

        return self._settled_places(group, ask)

    def all_places(self, group: str) -> dict[Partition, Place]:
        """Those in all topics. For what is done once, as a backup: see `places`."""
        if not self._has_coordinator:
            # On a cluster that never had a group, the first question of an admin client about one is never answered, and
            # repeating it ends the process (librdkafka 2.16). A consumer asks until there is a coordinator.
            self.places(group, [Partition(_ANY_TOPIC, 0)])
            self._has_coordinator = True

        def ask(_: Deadline) -> tuple[dict[Partition, Place], KafkaError | None]:
            answers = self._ask(
                "asking for places",
                [group],
                lambda _, left_s: self._asked.list_consumer_group_offsets(
                    [ConsumerGroupTopicPartitions(group)], require_stable=True, request_timeout=left_s
                ),
                passed_over={KafkaError.GROUP_ID_NOT_FOUND},
            )
            return _places_of(answers[group].topic_partitions) if group in answers else ({}, None)

        return self._settled_places(group, ask)

    def _settled_places(
        self, group: str, ask: Callable[[Deadline], tuple[dict[Partition, Place], KafkaError | None]]
    ) -> dict[Partition, Place]:
        """What `ask` finds, once nothing speaks against it any more."""
        deadline = self.deadline()
        while True:
            self._clients.check_open()
            found, unsettled = ask(deadline)
            if unsettled is None:
                return found
            if deadline.passed or unsettled.code() not in PASSING:
                raise self._clients.unavailable(f"asking for places of {group}", unsettled)
            deadline.pause()

    def _take_consumer(self, group: str) -> Consumer:
        """One that nobody else uses: a consumer that is closed under a call ends the process."""
        with self._lock:
            kept = self._consumers.pop(group, None)
        return kept or self._clients.consumer(**{"group.id": group})

    def _give_back(self, group: str, consumer: Consumer) -> None:
        with self._lock:
            surplus = [consumer]
            if self._admin is not None and group not in self._consumers:
                self._consumers[group] = surplus.pop()
                surplus += [self._consumers.pop(oldest) for oldest in list(self._consumers)[:-_CONSUMERS_MAX]]
        for each in surplus:
            discard(each)

    def groups(self) -> list[str]:
        """All groups of the cluster, other programs' too."""
        answers = self._ask(
            "listing groups",
            ["groups"],
            lambda _, left_s: {"groups": self._asked.list_consumer_groups(request_timeout=left_s)},
        )
        return sorted(each.group_id for each in answers["groups"].valid)

    def delete_group(self, group: str) -> None:
        self._ask(
            "deleting a group",
            [group],
            lambda some, left_s: self._asked.delete_consumer_groups(some, request_timeout=left_s),
            passed_over={KafkaError.GROUP_ID_NOT_FOUND},
        )

    def _ask(
        self,
        doing: str,
        keys: list[Any],
        call: Callable[[list[Any], float], dict[Any, Any]],
        *,
        passed_over: Iterable[int] = (),
        missing: Callable[[Any], Partition] | None = None,
        answered: Callable[[Any], bool] = lambda _: True,
    ) -> dict[Any, Any]:
        """The answer for each key; asks again for those whose failure passes, until the time is up.

        Keys whose error is in `passed_over` are left out. With `missing`, one whose topic is gone raises
        TopicNotFoundError, and one that only seems to be gone is asked for again. What is not `answered` is no answer.
        """
        deadline = self.deadline()
        answers: dict[Any, Any] = {}
        passed_over = frozenset(passed_over)
        while True:
            self._clients.check_open()
            again: list[Any] = []
            last: BaseException | None = None
            stale = False
            asked = self._admin
            try_s = self._try_s(deadline)
            try:
                futures = call(keys, try_s)
            except KafkaException as error:
                futures, again, last = {}, keys, error
                known = error_of(error)
                if known is None or known.code() not in PASSING:
                    raise
            for key, future in futures.items():
                try:
                    answer = future.result(try_s + 1)
                    if not answered(answer):
                        raise KafkaException(KafkaError(KafkaError._TRANSPORT, "the connection broke"))
                    answers[key] = answer
                except FutureTimeoutError as error:
                    again.append(key)
                    last, stale = error, True
                except KafkaException as error:
                    known = error_of(error)
                    code = None if known is None else known.code()
                    if code in passed_over:
                        continue
                    if code in MISSING and missing is not None:
                        partition = missing(key)
                        self.forget([partition.topic])
                        self.check_there([partition])
                    elif code not in PASSING:
                        raise self._refused(doing, error) from error
                    again.append(key)
                    last = error
                    stale = stale or code in STALE
            if not again:
                return answers
            if stale:
                self._renew(asked)
            if deadline.passed:
                raise self._clients.unavailable(doing, last) from last
            keys = again
            deadline.pause()

    def _try_s(self, deadline: Deadline) -> float:
        return max(min(deadline.left_s, self._clients.timeout_s / _TRIES), 0.05)

    def _renew(self, old: AdminClient | None) -> None:
        """Ask through a new client from now on, unless somebody saw to it already."""
        with self._lock:
            if old is not None and self._admin is old:
                self._clients.check_open()
                self._admin = self._clients.admin()
                discard(old)

    def _refused(self, doing: str, error: KafkaException) -> Exception:
        known = error_of(error)
        if known is not None and known.code() in (KafkaError.TOPIC_EXCEPTION, KafkaError.INVALID_PARTITIONS):
            return error
        return self._clients.unavailable(doing, error)
