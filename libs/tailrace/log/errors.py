"""Errors of the log, each in one of the four families of `tailrace.errors`."""

from __future__ import annotations

from tailrace.errors import AbortableError, FatalError, RejectedError, RetriableError

__all__ = [
    "BrokerTooOldError",
    "DiskFullError",
    "FencedError",
    "LogBusyError",
    "LogFormatError",
    "LogUnavailableError",
    "LogUrlError",
    "NoQuietMomentError",
    "NotEmptyError",
    "OffsetGapError",
    "OutcomeUnknownError",
    "RecordTooLargeError",
    "RestoreUnfinishedError",
    "TopicNotFoundError",
]


class LogUnavailableError(RetriableError):
    """The log did not answer, or is closed; nothing was written."""

    def __init__(self, url: str, cause: str) -> None:
        self.url, self.cause = url, cause
        super().__init__(f"the log {url} is not available: {cause}")


class LogBusyError(RetriableError):
    """Too many appends wait already; nothing was written."""

    def __init__(self, waiting: int, append_wait_max: int) -> None:
        self.waiting, self.append_wait_max = waiting, append_wait_max
        super().__init__(f"{waiting} appends wait already (append_wait_max is {append_wait_max}): try again shortly")


class NoQuietMomentError(RetriableError):
    """Writers left no moment between two commits, so the log could not be cut."""

    def __init__(self, url: str, waited_s: float, commits: int) -> None:
        self.url, self.waited_s, self.commits = url, waited_s, commits
        self.hint = "stop the runners for as long as the backup begins (gateways may go on), or try again later"
        super().__init__(
            f"the log {url} could not be cut: {commits} commits in {waited_s:g} s left no moment between them"
        )


class DiskFullError(RetriableError):
    """The log's disk is full; nothing was written."""

    def __init__(self, url: str, path: str) -> None:
        self.url, self.path = url, path
        super().__init__(f"the disk of {path} is full: free some space there, then it goes on by itself")


class OutcomeUnknownError(AbortableError):
    """The log went away before it answered: the write may be there or not."""

    def __init__(self, what: str, cause: str) -> None:
        self.what, self.cause = what, cause
        super().__init__(f"unknown whether {what} happened: {cause}")


class FencedError(FatalError):
    """Another writer opened this name (or this one was given up): this one must write no more."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"writer {name!r} was fenced: another one of this name is open; is a second host running?")


class LogFormatError(FatalError):
    """What lies there is no log of ours, is damaged, or is of a newer format."""

    def __init__(self, path: str, found: str, wanted: str) -> None:
        self.path, self.found, self.wanted = path, found, wanted
        super().__init__(f"{path} has {found}; this program reads {wanted}")


class RestoreUnfinishedError(FatalError):
    """A restore into this log began and did not end: there is no log yet."""

    def __init__(self, url: str, hint: str = "") -> None:
        self.url = url
        self.hint = hint or "run the same `tailrace restore` or `tailrace migrate` again: it begins from the beginning"
        super().__init__(f"the log {url} is half restored: a restore into it was interrupted")


class BrokerTooOldError(FatalError):
    """The broker is of a Kafka older than 4.0."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.hint = "upgrade the brokers to Kafka 4.x, or name another cluster with --log"
        super().__init__(f"the broker at {url} is a Kafka older than 4.0, whose transactions Tailrace does not rest on")


class NotEmptyError(RejectedError):
    """A restore goes only where nothing is; nothing was changed."""

    def __init__(self, where: str, found: str) -> None:
        self.where, self.found = where, found
        self.hint = "name another place, or delete what is there yourself"
        super().__init__(f"{where} is not empty: it has {found}")


class LogUrlError(RejectedError):
    """A log's URL cannot be understood."""

    def __init__(self, url: str, rule: str) -> None:
        self.url, self.rule = url, rule
        super().__init__(f"log url {url!r}: {rule}")


class RecordTooLargeError(RejectedError):
    """A record is over the log's limit; nothing was written."""

    def __init__(self, record_bytes: int, record_bytes_max: int) -> None:
        self.record_bytes, self.record_bytes_max = record_bytes, record_bytes_max
        super().__init__(f"record of {record_bytes} bytes is over record_bytes_max ({record_bytes_max} bytes)")


class TopicNotFoundError(RejectedError):
    """No such topic, or no such partition of it."""

    def __init__(self, topic: str, partition: int = 0) -> None:
        self.topic, self.partition = topic, partition
        super().__init__(f"topic {topic!r} has no partition {partition}, or does not exist")


class OffsetGapError(RejectedError):
    """Records between the wanted offset and the log's start are gone."""

    def __init__(self, topic: str, partition: int, wanted: int, start: int) -> None:
        self.topic, self.partition, self.wanted, self.start = topic, partition, wanted, start
        super().__init__(f"records {wanted} to {start} of {topic}/{partition} were trimmed; the log begins at {start}")
