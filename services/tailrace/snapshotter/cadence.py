"""When a table is worth a snapshot: a function of what is new and of what the table is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tailrace.snapshotter.settings import SnapshotterSettings

__all__ = ["News", "due_ms", "pause_ms"]

_EARLY = 0.8
"""Part of the wanted freshness that is waited for: the rest is for making the snapshot."""
_TENTH = 10
_PAUSE_FIRST_MS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What a table has that the lake has not. There is some."""

    since_ms: int
    """When the oldest of it came."""
    records: int
    """Offsets that it takes: no fewer than its records."""
    record_bytes: int
    """Size of a record, as far as is known."""
    keyed: bool
    """Whether the table has a unique key, so that its snapshot is a merge."""
    rows: int
    """Rows in the lake."""
    freshness: timedelta | None = None
    """What the table's author asked for."""


def due_ms(news: News, settings: SnapshotterSettings) -> int:
    """The moment at which a snapshot is due.

    At once where there is enough for a commit of its own size; else in time for the wanted freshness. A merge writes
    whole files again, so a tail of less than a tenth of the table waits for longer.
    """
    if news.records >= settings.step_records_max or news.records * news.record_bytes >= settings.step_bytes_max:
        return news.since_ms
    wait = news.freshness
    if wait is None:
        small = news.keyed and news.records * _TENTH < news.rows
        wait = settings.keyed_interval if small else settings.freshness
    return news.since_ms + int(wait.total_seconds() * 1000 * _EARLY)


def pause_ms(failures: int, settings: SnapshotterSettings) -> int:
    """The pause after that many failures in a row (from 1): doubling, up to a bound."""
    longest_ms = int(settings.pause_max.total_seconds() * 1000)
    return min(_PAUSE_FIRST_MS << min(failures - 1, 20), longest_ms)
