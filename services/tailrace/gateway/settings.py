"""Bounds of one gateway, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tailrace.errors import SettingError

__all__ = ["GatewaySettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Bounds of one gateway."""

    body_bytes_max: int = 4 << 20
    """Largest body; past it 413. It must fit in one record of the log with room for its head."""

    rows_max: int = 10_000
    """Most elements of a posted array; past it 413. An array is one message: all or nothing."""

    depth_max: int = 500
    """Deepest nesting of a body; past it 400. Readers parse it inside our own message, and parsers stop at 1,024."""

    respond_timeout: timedelta = timedelta(seconds=30)
    """Longest that a request waits for a node's answer; then 504. Most senders give up after 30 s."""

    responses_waiting_max: int = 1_000
    """Most requests that wait for a node's answer; past it 503. Each holds a connection."""

    retry_after: timedelta = timedelta(seconds=2)
    """What a sender is told to wait when the log is away or busy."""

    def __post_init__(self) -> None:
        if self.body_bytes_max < 1:
            raise SettingError("body_bytes_max", self.body_bytes_max, "at least 1")
