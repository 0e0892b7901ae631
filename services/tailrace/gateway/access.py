"""The access log: one JSON line for some of the accepted posts and for refusals, each bounded in a second."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import orjson
from aiohttp import web

from tailrace.gateway.limits import Bucket, RateLimit
from tailrace.runtime import Clock

__all__ = ["AccessLog", "AccessLogSettings"]

_LOGGER = logging.getLogger("tailrace.gateway.access")


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessLogSettings:
    """How much of the traffic is logged."""

    accepted_per_s_max: int = 10
    """Most lines a second for accepted posts; the rest are counted in the next line. At thousands of posts a second
    a line for each would cost more than the posts."""

    refused_per_s_max: int = 100
    """Most lines a second for refused posts: a sender in a loop should not fill the disk."""


class AccessLog:
    """Writes to the logger `tailrace.gateway.access`. No body, no query and no secret ever stands in it."""

    def __init__(self, clock: Clock, settings: AccessLogSettings | None = None) -> None:
        settings = settings or AccessLogSettings()
        now_s = clock.monotonic_s()
        self._clock = clock
        self._accepted = Bucket(RateLimit(settings.accepted_per_s_max), now_s)
        self._refused = Bucket(RateLimit(settings.refused_per_s_max), now_s)
        self._skipped = 0

    def note(self, webhook: str | None, request: web.BaseRequest, response: web.StreamResponse, size: int) -> None:
        """Log a request that was answered, or count it as left out. `webhook` is its topic, None where there is none."""
        bucket = self._accepted if response.status < 400 else self._refused
        if not bucket.take(self._clock.monotonic_s()):
            self._skipped += 1
            return
        line = {
            "ts": self._clock.now_ms(),
            "webhook": webhook,
            "status": response.status,
            "bytes": size,
            "remote": request.remote,
            "agent": request.headers.get("User-Agent", "")[:200],
            "trace": request.headers.get("traceparent", "")[:55],
            "skipped": self._skipped,
        }
        self._skipped = 0
        _LOGGER.info("%s", orjson.dumps(line).decode())
