"""Rows as streams hand them over."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

__all__ = ["Moments", "Row", "StreamBatch", "WebhookRow", "moment_of"]

Row: TypeAlias = dict[str, Any]

_EPOCH = datetime(1970, 1, 1)
_MS_MIN, _MS_MAX = -62_135_596_800_000, 253_402_300_800_000
"""The first millisecond of the year 1, and that after the year 9999."""


class StreamBatch(NamedTuple):
    """Rows as a stream hands them over, and for each the place (offset, row) where the stream goes on after it.

    That is one row further in the same message, also after its last row: so a place tells which row was the last one.
    """

    rows: list[Row]
    places: list[tuple[int, int]]


class WebhookRow(dict[str, Any]):
    """A webhook's row {timestamp, record}, which falls back to the keys of `record`: `row["email"]`."""

    __slots__ = ()

    def __missing__(self, key: str) -> object:
        record = dict.get(self, "record")
        if isinstance(record, dict):
            return record[key]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        if dict.__contains__(self, key):
            return True
        record = dict.get(self, "record")
        return isinstance(record, dict) and key in record

    def get(self, key: str, default: Any = None) -> Any:
        """As `dict.get`, with the same fallback."""
        try:
            return self[key]
        except KeyError:
            return default


def moment_of(ms: object, otherwise_ms: int) -> float:
    """Milliseconds since 1970 as a message gives them; `otherwise_ms` where it says nothing that is a time."""
    if (type(ms) is int or type(ms) is float) and ms and _MS_MIN <= ms < _MS_MAX:
        return ms
    return otherwise_ms


class Moments:
    """Milliseconds since 1970 as datetimes, where most lie in the same second as the last one."""

    def __init__(self) -> None:
        self._second = 0
        self._parts = (1970, 1, 1, 0, 0, 0)

    def moment(self, ms: float) -> datetime:
        """The time without a zone."""
        if type(ms) is not int:  # a foreign producer's
            return _EPOCH + timedelta(milliseconds=ms)
        second, rest_ms = divmod(ms, 1000)
        if second != self._second:
            moment = _EPOCH + timedelta(seconds=second)
            self._parts = (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
            self._second = second
        return datetime(*self._parts, rest_ms * 1000)
