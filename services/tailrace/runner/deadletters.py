"""Dead letters: records that a node could not handle, kept in an ordinary Table beside the one they came from."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from tailrace.log import NewRecord
from tailrace.node.protocol import DeadLetter
from tailrace.runner.tails import Pin
from tailrace.tables import (
    IdMaker,
    Messages,
    SnapshotReader,
    StagedFiles,
    VersionReader,
    dead_letters_message,
    parse_id,
    split_lane,
)

if TYPE_CHECKING:
    from tailrace.runner.catalog import Catalog

__all__ = ["InHand", "dead_letter_record", "record_in_hand"]


class InHand(NamedTuple):
    """The record that a worker had, or was about to get, when it died."""

    table: str
    place: tuple[int, int]
    next_place: tuple[int, int]
    record: Any

    def before(self, other: InHand) -> bool:
        """Whether its id is less; `other` is of the same table."""
        return (self.place, split_lane(self.table)[1]) < (other.place, split_lane(other.table)[1])


def dead_letter_record(letter: DeadLetter, node: str, run: str, now_ms: int) -> NewRecord:
    """A dead letter as a message of its Table."""
    found = (letter.offset, letter.row, letter.record, letter.error, letter.traceback)
    partition = split_lane(letter.table)[1]
    return NewRecord(dead_letters_message([found], now_ms, node=node, run=run, partition=partition))


class _OneBatch:
    def __init__(self, messages: Messages) -> None:
        self._messages = messages

    def scan(self, start: int, stop: int) -> Iterator[Messages]:
        yield self._messages.between(start, stop)


async def record_in_hand(
    tails: Catalog, table: str, pin: Pin, place: tuple[int, int], files: StagedFiles
) -> InHand | None:
    """The first row of a stream at or after `place`; None where the cut holds none."""
    view = pin.view
    if view is None:
        return None
    tail = tails[table]
    ids = IdMaker(tail.info.name, tail.info.born_ms, tail.partition.number)
    at = max(place[0], min(start for start, _ in view.segments))
    start = await tail.start()
    if at < start:
        held = await tails.held(table, view, pin.cut)
        if held.snapshot is not None:
            past = SnapshotReader(held.snapshot, await tails.folder(held.snapshot), before=held.before)
            nothing = _OneBatch(Messages.of([]))
            reader = VersionReader(view, ids, nothing, files, snapshot=past, log_start=start)
            found = await asyncio.to_thread(_first_row, table, reader, place)
            if found is not None:
                return found
            at = max(at, held.snapshot.position)
    while at < pin.cut:
        scanned = await tail.scan(at, pin.cut, 200)
        reader = VersionReader(view, ids, _OneBatch(scanned.messages), files)
        found = await asyncio.to_thread(_first_row, table, reader, place)
        if found is not None or scanned.next <= at:
            return found
        at = scanned.next
    return None


def _first_row(table: str, reader: VersionReader, place: tuple[int, int]) -> InHand | None:
    for rows in reader.stream(*place):
        row, after = rows.rows[0], rows.places[0]
        at = (after[0], after[1] - 1) if after[1] else (after[0] - 1, 0)
        id_text = row.get(reader.id_name) if reader.id_name else None
        if isinstance(id_text, str):
            named = parse_id(id_text)
            at = (named.offset, named.row)
        return InHand(table, at, after, orjson.loads(orjson.dumps(row, default=str)))
    return None
