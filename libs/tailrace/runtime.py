"""Time, chance and crashes, which come in as arguments everywhere below a `main`.

Production hands down `SYSTEM`; tests pass clocks that they move, ids that they know and probes that crash.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["SYSTEM", "Clock", "Crash", "CrashAt", "ManualClock", "Probe", "Runtime", "SystemClock"]


class Clock(Protocol):
    """Where time comes from."""

    def now_ms(self) -> int:
        """Wall clock: milliseconds since 1970-01-01 UTC."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from some fixed moment, never going back: for durations."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    monotonic_s = staticmethod(time.monotonic)  # each streamed record asks: no frame of Python's between


class ManualClock:
    """A clock that tests move; both readings go together."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._start_ms = self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return (self._now_ms - self._start_ms) / 1000

    def advance_ms(self, by_ms: int) -> None:
        """Move on by `by_ms` milliseconds."""
        assert by_ms >= 0, "time does not go back"
        self._now_ms += by_ms


class Crash(BaseException):
    """A death that a test planned; a BaseException, so that no `except Exception` survives it."""


class Probe:
    """Told of each named point as it is reached; does nothing. Tests pass one that waits, counts or crashes."""

    def reached(self, point: str) -> None:
        """`point` is one of the names in the docstring of the function that reports it."""


class CrashAt(Probe):
    """Dies at the `nth` time (from 1) that `point` is reached."""

    def __init__(self, point: str, nth: int = 1) -> None:
        self.point, self.nth, self.seen = point, nth, 0

    def reached(self, point: str) -> None:
        if point == self.point:
            self.seen += 1
            if self.seen == self.nth:
                raise Crash(point)


class KillAt(Probe):
    """Ends this process as `kill -9` would, the `nth` time that `point` is reached: for tests of real processes."""

    def __init__(self, point: str, nth: int = 1) -> None:
        self.point, self.nth, self.seen = point, nth, 0

    def reached(self, point: str) -> None:
        if point == self.point:
            self.seen += 1
            if self.seen == self.nth:
                os.kill(os.getpid(), 9)


def probe_from_environment() -> Probe:
    """The probe that `TAILRACE_KILL_AT=point[:nth]` asks for, else one that does nothing.

    So the crash tests can end the real services at a named point.
    """
    wanted = os.environ.get("TAILRACE_KILL_AT")
    if not wanted:
        return Probe()
    point, _, nth = wanted.partition(":")
    return KillAt(point, int(nth or 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What every `main` hands down."""

    clock: Clock = field(default_factory=SystemClock)
    random: random.Random = field(default_factory=random.SystemRandom)
    probe: Probe = field(default_factory=Probe)


SYSTEM = Runtime()
