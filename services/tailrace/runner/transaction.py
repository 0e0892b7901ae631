"""What one commit of a shard writes: the rows of several runs, their dead letters, State and places. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tailrace.engine import CommitPart
from tailrace.log import Append, NewRecord, Offset, Partition, Place
from tailrace.node.protocol import DeadLetter
from tailrace.runner.deadletters import dead_letter_record
from tailrace.runner.deployment import DeployedNode
from tailrace.runner.runs import Run
from tailrace.runner.slot import Slot, after
from tailrace.runner.slots import SlotState, group_of, state_topic
from tailrace.tables import split_lane, topic_of

__all__ = ["Transaction", "build"]


@dataclass(slots=True)
class Transaction:
    """Everything that becomes visible together."""

    records: dict[Partition, list[NewRecord]] = field(default_factory=dict)
    places: dict[str, dict[Partition, Place]] = field(default_factory=dict)
    """By consumer group."""
    states: dict[str, SlotState] = field(default_factory=dict)
    """By slot."""
    folders: list[str] = field(default_factory=list)
    """Staged folders that its messages may name."""
    dead_letter_topics: set[str] = field(default_factory=set)
    """Topics that must exist first."""

    def add(self, topic: str, records: Iterable[NewRecord]) -> None:
        """Records for a topic, or a lane of it, after those that are there."""
        self.records.setdefault(Partition(*split_lane(topic)), []).extend(records)

    @property
    def appends(self) -> list[Append]:
        """For the log."""
        return [Append(partition, records) for partition, records in self.records.items()]


def build(parts: Sequence[CommitPart], slots: Mapping[str, Slot], now_ms: int) -> Transaction:
    """The transaction of a commit. Changes nothing: a refused commit is built again, the same."""
    transaction = Transaction()
    for part in parts:
        slot = slots[part.slot]
        state = transaction.states.get(part.slot, slot.latest)
        run = slot.runs.get(part.run) if part.run is not None else None
        for piece in run.pieces if run is not None else ():
            assert run is not None
            state = after(state, piece.progress)
            for write in piece.writes:
                transaction.add(write.topic, write.records)
            _add_letters(transaction, slot, run, piece.progress.dead_letters, now_ms)
            transaction.folders.append(f"{run.order.stage}.{piece.part}")
        if part.dead_letter and run is not None and run.in_hand is not None:
            found = run.in_hand
            reason = run.outcome.reason if run.outcome else "the worker died"
            letter = DeadLetter(found.table, *found.place, found.record, reason, "")
            _add_letters(transaction, slot, run, [letter], now_ms)
            state = replace(state, places={**state.places, found.table: found.next_place})
        transaction.states[part.slot] = replace(state, record=part.record, slots=slot.deployed.slots, removed_ms=None)
    for name, state in transaction.states.items():
        slot = slots[name]
        transaction.add(state_topic(slot.deployed.graph), [state.to_record(name)])
        places = group_places(slot.deployed, state)
        if places != group_places(slot.deployed, slot.latest):
            transaction.places[group_of(name)] = places
    return transaction


def _add_letters(transaction: Transaction, slot: Slot, run: Run, letters: Sequence[DeadLetter], now_ms: int) -> None:
    topics = {table.topic: table.dead_letters for table in (run.node or slot.deployed).stores}
    for letter in letters:
        topic = topics.get(topic_of(letter.table))
        if topic is not None:
            transaction.dead_letter_topics.add(topic)
            transaction.add(topic, [dead_letter_record(letter, slot.name, run.order.run, now_ms)])


def group_places(node: DeployedNode, state: SlotState) -> dict[Partition, Place]:
    """What the slot's consumer group shows: where it streams on, or what it has seen, in each table it reads."""
    places: dict[Partition, Place] = {}
    for table in node.spec.reads:
        place = state.places.get(table)
        seen = state.record.seen.get(table, {}).get(0)
        if table in state.record.streamed and place is not None:
            places[Partition(*split_lane(table))] = Place(Offset(place[0]), str(place[1]) if place[1] else "")
        elif seen is not None:
            places[Partition(*split_lane(table))] = Place(Offset(seen))
    return places
