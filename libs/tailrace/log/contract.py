"""What every message log promises: records in topics, writers whose commits are atomic, groups with places.

The contract promises only what both backends keep; nothing above it knows which one runs. It is synchronous and
thread-safe; only appending for many waiting callers (`Appender`) and waiting for news (`Watch`) are async.
Every call is bounded in time by the log's `LogLimits` and ends in a value or in one of `tailrace.log.errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, NewType, Protocol, TypeAlias

__all__ = [
    "Append",
    "Appender",
    "Batch",
    "Commit",
    "Log",
    "LogCut",
    "LogLimits",
    "NewRecord",
    "Offset",
    "OffsetRange",
    "Partition",
    "Place",
    "Record",
    "Restore",
    "TopicInfo",
    "TopicSpec",
    "Watch",
    "Writer",
    "Wrote",
]

Offset = NewType("Offset", int)
"""Place of one record in one partition; from 0, only growing, gaps allowed."""


class Partition(NamedTuple):
    """An ordered slice of a topic: the unit of order."""

    topic: str
    number: int = 0


class OffsetRange(NamedTuple):
    """Records of one partition with `start <= offset < stop`; empty where the two are equal."""

    start: Offset
    stop: Offset


class NewRecord(NamedTuple):
    """A record to append. `value=None` is a tombstone: in a compacted topic it takes its key away."""

    value: bytes | None
    key: bytes | None = None


class Record(NamedTuple):
    """A committed record as it is read. `ts_ms`: when the log took it, milliseconds since 1970-01-01 UTC."""

    offset: Offset
    ts_ms: int
    key: bytes | None
    value: bytes | None


class Batch(NamedTuple):
    """What a read gave: `records` in offset order, and the offset where the next read goes on.

    `next` may lie past the last record (what lies between was aborted, compacted away, or is a marker of the
    backend's own), so always go on from `next`, never from the last record + 1.
    """

    records: list[Record]
    next: Offset


class Place(NamedTuple):
    """Where a group goes on in a partition: the **next** offset, with a few bytes of its owner's own."""

    offset: Offset
    metadata: str = ""


class Append(NamedTuple):
    """Records for one partition, in this order."""

    partition: Partition
    records: Sequence[NewRecord]


class Commit(NamedTuple):
    """A finished transaction: its number, and for each partition the range its records lie in.

    Others may have written inside the range as well.
    """

    number: int
    written: Mapping[Partition, OffsetRange]


class TopicSpec(NamedTuple):
    """A topic to create. The partition count is fixed for its life; `compacted`: only the last record of a key is kept."""

    name: str
    partitions: int = 1
    compacted: bool = False


class TopicInfo(NamedTuple):
    """A topic that exists. `born_ms`: the same for every reader, for ever; a topic made again is born later."""

    name: str
    partitions: int
    compacted: bool
    born_ms: int


class LogCut(NamedTuple):
    """A whole log as of one moment: each named writer's transaction lies before it in every partition, or in none."""

    topics: Mapping[str, TopicInfo]
    partitions: Mapping[Partition, OffsetRange]
    """From the first offset that was not trimmed to the end."""

    places: Mapping[str, Mapping[Partition, Place]]
    """Of all groups that have places in these topics; none lies after its partition's end."""

    writers: Mapping[str, int]
    """Name of each writer -> number of its last commit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLimits:
    """Bounds of one log handle."""

    record_bytes_max: int = 8 << 20
    """Most bytes of one record's key and value. Kafka's `max.message.bytes` of our topics is set from it; larger
    things go by claim check."""

    request_timeout: timedelta = timedelta(seconds=10)
    """Longest that one call waits for the backend. Shorter makes a slow broker look like a dead one."""

    transaction_timeout: timedelta = timedelta(seconds=15)
    """Longest that a transaction may stay open: for so long a dead writer can hold back readers. It must be longer
    than `request_timeout`, or a slow commit is aborted under our feet."""

    append_wait_max: int = 10_000
    """Most appends that wait in one `Appender`. Past it, callers are refused (`LogBusyError`): more would only wait
    longer, and all of them are in memory."""

    def __post_init__(self) -> None:
        from tailrace.errors import SettingError

        if not timedelta(0) < self.request_timeout < self.transaction_timeout:
            raise SettingError(
                "request_timeout", self.request_timeout, f"must lie between 0 and {self.transaction_timeout}"
            )


class Writer(Protocol):
    """The one living writer of its name; whoever opened the name before is fenced.

    Read places, State and cuts only *after* the writer is open: a late opener that read before could commit over
    a newer state. A writer belongs to one thread at a time.
    """

    @property
    def name(self) -> str: ...

    @property
    def commits(self) -> int:
        """Number of the last commit of this name, over all its writers; 0 before the first.

        After an `OutcomeUnknownError` the next writer of the name tells by it whether that commit happened.
        """
        ...

    @property
    def lost(self) -> bool:
        """Whether the next commit could only raise `OutcomeUnknownError`. To be asked every few seconds of a writer that has
        nothing to commit: what it committed last may be seen by nobody until its name is opened again."""
        ...

    def commit(
        self, appends: Sequence[Append] = (), places: Mapping[str, Mapping[Partition, Place]] | None = None
    ) -> Commit:
        """Append all records and commit all places (group -> partition -> place) in one transaction, or nothing.

        Returns once it is durable and visible. Numbered one higher than the last, also when it is empty of places.
        Records keep their order within a partition. A reader of one partition sees all of them or none; across
        partitions they may become visible some milliseconds apart.

        Raises:
            RecordTooLargeError, TopicNotFoundError: rejected; nothing was written, the writer is still good.
            FencedError: fatal for this writer: another opened its name. Nothing was written.
            LogUnavailableError, DiskFullError: retriable; nothing was written, the writer is still good.
            OutcomeUnknownError: abortable; it may have happened or not. Throw this writer away, open its name again
                and compare `commits`. Any further call on this writer raises `FencedError`.
        """
        ...

    def close(self) -> None:
        """Let go of the writer's resources; the name stays, with its number."""
        ...


Wrote: TypeAlias = Callable[[Partition, OffsetRange], None]
"""Told that all records in a range are the appender's own."""


class Appender(Protocol):
    """Durable appends for many callers at once on one event loop: group commit.

    Everything that waits goes down together in one write (one transaction on SQLite, one flush on Kafka).
    """

    async def append(self, partition: Partition, record: NewRecord) -> None:
        """Returns once the record survives `kill -9` of every process of ours (and, on Kafka, has acks=all).

        Records appended one after the other (awaited) keep their order. Cancelling does not take a record back.

        Raises:
            RecordTooLargeError, TopicNotFoundError: rejected, nothing written.
            LogBusyError: retriable: `append_wait_max` callers wait already; nothing written.
            LogUnavailableError, DiskFullError: retriable; the record is not there and will not be.
            OutcomeUnknownError: abortable; the record may be there.
        """
        ...

    async def close(self) -> None:
        """Finish what waits, refuse what comes later (`LogUnavailableError`)."""
        ...


class Watch(Protocol):
    """A doorbell over a set of partitions. Waiting takes no CPU time and wakes within milliseconds of a commit,
    also one of another process."""

    def add(self, partitions: Sequence[Partition]) -> None:
        """Watch these too; each counts as having news at once."""
        ...

    def remove(self, partitions: Sequence[Partition]) -> None: ...

    async def wait(self, timeout_s: float | None = None) -> frozenset[Partition]:
        """Partitions that may have got committed records since they were last returned; empty on time-out.

        May name one without news, never leaves one out. The data is not read by this.
        """
        ...

    def close(self) -> None: ...


class Log(Protocol):
    """Durable records, in order within each partition of each topic, and the places of groups.

    Readers see committed records only. Thread-safe; not to be carried over a fork.
    """

    @property
    def limits(self) -> LogLimits: ...

    def create_topics(self, specs: Sequence[TopicSpec]) -> dict[str, TopicInfo]:
        """Make those that are missing; returns all of them. One that exists keeps its partition count and cleanup.

        Survives a crash in between: calling again completes it. Kafka: `retention.ms=-1`, `retention.bytes=-1`.
        """
        ...

    def delete_topics(self, names: Sequence[str]) -> None:
        """Delete for ever; those that do not exist are passed over."""
        ...

    def topics(self, prefix: str = "") -> dict[str, TopicInfo]:
        """Topics whose name starts with `prefix`, by name; the log's own book-keeping topics are left out."""
        ...

    def append(self, partition: Partition, records: Sequence[NewRecord]) -> OffsetRange:
        """Add `records` to one partition, in this order; durable on return. For writers without a name.

        On SQLite all or none; on Kafka a crash may leave the first few. Not promised: that they lie side by side, or
        that offsets have no gaps. Raises as `Appender.append`.
        """
        ...

    def appender(self, wrote: Wrote | None = None) -> Appender:
        """A new group-committing appender for the running event loop.

        Args:
            wrote: told in the loop where records of one group lie in a partition, once they are durable; not where
                others' may lie between them.
        """
        ...

    def open_writer(self, name: str) -> Writer:
        """The writer of this name; fences every older one, and ends what it had open, before this returns."""
        ...

    def read(
        self,
        partition: Partition,
        start: Offset,
        *,
        stop: Offset | None = None,
        records_max: int = 10_000,
        bytes_max: int = 16 << 20,
    ) -> Batch:
        """Committed records with `start <= offset < stop` (to the end where None), as many as the bounds allow.

        Never waits for new records. Gives at least one record where there is one, however large. Reading on from
        `next` is cheap. `next == stop` once all before `stop` was given (`stop` above the end: `next` is the end).

        Raises:
            OffsetGapError: rejected: records between `start` and the log's start were trimmed.
            TopicNotFoundError, LogUnavailableError.
        """
        ...

    def ends(self, partitions: Sequence[Partition]) -> dict[Partition, Offset]:
        """For each, the offset before which everything is decided and visible (Kafka: the last stable offset)."""
        ...

    def settled_ends(self, partitions: Sequence[Partition]) -> dict[Partition, Offset]:
        """Ends that hide nothing: takes the very end first (Kafka: the high watermark), then waits until every open
        transaction before it is decided. State is restored up to here. Raises LogUnavailableError when that takes
        longer than `transaction_timeout` and `request_timeout` together."""
        ...

    def starts(self, partitions: Sequence[Partition]) -> dict[Partition, Offset]:
        """For each, the first offset that was not trimmed."""
        ...

    def places(self, group: str, partitions: Sequence[Partition]) -> dict[Partition, Place]:
        """The group's committed places; partitions without one are left out. Waits for pending commits to settle."""
        ...

    def delete_group(self, group: str) -> None: ...

    def trim(self, partition: Partition, before: Offset, *, records_max: int = 5_000) -> Offset:
        """Delete records with `offset < before`, at most about `records_max` of them; returns the new start.

        Call again until it returns `before` (or more). In small steps, because a large delete holds up writers.
        """
        ...

    def cut(self) -> LogCut:
        """The log as of now: all topics, where they begin and end, all places, all writers' numbers.

        No writer is disturbed. On SQLite one read transaction; on Kafka it is taken between two commits, and again until
        there is such a moment.

        Raises:
            NoQuietMomentError: retriable: writers left no moment between two commits for `request_timeout`.
            LogUnavailableError.
        """
        ...

    def watch(self, partitions: Sequence[Partition] = ()) -> Watch:
        """A doorbell; `add`ed partitions count as having news."""
        ...

    def close(self) -> None: ...


class Restore(Protocol):
    """Makes a log again in a place that holds none: every record at its offset, every topic as old as it was.

    Until `finish` returns there is no log, and whoever opens it is told so (`RestoreUnfinishedError`); a restore that
    died is begun again from its beginning, by opening another. Belongs to one thread.
    """

    def put(self, partition: Partition, records: Sequence[Record]) -> None:
        """Add `records` of the cut, with their offsets and times, after all that were put into this partition before."""
        ...

    def finish(self, starts: Mapping[Partition, Offset] | None = None) -> None:
        """The point of no return: partitions, places, births and writers' numbers are those of the cut from now on.

        `starts`: where partitions begin that were trimmed while they were read; what lies before is not there.
        """
        ...

    def close(self) -> None:
        """Let go; what was not finished stays as a leftover that the next restore begins by deleting."""
        ...
