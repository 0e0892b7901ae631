"""Requests for runs: records of an app's triggers topic, durable before whoever asked is answered."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import orjson

from tailrace.log import Log, NewRecord, Offset, OffsetGapError, Partition, Record

__all__ = ["RunRequest", "request_at", "triggers_topic"]


def triggers_topic(graph: str) -> str:
    """Name of the topic of an app's requests for runs."""
    return f"{graph}._triggers"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Somebody asked for a run of one slot."""

    slot: str
    at_ms: int
    kind: str
    """`manual` where a person asked, `replay` for dead letters given back, or what a client of the API said."""
    letters: Sequence[Sequence[Any]] = ()
    """Dead letters that the run is to have once more: the fields of `GivenLetter`, as JSON has them."""

    def to_record(self) -> NewRecord:
        """The record that asks."""
        value = {"slot": self.slot, "at_ms": self.at_ms, "type": self.kind}
        return NewRecord(orjson.dumps({**value, "letters": self.letters} if self.letters else value))

    @classmethod
    def of(cls, record: Record) -> Self | None:
        """What a record of the topic asks for; None where it asks for nothing that we know."""
        try:
            value = orjson.loads(record.value or b"{}")
        except orjson.JSONDecodeError:
            return None
        if not isinstance(value, dict) or not isinstance(value.get("slot"), str):
            return None
        at_ms, letters = value.get("at_ms"), value.get("letters")
        return cls(
            slot=value["slot"],
            at_ms=at_ms if isinstance(at_ms, int) else record.ts_ms,
            kind=str(value.get("type", "manual")),
            letters=letters if isinstance(letters, list) else (),
        )


def request_at(log: Log, graph: str, offset: int) -> RunRequest | None:
    """The request in a record of an app's triggers topic; None where it is not kept any more. Blocks."""
    with contextlib.suppress(OffsetGapError):
        for record in log.read(Partition(triggers_topic(graph)), Offset(offset), records_max=1).records:
            if record.offset == offset:
                return RunRequest.of(record)
    return None
