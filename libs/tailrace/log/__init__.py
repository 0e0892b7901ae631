"""The message log: one contract, an embedded backend on SQLite and a distributed one on Apache Kafka."""

from __future__ import annotations

from tailrace.errors import TailraceError
from tailrace.log.contract import (
    Append,
    Appender,
    Batch,
    Commit,
    Log,
    LogCut,
    LogLimits,
    NewRecord,
    Offset,
    OffsetRange,
    Partition,
    Place,
    Record,
    Restore,
    TopicInfo,
    TopicSpec,
    Watch,
    Writer,
    Wrote,
)
from tailrace.log.errors import (
    BrokerTooOldError,
    DiskFullError,
    FencedError,
    LogBusyError,
    LogFormatError,
    LogUnavailableError,
    LogUrlError,
    NoQuietMomentError,
    NotEmptyError,
    OffsetGapError,
    OutcomeUnknownError,
    RecordTooLargeError,
    RestoreUnfinishedError,
    TopicNotFoundError,
)
from tailrace.log.examine import end_hanging, examine, mend_topics
from tailrace.log.facts import HangingTransaction, KafkaFacts, KafkaTopicFacts, LogFacts, SqliteFacts
from tailrace.log.scanning import scan
from tailrace.runtime import SYSTEM, Runtime

__all__ = [
    "Append",
    "Appender",
    "Batch",
    "BrokerTooOldError",
    "Commit",
    "DiskFullError",
    "FencedError",
    "HangingTransaction",
    "KafkaFacts",
    "KafkaTopicFacts",
    "Log",
    "LogBusyError",
    "LogCut",
    "LogFacts",
    "LogFormatError",
    "LogLimits",
    "LogUnavailableError",
    "LogUrlError",
    "NewRecord",
    "NoQuietMomentError",
    "NotEmptyError",
    "Offset",
    "OffsetGapError",
    "OffsetRange",
    "OutcomeUnknownError",
    "Partition",
    "Place",
    "Record",
    "RecordTooLargeError",
    "Restore",
    "RestoreUnfinishedError",
    "SqliteFacts",
    "TailraceError",
    "TopicInfo",
    "TopicNotFoundError",
    "TopicSpec",
    "Watch",
    "Writer",
    "Wrote",
    "end_hanging",
    "examine",
    "mend_topics",
    "open_log",
    "open_restore",
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


def open_restore(url: str, cut: LogCut, *, limits: LogLimits | None = None, runtime: Runtime = SYSTEM) -> Restore:
    """Begin to make the log `cut` at `url`, where there must be none; what an interrupted restore left is deleted.

    Raises:
        NotEmptyError: rejected; a log is there, or topics of the cut's names. Nothing was changed.
        LogUrlError, LogUnavailableError: as `open_log`.
    """
    scheme, separator, _ = url.partition("://")
    if separator and scheme == "sqlite":
        from tailrace.log.sqlite import SqliteRestore

        return SqliteRestore(url, cut, limits=limits or LogLimits(), runtime=runtime)
    if separator and scheme == "kafka":
        from tailrace.log.kafka import KafkaRestore

        return KafkaRestore(url, cut, limits=limits or LogLimits(), runtime=runtime)
    raise LogUrlError(url, "it must begin with sqlite:/// (a file's path) or kafka:// (host:port,host:port)")
