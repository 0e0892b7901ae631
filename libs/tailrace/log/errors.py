"""Errors of the log, each in one of the four families of `tailrace.errors`."""

from __future__ import annotations

from tailrace.errors import AbortableError, FatalError, RejectedError, RetriableError

__all__ = [
    "DiskFullError",
    "FencedError",
    "LogBusyError",
    "LogFormatError",
    "LogUnavailableError",
    "LogUrlError",
    "OffsetGapError",
    "OutcomeUnknownError",
    "RecordTooLargeError",
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
