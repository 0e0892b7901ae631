"""Which shards a runner may hold, and when it may open one. Pure: moments come in as arguments.

The group gives shards and takes them back. Before each new assignment everything is taken back, most of it only to come
again, so that alone stops nothing: what was given last is held until the next assignment says otherwise, or until others
may have been given it. Two runners may hold a shard for a moment; the log's fence sees to it that one of them writes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

__all__ = ["ClaimLimits", "Claims"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimLimits:
    """How long a runner goes on without knowing."""

    let_go: timedelta
    """From all shards being taken back, without a new assignment, to letting go of them: the group's session time-out.
    Others have them by then. Less stops runs that would have gone on."""

    @property
    def lost(self) -> timedelta:
        """From all shards being taken back, without a new assignment, to giving up: the membership has died unnoticed, and
        a new process gets a new one. Less ends runners whose broker is only slow to come back."""
        return 6 * self.let_go

    @property
    def doubt(self) -> timedelta:
        """After standing still for half that long, or after another has taken a shard, nothing is opened for that
        long: it is enough to hear from the group. Opening takes a shard from its owner."""
        return self.let_go


class Claims:
    """What the group last said, and what has happened since. Times are those of a monotonic clock, in seconds."""

    def __init__(self, limits: ClaimLimits, now_s: float) -> None:
        self._let_go_s = limits.let_go.total_seconds()
        self._lost_s = limits.lost.total_seconds()
        self._doubt_s = limits.doubt.total_seconds()
        self._given = frozenset[int]()
        self._revoked_s: float | None = now_s
        self._seen_s = now_s
        self._doubts_until_s = now_s
        self._taken: dict[int, float] = {}

    def assigned(self, shards: frozenset[int], now_s: float) -> None:
        """The group gives these shards, and no others."""
        self._given, self._revoked_s = shards, None
        self._taken.clear()
        self._seen_s = self._doubts_until_s = now_s

    def revoked(self, now_s: float) -> None:
        """The group takes all of them back, and will give some."""
        if self._revoked_s is None:
            self._revoked_s = now_s

    def taken(self, shard: int, now_s: float) -> None:
        """Another runner has opened this shard: it has it, or is wrong and will find that out before we try again."""
        self._taken[shard] = now_s + self._doubt_s

    def awake(self, now_s: float) -> None:
        """Called a few times a second; from a gap between two calls it is seen that this process stood still."""
        if now_s - self._seen_s > self._let_go_s / 2:
            self._doubts_until_s = now_s + self._doubt_s
        self._seen_s = now_s

    def held(self, now_s: float) -> frozenset[int]:
        """The shards to hold now."""
        if self._revoked_s is not None and now_s - self._revoked_s >= self._let_go_s:
            return frozenset()
        return frozenset(shard for shard in self._given if self._taken.get(shard, now_s) <= now_s)

    def is_lost(self, now_s: float) -> bool:
        """Whether the group has not been heard of for so long that nothing will come any more."""
        return self._revoked_s is not None and now_s - self._revoked_s >= self._lost_s

    def may_open(self, now_s: float) -> bool:
        """Whether a shard that is held may be opened now."""
        stood_still = now_s - self._seen_s > self._let_go_s / 2
        return self._revoked_s is None and not stood_still and now_s >= self._doubts_until_s
