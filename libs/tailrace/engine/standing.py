"""How a node stands, for people: a function of what its slot remembers and of what is going on. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from tailrace.engine.model import SlotRecord
from tailrace.engine.rules import Due

__all__ = ["Standing", "StandingKind", "standing_of"]

StandingKind: TypeAlias = Literal["opening", "running", "stopped", "paused", "retrying", "failed", "due", "idle"]
"""`opening`: what it remembers is being read. `stopped`: it stands still at what failed (`on_error: stop`). `paused`: the
circuit breaker is open. `retrying`: another try is to come. `failed`: its last run failed, and it goes on with the next
news or trigger. `due`: it waits for room. `idle`: it waits for news, a fire or a trigger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one slot stands at a moment."""

    kind: StandingKind
    at_ms: int | None = None
    """When it goes on by itself, where that is known."""
    error: str = ""
    """What its last run met, if that failed."""
    tries: int = 0
    """How often the work at hand has failed in a row."""
    failures: int = 0
    """Runs in a row that failed and got nowhere."""
    run: int = 0
    """Number of its last run; 0: none yet."""


def standing_of(record: SlotRecord | None, due: Due, now_ms: int, *, running: bool) -> Standing:
    """How a slot stands that remembers `record`."""
    if record is None:
        return Standing(kind="opening")
    kind: StandingKind = "due" if due.reasons else "idle"
    if running:
        kind = "running"
    elif record.tries and record.retry_ms is None:
        kind = "stopped"
    elif record.shut_ms is not None and record.shut_ms > now_ms and not due.reasons:
        kind = "paused"
    elif record.tries:
        kind = "retrying"
    elif record.error:
        kind = "failed"
    return Standing(
        kind=kind,
        at_ms=record.shut_ms if kind == "paused" and due.at_ms is None else due.at_ms,
        error=record.error,
        tries=record.tries,
        failures=record.failures,
        run=record.run,
    )
