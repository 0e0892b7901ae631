"""What can be asked of a log that is none of the contract's business: for `tailrace doctor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["HangingTransaction", "KafkaFacts", "KafkaTopicFacts", "LogFacts", "SqliteFacts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteFacts:
    """The file of an embedded log."""

    path: str
    journal_mode: str = ""
    damage: str = ""
    """What SQLite's quick check says; empty: nothing."""
    file_bytes: int = 0
    free_bytes: int = 0
    """In the file, to be used again."""
    wal_bytes: int = 0
    disk_free_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaTopicFacts:
    """A topic of ours on a cluster."""

    name: str
    replication: int
    in_sync: int
    """Replicas of its worst partition that are in sync."""
    settings: Mapping[str, str]
    wanted: Mapping[str, str]
    """What our promises rest on."""
    missing_rights: frozenset[str] = frozenset()
    """Operations that our user may not do with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HangingTransaction:
    """A transaction that nobody will end any more; what lies behind its start is seen by no reader."""

    topic: str
    number: int
    """Of the partition."""
    start: int
    """Offset of its first record there."""
    open_ms: int
    """Since its last record there was written."""
    writer: str = ""
    """Whose it is; empty: not one of ours, or its coordinator does not know it any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaFacts:
    """A cluster."""

    servers: str
    user: str = ""
    fetch_version_min: int | None = None
    """Oldest version of the request to fetch that the broker takes: 4 since Kafka 4.0. None: it did not tell."""
    brokers: int = 0
    topics: Sequence[KafkaTopicFacts] = ()
    missing_rights: frozenset[str] = frozenset()
    """What our user may not do with the cluster, a new topic, a group or a transactional id, as `operation on what`."""
    hanging: Sequence[HangingTransaction] = ()
    """In topics of ours, as far as our user may READ them."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of a broker; empty where our user may not see them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFacts:
    """A log as it is found."""

    url: str
    """Without its secrets."""
    unreachable: str = ""
    """Why nothing else is known; empty: it answers."""
    is_half_restored: bool = False
    backend: SqliteFacts | KafkaFacts | None = None
    clock_ahead_ms: int | None = None
    """How far the log's clock is ahead of ours, at least; 0 where they agree. None: unknown."""
    newest_birth_ms: int = 0
    """When the youngest topic was born."""
    lags: Mapping[str, int] = field(default_factory=dict)
    """Group -> offsets that it has not seen (gaps counted in)."""
