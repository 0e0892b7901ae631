"""By what right a host holds its shards."""

from __future__ import annotations

from typing import Protocol

from tailrace.log import FencedError

__all__ = ["Alone", "Tenure"]


class Tenure(Protocol):
    """Knows whose the shards are. What it says keeps hosts out of each other's way; that no two of them write is seen to
    by the log, which fences."""

    def may_open(self) -> bool:
        """Whether a shard may be opened now: opening takes it from whoever has it."""
        ...

    def taken(self, shard: int, error: FencedError) -> None:
        """Another host has opened the shard. Calls `Host.own` without it, or raises `error`, which ends the host."""
        ...


class Alone:
    """There is to be one host. A second one has taken over, so the first must end."""

    def may_open(self) -> bool:
        return True

    def taken(self, shard: int, error: FencedError) -> None:
        raise error
