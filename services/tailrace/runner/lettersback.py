"""Dead letters given back: the node that failed at a record gets it once more, and nobody else does.

A person's wish to replay letters is a record of the app's triggers topic. The run that follows gets the letters' records,
as they were edited perhaps, as the rows of that Table's stream, at the places where they had been; the stream's own
place, and what the node has seen, stay. What the run made of a record and the deletion of its letter are in one
transaction, so it happens once, whoever dies when:

 1. the wish is durable   nothing has changed; whoever hosts the node takes it up.
 2. `run-begun`           as any run: nothing has changed.
 3. `run-ended`           rows, State and deletions are in our memory only.
 4. the commit            the point of no return. A record that failed again is a new letter in the same transaction.

A death before 4 leaves the letter where it was. A wish that takes several runs is done with by the last of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tailrace.engine import RunOutcome, SlotRecord, StartRun
from tailrace.errors import RejectedError
from tailrace.log import Log, Offset, OffsetGapError, Partition, scan
from tailrace.node.protocol import Outcome
from tailrace.runner.given import Given, GivenLetter, Kept
from tailrace.runner.runs import Run
from tailrace.runner.slot import Slot
from tailrace.runner.tails import CallLog, Pin, Spawn
from tailrace.tables import dead_letters_topic, split_head, topic_of

__all__ = ["LettersBack"]

_NOT_ACTIVE = "its record belongs to a table version that is not active any more"
_NOT_READ = "the node does not read that Table any more"
_NOT_TAKEN = "the node did not take it from a stream in log order"
_GONE = "it is not there any more"


@dataclass(slots=True)
class _Gone:
    """Letters of one Table that are gone: deleted, by a run or by a person."""

    position: int = 0
    ids: set[str] = field(default_factory=set)


class LettersBack:
    """The letters that wait for runs of their nodes, in this host."""

    def __init__(self, log: Log, call: CallLog, spawn: Spawn) -> None:
        self._log, self._call, self._spawn = log, call, spawn
        self._wished: dict[str, list[tuple[int, GivenLetter]]] = {}
        """By slot, with the offset of the wish: an older one than what the slot has handled is done with."""
        self._waiting: dict[str, deque[GivenLetter]] = {}
        self._gone: dict[str, _Gone] = {}

    def wish(self, slot: str, offset: int, letters: Iterable[GivenLetter]) -> None:
        """A person wants `slot` to have these once more."""
        self._wished.setdefault(slot, []).extend((offset, letter) for letter in letters)

    async def give(
        self, slot: Slot, start: StartRun, run: str, record: SlotRecord, pins: Mapping[str, Pin]
    ) -> Given | None:
        """What a run that begins gets; None: nothing, it is a run like any other."""
        waiting = self._waiting.setdefault(slot.name, deque())
        wished = self._wished.pop(slot.name, [])
        waiting.extend(letter for offset, letter in wished if offset >= record.trigger_offset)
        letters = {letter.id: letter for letter in waiting}  # those of a lost run may be there twice
        chosen = await self._choose(letters.values(), pins)
        waiting.clear()  # only now: a run that is lost meanwhile has them wait still
        if not chosen:
            return None
        table = chosen[0].table
        view = pins[table].view
        assert view is not None, "it holds the first of them"
        group = _together(chosen, 1 if view.settings.unique_on else max(1, start.rows_max))
        waiting.extend(chosen[len(group) :])
        head = slot.head
        return Given(table, group, head.places.get(table), head.orders.get(table), slot.name, run)

    async def _choose(self, letters: Iterable[GivenLetter], pins: Mapping[str, Pin]) -> list[GivenLetter]:
        """Those that a run can get, in order; of the others it is told why they stay."""
        chosen: list[GivenLetter] = []
        gone = {table: await self._read_gone(table) for table in {letter.table for letter in letters}}
        for letter in letters:
            if letter.table not in pins:
                self._tell(Kept(letter.table, [letter.id], _NOT_READ))
            elif letter.id in gone[letter.table]:
                self._tell(Kept(letter.table, [letter.id], _GONE))
            elif not _holds(pins[letter.table], letter.offset):
                self._tell(Kept(letter.table, [letter.id], _NOT_ACTIVE))
            else:
                chosen.append(letter)
        return sorted(chosen, key=lambda letter: (letter.table, letter.place))

    def put_back(self, given: Given) -> None:
        """The run is lost, and what it made of them: they wait again."""
        self._waiting.setdefault(given.node, deque()).extendleft(reversed(given.letters))

    def owes(self, run: Run) -> bool:
        """Whether letters wait that this run has not come to, so that the wish for them is not done with."""
        given = run.given
        return given is not None and (given.taken < len(given.letters) or bool(self._waiting.get(run.slot)))

    def take_back(self, run: Run, record: SlotRecord, ended: Outcome | None, outcome: RunOutcome) -> RunOutcome:
        """The run is over: its outcome for the engine. Letters that it has not come to wait for the next one; where it
        took none, none would, and they stay what they were."""
        given = run.given
        assert given is not None
        rest = given.letters[given.taken :]
        if given.taken:
            self._waiting.setdefault(run.slot, deque()).extendleft(reversed(rest))
        else:
            rest = [*rest, *self._waiting.pop(run.slot, ())]
            self._tell(Kept(given.table, [letter.id for letter in rest], outcome.reason or _NOT_TAKEN))
        return given.outcome(record, ended, outcome, more=bool(self._waiting.get(run.slot)))

    def _tell(self, kept: Kept) -> None:
        self._spawn(self._write(kept))

    async def _write(self, kept: Kept) -> None:
        partition = Partition(dead_letters_topic(topic_of(kept.table)))
        with suppress(RejectedError):  # a wish may name any table
            await self._call(lambda: self._log.append(partition, [kept.to_record()]))

    async def _read_gone(self, table: str) -> set[str]:
        partition = Partition(dead_letters_topic(topic_of(table)))
        gone = self._gone.setdefault(partition.topic, _Gone())
        with suppress(RejectedError):  # a wish may name any table
            await self._call(lambda: _read_on(self._log, partition, gone))
        return gone.ids


def _together(letters: Sequence[GivenLetter], letters_max: int) -> list[GivenLetter]:
    """The first letters that one run can get as rows of one stream."""
    group = [letters[0]]
    for letter in letters[1:letters_max]:
        if letter.table != group[0].table or letter.row > 0 or letter.offset == group[-1].offset:
            break
        group.append(letter)
    return group


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
