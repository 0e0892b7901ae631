"""The log on Apache Kafka: the contract, carried out by the modules beside this one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

from tailrace.errors import SettingError, TailraceError
from tailrace.log.contract import (
    Appender,
    Batch,
    LogCut,
    LogLimits,
    NewRecord,
    Offset,
    OffsetRange,
    Partition,
    Place,
    TopicInfo,
    TopicSpec,
    Watch,
    Writer,
    Wrote,
)
from tailrace.log.errors import RestoreUnfinishedError
from tailrace.log.facts import KafkaFacts
from tailrace.log.group_commit import GroupAppender
from tailrace.log.kafka._appends import Appends
from tailrace.log.kafka._clients import Clients
from tailrace.log.kafka._cluster import INTERNAL, RESTORING, Cluster
from tailrace.log.kafka._cut import take_cut
from tailrace.log.kafka._facts import check_version, find_facts, mend_topics
from tailrace.log.kafka._reader import Reader
from tailrace.log.kafka._registry import Registry
from tailrace.log.kafka._url import KafkaUrl
from tailrace.log.kafka._watch import KafkaWatch
from tailrace.log.kafka._writer import KafkaWriter
from tailrace.runtime import SYSTEM, Runtime

__all__ = ["KafkaLog"]

_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


class KafkaLog:
    """A log for many machines: a Kafka cluster (4.x). Writing is durable on return as the cluster understands it
    (acks=all; Kafka does not fsync each message, so with one broker a power cut can lose the last ones).

    Beside the topics that are made through it, the cluster holds our book-keeping: `_tailrace.topics` (births) and
    one `_tailrace.writer.*` topic for each writer's name (the number of its last commit).
    """

    def __init__(self, url: str, *, limits: LogLimits | None = None, runtime: Runtime = SYSTEM) -> None:
        self._limits = limits or LogLimits()
        self._runtime = runtime
        self._clients = Clients(KafkaUrl.parse(url), self._limits)
        check_version(self._clients)  # before there is a client, which would connect to it meanwhile
        self._cluster = Cluster(self._clients)
        if RESTORING in self._cluster.hello():
            raise RestoreUnfinishedError(self._clients.url.shown)
        self._reader = Reader(self._clients, self._cluster)
        self._appends = Appends(self._clients, self._cluster)
        self._registry = Registry(self._clients, self._cluster, self._reader, runtime, self._internal_writer)
        self._watches: set[KafkaWatch] = set()

    def __repr__(self) -> str:
        return f"KafkaLog({self._clients.url.shown!r})"

    @property
    def limits(self) -> LogLimits:
        return self._limits

    def create_topics(self, specs: Sequence[TopicSpec]) -> dict[str, TopicInfo]:
        for spec in specs:
            if not _TOPIC_NAME.fullmatch(spec.name) or spec.name in {".", ".."}:
                raise SettingError("topic", spec.name, "must be 1 to 249 of the characters a-z A-Z 0-9 . _ -")
            if spec.name.startswith((INTERNAL, "__")):
                raise SettingError("topic", spec.name, f"names that begin with {INTERNAL} or __ are taken")
            if spec.partitions < 1:
                raise SettingError(f"partitions of topic {spec.name}", spec.partitions, "must be at least 1")
        self._clients.check_open()
        return self._registry.create(specs) if specs else {}

    def delete_topics(self, names: Sequence[str]) -> None:
        self._clients.check_open()
        self._reader.forget(list(names))
        self._registry.delete(names)
        self._reader.forget(list(names))

    def topics(self, prefix: str = "") -> dict[str, TopicInfo]:
        self._clients.check_open()
        return self._registry.topics(prefix)

    def append(self, partition: Partition, records: Sequence[NewRecord]) -> OffsetRange:
        return self._appends.append(partition, records)

    def appender(self, wrote: Wrote | None = None) -> Appender:
        clients = self._clients
        return GroupAppender(clients.url.shown, clients.limits, self._appends.append_all, clients.check_open, wrote)

    def open_writer(self, name: str) -> Writer:
        return self._open_writer(name, self._runtime)

    def read(
        self,
        partition: Partition,
        start: Offset,
        *,
        stop: Offset | None = None,
        records_max: int = 10_000,
        bytes_max: int = 16 << 20,
    ) -> Batch:
        return self._reader.read(partition, start, stop, max(records_max, 1), bytes_max)

    def ends(self, partitions: Sequence[Partition]) -> dict[Partition, Offset]:
        self._clients.check_open()
        return self._cluster.edges(partitions, "end")

    def settled_ends(self, partitions: Sequence[Partition]) -> dict[Partition, Offset]:
        self._clients.check_open()
        return self._cluster.settled_ends(partitions)

    def starts(self, partitions: Sequence[Partition]) -> dict[Partition, Offset]:
        self._clients.check_open()
        return self._cluster.edges(partitions, "start")

    def places(self, group: str, partitions: Sequence[Partition]) -> dict[Partition, Place]:
        self._clients.check_open()
        return self._cluster.places(group, partitions)

    def delete_group(self, group: str) -> None:
        self._clients.check_open()
        self._cluster.delete_group(group)

    def trim(self, partition: Partition, before: Offset, *, records_max: int = 5_000) -> Offset:
        self._clients.check_open()
        start = self._cluster.edges([partition], "start")[partition]
        end = self._cluster.edges([partition], "end")[partition]
        target = min(before, end, start + max(records_max, 1))
        if target <= start:
            return start
        self._reader.forget([partition.topic])
        return self._cluster.trim(partition, target)

    def cut(self) -> LogCut:
        self._clients.check_open()
        return take_cut(self._clients, self._cluster, self._reader, self._registry)

    def watch(self, partitions: Sequence[Partition] = ()) -> Watch:
        watch = KafkaWatch(self._clients, self._cluster, partitions, self._watches.discard)
        self._watches.add(watch)
        return watch

    def find_facts(self) -> tuple[KafkaFacts, int | None]:
        """What the cluster says of itself, and how far its clock is ahead: for `tailrace doctor`."""
        return find_facts(self._clients, self._cluster, list(self.topics().values()), self._runtime.clock)

    def mend_topics(self, wrong: dict[str, dict[str, str]]) -> None:
        """Give topics other settings."""
        mend_topics(self._cluster, wrong)

    def end_hanging(self, writers: Sequence[str]) -> None:
        """End as it was decided what the cluster has left open of these writers. Whoever has one of them is fenced."""
        for name in writers:
            self.open_writer(name).close()

    def close(self) -> None:
        if self._clients.closed:
            return
        with suppress(TailraceError):
            self._registry.close()
        for watch in list(self._watches):
            watch.close()
        self._clients.closed = True
        self._appends.close()
        self._reader.close()
        self._cluster.close()

    def _internal_writer(self, name: str) -> Writer:
        return self._open_writer(name, SYSTEM)

    def _open_writer(self, name: str, runtime: Runtime) -> Writer:
        self._clients.check_open()
        return KafkaWriter(self._clients, self._cluster, self._reader, runtime.probe, name)
