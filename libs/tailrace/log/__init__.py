"""The message log: one contract, an embedded backend on SQLite and a distributed one on Apache Kafka."""

from __future__ import annotations

from tailrace.errors import TailraceError
from tailrace.log.contract import (
    Append,
    Appender,
    Batch,
    Commit,
    Log,
    LogLimits,
    NewRecord,
    Offset,
    OffsetRange,
    Partition,
    Place,
    Record,
    TopicInfo,
    TopicSpec,
    Watch,
    Writer,
)
from tailrace.log.errors import (
    DiskFullError,
    FencedError,
    LogBusyError,
    LogFormatError,
    LogUnavailableError,
    LogUrlError,
    OffsetGapError,
    OutcomeUnknownError,
    RecordTooLargeError,
    TopicNotFoundError,
)
from tailrace.log.scanning import scan
from tailrace.runtime import SYSTEM, Runtime

__all__ = [
    "Append",
    "Appender",
    "Batch",
    "Commit",
    "DiskFullError",
    "FencedError",
    "Log",
    "LogBusyError",
    "LogFormatError",
    "LogLimits",
    "LogUnavailableError",
    "LogUrlError",
    "NewRecord",
    "Offset",
    "OffsetGapError",
    "OffsetRange",
    "OutcomeUnknownError",
    "Partition",
    "Place",
    "Record",
    "RecordTooLargeError",
    "TailraceError",
    "TopicInfo",
    "TopicNotFoundError",
    "TopicSpec",
    "Watch",
    "Writer",
    "open_log",
    "scan",
]


def open_log(url: str, *, limits: LogLimits | None = None, runtime: Runtime = SYSTEM) -> Log:
    """The log at `url`: `sqlite:///path/tailrace.db` or `kafka://host:9092,host2:9092?setting=value`.

    Kafka's settings are librdkafka's own names (`security.protocol`, `sasl.username`...).

    Raises:
        LogUrlError: rejected; the url cannot be understood.
        LogUnavailableError: retriable; nothing answers there.
        LogFormatError: fatal; what lies there is not a log of ours or of a newer format.
    """
    scheme, separator, _ = url.partition("://")
    if separator and scheme == "sqlite":
        from tailrace.log.sqlite import SqliteLog

        return SqliteLog(url, limits=limits or LogLimits(), runtime=runtime)
    if separator and scheme == "kafka":
        from tailrace.log.kafka import KafkaLog

        return KafkaLog(url, limits=limits or LogLimits(), runtime=runtime)
    raise LogUrlError(url, "it must begin with sqlite:/// (a file's path) or kafka:// (host:port,host:port)")
