"""Dead letters that one run gets once more: as rows of a stream, and as what is committed of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import orjson

from tailrace.engine import RunOutcome, SlotRecord
from tailrace.log import NewRecord
from tailrace.node.protocol import Outcome, Progress, RunOrder
from tailrace.tables import message, rows_message

__all__ = ["Given", "GivenLetter", "Kept", "letters_from_json"]


class GivenLetter(NamedTuple):
    """A dead letter on its way back."""

    id: str
    table: str
    """The lane of the Table that the record came from."""
    offset: int
    row: int
    record: Any

    @property
    def place(self) -> tuple[int, int]:
        """Where the record had been."""
        return self.offset, self.row


def letters_from_json(value: object) -> list[GivenLetter]:
    """The letters of a wish; what is none is passed over."""
    rows = value if isinstance(value, list) else []
    return [GivenLetter(*row) for row in rows if isinstance(row, list) and len(row) == len(GivenLetter._fields)]


class Kept(NamedTuple):
    """Letters that stay, and why."""

    table: str
    ids: Sequence[str]
    why: str

    def to_record(self) -> NewRecord:
        """For the Table of the letters: says it to whoever waits, and changes nothing."""
        return NewRecord(message({"kind": "signal", "quiet": True, "kept": list(self.ids), "why": self.why}))


@dataclass(slots=True)
class Given:
    """Letters that one run gets; in order, those after the first at the beginning of their messages."""

    table: str
    letters: Sequence[GivenLetter]
    place: tuple[int, int] | None
    """Where the Table's stream really stands; it stays there."""
    orders: Any
    node: str
    run: str
    taken: int = 0
    """How many of them the run has taken, as far as it has told."""

    def order(self, order: RunOrder) -> RunOrder:
        """The order of a run that gets them: its stream begins at the first, and what fails is a dead letter again."""
        places = {**order.places, self.table: self.letters[0].place}
        orders = {table: each for table, each in order.orders.items() if table != self.table}
        return replace(order, places=places, orders=orders, again=False, dead_letter=True)

    def messages(self, start: int, stop: int) -> tuple[dict[str, list[int]], bytes]:
        """The letters' records as messages of their Table, as a `scan` gives them."""
        wanted = [letter for letter in self.letters if start <= letter.offset < stop]
        # Rows before the wanted one only take their places: the stream begins behind them.
        rows = [b"[" + b"null," * each.row + orjson.dumps(each.record) + b"]" for each in wanted]
        heads = [{"kind": "rows", "n": each.row + 1} for each in wanted]
        values = [rows_message(head, row) for head, row in zip(heads, rows, strict=True)]
        header = {
            "offsets": [each.offset for each in wanted],
            "ts_ms": [0] * len(wanted),
            "sizes": [len(value) for value in values],
        }
        return header, b",".join(values)

    def settle(self, progress: Progress) -> tuple[Progress, list[NewRecord]]:
        """What is committed of a run's progress: all but the place of this stream. And what deletes the letters that the
        run has taken since it told last."""
        places, orders = dict(progress.places), dict(progress.orders)
        at = places.pop(self.table, (0, 0))
        orders.pop(self.table, None)
        if self.place is not None:
            places[self.table] = self.place
        if self.orders is not None:
            orders[self.table] = self.orders
        taken = [letter.id for letter in self.letters[self.taken :] if letter.place < tuple(at)]
        self.taken += len(taken)
        head = {"kind": "delete", "ids": taken, "node": self.node, "run": self.run}
        deleted = [NewRecord(message(head))] if taken else []
        return replace(progress, places=places, orders=orders), deleted

    def outcome(self, record: SlotRecord, ended: Outcome | None, told: RunOutcome, *, more: bool) -> RunOutcome:
        """How the run ended, for the engine: what the node has seen of this Table stays as it was, and nothing is tried
        again but by a person. `more`: other letters wait, and the wish that named them is not done with."""
        owes, more = more, more or record.more
        if ended is None:
            return RunOutcome(
                kind="failed",
                reason=told.reason,
                streamed=record.streamed,
                more=more,
                duration_ms=told.duration_ms,
                owes=owes,
            )
        seen = {table: cut for table, cut in told.seen.items() if table != self.table}
        more = more or any(table != self.table for table in ended.more)
        return replace(
            told, seen=seen, streamed=told.streamed | record.streamed, more=more, retry=False, at=None, owes=owes
        )
