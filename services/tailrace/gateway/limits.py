"""How much a gateway takes at once, and from one webhook in a second. Pure: the time is an argument."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tailrace.errors import SettingError

__all__ = ["Bucket", "RateLimit", "Room"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So many posts in so many seconds. Up to `posts` may come at once; they come back evenly."""

    posts: int
    window_s: float = 1.0

    def __post_init__(self) -> None:
        if self.posts < 1:
            raise SettingError("rate limit", self.posts, "at least 1 post")
        if not 0 < self.window_s < math.inf:
            raise SettingError("window of a rate limit", self.window_s, "more than 0 seconds")


class Bucket:
    """A token bucket: full at first, a token a post, `posts` new ones each `window_s`."""

    __slots__ = ("_at_s", "_tokens", "limit")

    def __init__(self, limit: RateLimit, now_s: float) -> None:
        self.limit = limit
        self._tokens = float(limit.posts)
        self._at_s = now_s

    def take(self, now_s: float) -> bool:
        """Whether there was a token; it is gone then."""
        limit = self.limit
        gained = max(now_s - self._at_s, 0.0) * limit.posts / limit.window_s
        self._tokens = min(self._tokens + gained, limit.posts)
        self._at_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    @property
    def wait_s(self) -> float:
        """From the last `take` until there is a token again; 0 where there is one."""
        return max(1 - self._tokens, 0.0) * self.limit.window_s / self.limit.posts

    def headers(self) -> dict[str, str]:
        """What a sender is told of its limit (draft-ietf-httpapi-ratelimit-headers-10)."""
        limit = self.limit
        full_s = (limit.posts - self._tokens) * limit.window_s / limit.posts
        return {
            "RateLimit-Policy": f'"webhook";q={limit.posts};w={math.ceil(limit.window_s)}',
            "RateLimit": f'"webhook";r={int(self._tokens)};t={math.ceil(full_s)}',
        }


class Room:
    """So many bytes, taken and given back."""

    __slots__ = ("bytes_max", "taken")

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.taken = 0

    def take(self, size: int) -> bool:
        """Whether there was room for `size` more bytes; they are taken then. One alone fits, however large."""
        if self.taken and self.taken + size > self.bytes_max:
            return False
        self.taken += size
        return True

    def give_back(self, size: int) -> None:
        self.taken -= size
        assert self.taken >= 0, "more was given back than was taken"
