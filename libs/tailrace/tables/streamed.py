"""Rows as streams hand them over."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, overload

if TYPE_CHECKING:
    from tailrace.tables.messages import Head, Messages

__all__ = ["FirstRows", "Moments", "Row", "StreamBatch", "WebhookRow", "moment_of"]

Row: TypeAlias = dict[str, Any]

_EPOCH = datetime(1970, 1, 1)
_MS_MIN, _MS_MAX = -62_135_596_800_000, 253_402_300_800_000
"""The first millisecond of the year 1, and that after the year 9999."""


class StreamBatch(NamedTuple):
    """Rows as a stream hands them over, and for each the place (offset, row) where the stream goes on after it.

    That is one row further in the same message, also after its last row: so a place tells which row was the last one.
    """

    rows: list[Row]
    places: Sequence[tuple[int, int]]


class FirstRows(Sequence[tuple[int, int]]):
    """The places after the first rows of messages, each made when it is asked for: most of a batch's nobody needs."""

    __slots__ = ("_offsets",)

    def __init__(self, offsets: Sequence[int]) -> None:
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, at: int) -> tuple[int, int]: ...

    @overload
    def __getitem__(self, at: slice) -> FirstRows: ...

    def __getitem__(self, at: int | slice) -> tuple[int, int] | FirstRows:
        if isinstance(at, slice):
            return FirstRows(self._offsets[at])
        return self._offsets[at], 1


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

    def posts(self, batch: Messages, docs: Sequence[Head]) -> StreamBatch | None:
        """The rows of a batch in which each message is one post; None where one of them is something else.

        This is the way of most streamed records, so it is made for that one kind alone.
        """
        rows: list[Row] = []
        received, last_ms = _EPOCH, None
        for ts_ms, doc in zip(batch.ts_ms, docs, strict=True):
            if doc["kind"] != "webhook" or "request_key" in doc:
                return None
            own = doc.get("rows")
            if type(own) is not list or len(own) != 1 or type(own[0]) is str:
                return None
            ms = doc.get("ts")
            if ms != last_ms or last_ms is None:
                at_ms = moment_of(ms, ts_ms)
                received, last_ms = self.moment(at_ms), ms if at_ms is ms else None
            post: Row = WebhookRow()  # filling it is three times as fast as calling it with its fields
            post["timestamp"] = received
            post["record"] = own[0]
            rows.append(post)
        return StreamBatch(rows, FirstRows(batch.offsets))
