"""Dead letters given back: the node that failed at a record gets it once more, and nobody else does.

A person's wish to replay letters is a record of the app's triggers topic. The run that follows gets the letters' records,
as they were edited perhaps, as the rows of that Table's stream, at the places where they had been; the stream's own
place, and what the node has seen, stay. What the run made of a record and the deletion of its letter are in one
transaction, so it happens once, whoever dies when:

 1. the wish is durable   nothing has changed; whoever hosts the node takes it up.
 2. `run-begun`           as any run: nothing has changed.
 3. `run-ended`           rows, State and deletions are in our memory only.
 4. the commit            the point of no return. A record that failed again is a new letter in the same transaction.

A death before 4 leaves the letter where it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import orjson

from tailrace.engine import RunOutcome, SlotRecord
from tailrace.errors import RejectedError
from tailrace.log import Log, NewRecord, Offset, OffsetGapError, Partition, scan
from tailrace.node.protocol import Outcome, Progress, RunOrder
from tailrace.runner.tails import CallLog, Pin
from tailrace.tables import dead_letters_topic, message, rows_message, split_head, topic_of

__all__ = ["Given", "GivenLetter", "Kept", "LettersBack", "letters_from_json"]

_NOT_ACTIVE = "its record belongs to a table version that is not active any more"
_NOT_READ = "the node does not read that Table any more"
_NOT_TAKEN = "the node did not take it from a stream in log order"
_GONE = "it is not there any more"


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
        again but by a person. `more`: other letters wait."""
        more = more or record.more
        if ended is None:
            return RunOutcome(
                kind="failed", reason=told.reason, streamed=record.streamed, more=more, duration_ms=told.duration_ms
            )
        seen = {table: cut for table, cut in told.seen.items() if table != self.table}
        more = more or any(table != self.table for table in ended.more)
        return replace(told, seen=seen, streamed=told.streamed | record.streamed, more=more, retry=False, at=None)


@dataclass(slots=True)
class _Gone:
    """Letters of one Table that are gone: deleted, by a run or by a person."""

    position: int = 0
    ids: set[str] = field(default_factory=set)


@dataclass(slots=True)
class LettersBack:
    """The letters that wait for runs of their nodes, in this host."""

    log: Log
    call: CallLog
    _wished: dict[str, list[tuple[int, GivenLetter]]] = field(default_factory=dict)
    """By slot, with the offset of the wish: an older one than what the slot has handled is done with."""
    _waiting: dict[str, deque[GivenLetter]] = field(default_factory=dict)
    _gone: dict[str, _Gone] = field(default_factory=dict)

    def wish(self, slot: str, offset: int, letters: Iterable[GivenLetter]) -> None:
        """A person wants `slot` to have these once more."""
        self._wished.setdefault(slot, []).extend((offset, letter) for letter in letters)

    def waits(self, slot: str) -> bool:
        """Whether there are more."""
        return bool(self._waiting.get(slot))

    async def next(
        self,
        slot: str,
        run: str,
        record: SlotRecord,
        pins: Mapping[str, Pin],
        places: Mapping[str, tuple[int, int]],
        orders: Mapping[str, Any],
        rows_max: int,
    ) -> tuple[Given | None, list[Kept]]:
        """What the next run of a slot gets (None: nothing, it is a run like any other), and what stays."""
        waiting = self._waiting.setdefault(slot, deque())
        wished = self._wished.pop(slot, [])
        waiting.extend(letter for offset, letter in wished if offset >= record.trigger_offset)
        letters = {letter.id: letter for letter in waiting}  # those of a lost run may be there twice
        waiting.clear()
        chosen: list[GivenLetter] = []
        kept: list[Kept] = []
        gone = {table: await self._read_gone(table) for table in {letter.table for letter in letters.values()}}
        for letter in letters.values():
            if letter.table not in pins:
                kept.append(Kept(letter.table, [letter.id], _NOT_READ))
            elif letter.id in gone[letter.table]:
                kept.append(Kept(letter.table, [letter.id], _GONE))
            elif not _holds(pins[letter.table], letter.offset):
                kept.append(Kept(letter.table, [letter.id], _NOT_ACTIVE))
            else:
                chosen.append(letter)
        chosen.sort(key=lambda letter: (letter.table, letter.place))
        if not chosen:
            return None, kept
        table = chosen[0].table
        view = pins[table].view
        assert view is not None, "it holds the first of them"
        letters_max = 1 if view.settings.unique_on else max(1, rows_max)
        group = chosen[:1]
        for letter in chosen[1:]:
            if letter.table != table or letter.row > 0 or letter.offset == group[-1].offset:
                break
            if len(group) == letters_max:
                break
            group.append(letter)
        waiting.extend(chosen[len(group) :])
        return Given(table, group, places.get(table), orders.get(table), slot, run), kept

    def put_back(self, slot: str, given: Given) -> None:
        """The run is lost, and what it made of them: they wait again."""
        self._waiting.setdefault(slot, deque()).extendleft(reversed(given.letters))

    def ended(self, slot: str, given: Given, error: str) -> Kept | None:
        """The run is over. Letters that it has not come to wait for the next one; where it took none, none would."""
        rest = given.letters[given.taken :]
        if given.taken:
            self._waiting.setdefault(slot, deque()).extendleft(reversed(rest))
            return None
        rest = [*rest, *self._waiting.pop(slot, ())]
        return Kept(given.table, [letter.id for letter in rest], error or _NOT_TAKEN)

    async def _read_gone(self, table: str) -> set[str]:
        partition = Partition(dead_letters_topic(topic_of(table)))
        gone = self._gone.setdefault(partition.topic, _Gone())
        with suppress(RejectedError):  # a wish may name any table
            await self.call(lambda: _read_on(self.log, partition, gone))
        return gone.ids


def _holds(pin: Pin, offset: int) -> bool:
    return pin.view is not None and any(start <= offset < stop for start, stop in pin.view.segments)


def _read_on(log: Log, partition: Partition, gone: _Gone) -> None:
    end = log.settled_ends([partition])[partition]
    start = max(gone.position, log.starts([partition])[partition])
    if start >= end:
        return
    try:
        for batch in scan(log, partition, Offset(start), end):
            for record in batch.records:
                head = split_head(record.value)
                if head.get("kind") == "delete" and isinstance(head.get("ids"), list):
                    gone.ids.update(each for each in head["ids"] if isinstance(each, str))
            gone.position = int(batch.next)
    except OffsetGapError as gap:  # trimmed meanwhile
        gone.position = int(gap.start)
        _read_on(log, partition, gone)
