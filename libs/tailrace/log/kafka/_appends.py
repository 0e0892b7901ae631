"""Plain appends: durable records without a writer's name."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from tailrace.errors import SettingError, TailraceError
from tailrace.log.contract import NewRecord, Offset, OffsetRange, Partition
from tailrace.log.errors import OutcomeUnknownError, TopicNotFoundError
from tailrace.log.group_commit import check_sizes
from tailrace.log.kafka._clients import Clients
from tailrace.log.kafka._cluster import Cluster, Deadline
from tailrace.log.kafka._failures import MISSING, reason_of
from tailrace.log.kafka._sender import Sender

__all__ = ["Appends", "rejection"]


def rejection(error: KafkaError, partition: Partition) -> TailraceError | None:
    """What a failed delivery says about the record itself, if anything."""
    if error.code() in (KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG):
        return SettingError("key", None, f"records of the compacted topic {partition.topic} need one")
    if error.code() in MISSING:
        return TopicNotFoundError(*partition)
    return None


class Appends:
    """Thread-safe. Makes its producer at the first append, and a new one after a failure."""

    def __init__(self, clients: Clients, cluster: Cluster) -> None:
        self._clients, self._cluster = clients, cluster
        self._lock = threading.Lock()
        self._sender: Sender | None = None
        self._is_suspect = False

    def append(self, partition: Partition, records: Sequence[NewRecord]) -> OffsetRange:
        check_sizes(records, self._clients.limits.record_bytes_max)
        if not records:
            self._cluster.check_there([partition])
            end = self._cluster.edges([partition], "very-end")[partition]
            return OffsetRange(end, end)
        outcome = self.append_all({partition: records})[partition]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def append_all(
        self, by_partition: Mapping[Partition, Sequence[NewRecord]]
    ) -> dict[Partition, OffsetRange | Exception]:
        """For each partition where its records went, or why not. Raises where nothing was even sent."""
        self._clients.check_open()
        deadline = self._cluster.deadline()
        if self._is_suspect:
            self._cluster.hello()  # as long as nobody answers, nothing is sent, and so nothing is in doubt
            self._is_suspect = False
        outcomes: dict[Partition, OffsetRange | Exception] = {}
        waits: dict[Partition, _Delivery] = {}
        sender = self._open_sender()
        for partition, records in by_partition.items():
            try:
                self._cluster.check_there([partition])
            except TopicNotFoundError as error:
                outcomes[partition] = error
                continue
            wait = waits[partition] = _Delivery()
            try:
                sender.send(partition, records, first=wait.first, last=wait.last)
            except KafkaException as error:
                wait.fail(error.args[0])
        for partition, wait in waits.items():
            outcomes[partition] = self._outcome(sender, partition, wait, deadline)
        return outcomes

    def close(self) -> None:
        with self._lock:
            if self._sender is not None:
                self._sender.end()

    def _outcome(
        self, sender: Sender, partition: Partition, wait: _Delivery, deadline: Deadline
    ) -> OffsetRange | Exception:
        if wait.done.wait(deadline.left_s) and wait.error is None:
            return OffsetRange(Offset(wait.start), Offset(wait.stop))
        error = wait.error
        self._give_up(sender)
        self._cluster.forget([partition.topic])
        refused = None if error is None else rejection(error, partition)
        if refused is not None:
            return refused
        cause = self._clients.unavailable(f"an append to {partition.topic}/{partition.number}", error).cause
        return OutcomeUnknownError(f"an append to {partition.topic}/{partition.number}", cause)

    def _open_sender(self) -> Sender:
        with self._lock:
            if self._sender is None or self._sender.ended:
                self._sender = Sender(self._clients)
            return self._sender

    def _give_up(self, sender: Sender) -> None:
        """After a failure nothing that it still holds may be written later: its callers were told."""
        with self._lock:
            sender.end()
            self._is_suspect = True


class _Delivery:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: KafkaError | None = None
        self.start, self.stop = -1, -1

    def first(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self.start = message.offset()

    def last(self, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self.stop = message.offset() + 1
            if self.start < 0:
                self.start = message.offset()
        self.error = error
        self.done.set()

    def fail(self, error: KafkaError) -> None:
        self.error = error
        self.done.set()

    def __repr__(self) -> str:
        return f"{self.start}..{self.stop} {reason_of(self.error) if self.error else ''}"
