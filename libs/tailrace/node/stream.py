"""Streams: the rows of a Table, each handed to the node once."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any

from tailrace.node.cursors import Cursor
from tailrace.node.protocol import DeadLetter

__all__ = ["Stream"]


class _Records:
    """An iterator over a cursor that others may share; it goes on after a rollback, even where it had ended."""

    __slots__ = ("_cursor", "_take")

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._take = cursor.take

    def __iter__(self) -> _Records:
        return self

    def __next__(self) -> dict[str, Any]:
        return self._take()

    def __del__(self) -> None:
        cursor = self._cursor
        if cursor.in_hand:
            cursor.dropped()


class _Bodies:
    """The iterator of `consume_with_rollback`: to ask for the next record says that the last one is done."""

    __slots__ = ("_cursor", "_out")

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._out = False

    def __iter__(self) -> _Bodies:
        return self

    def __next__(self) -> dict[str, Any]:
        cursor = self._cursor
        if self._out and cursor.in_hand:
            cursor.session.checkpoint()
        self._out = False
        row = cursor.take()
        self._out = True
        return row


class _WithRollback:
    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def __enter__(self) -> Iterator[dict[str, Any]]:
        self._cursor.session.save()
        self._bodies = _Bodies(self._cursor)
        return self._bodies

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        session, cursor = self._cursor.session, self._cursor
        if error is None or isinstance(error, SystemExit):
            if self._bodies._out and cursor.in_hand:
                session.checkpoint()
            session.loop.leave()
            return
        session.loop.leave()
        session.body_failed(cursor, error)


class Stream:
    """The rows of a table in order, each once: what `Table.as_stream()` gives.

    A stream hands out the rows after the position where the node's earlier runs stopped, up to the newest row at the
    time when the run began, and then ends: `for record in stream` is all that most nodes need. The position is kept
    in the node's State and committed together with the rows that the run writes, so every record has its effects
    once. All streams of a run over one table with one ordering share their position.

    To keep results fresh the platform may end a stream early, always between two records, and start the next run at
    once; the code sees a loop that simply ends.

    Records are dicts with values as the table's schema has them: `datetime` for times, parsed objects for Json. They
    carry their `patterns_id`.
    """

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    @property
    def order_by_field(self) -> str:
        """The field that the stream is ordered by."""
        return self._cursor.field

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The same as `consume_records()`."""
        return _Records(self._cursor)

    def consume_records(self, with_metadata: bool = False) -> Iterator[dict[str, Any]]:
        """An iterator over the records; each counts as consumed the moment it is handed out, whatever happens next.

        If the code fails, the record in hand goes to the table's dead letters and the next run goes on after it. To
        have records handed out again after a failure use `consume_with_rollback`. An iterator goes on after a
        `rollback()`.

        Args:
            with_metadata: accepted for compatibility, and without effect.
        """
        return _Records(self._cursor)

    def consume_with_rollback(self) -> _WithRollback:
        """A context that gives an iterator over the records: each is consumed when the body of the loop is through.

            with stream.consume_with_rollback() as records:
                for record in records:
                    ...

        When the body raises, what it did (rows, State, position) is dropped, the exception goes on, and the record is
        handed out again later, with growing pauses; after several tries it goes to the dead letters. Bodies before it
        stay done.
        """
        return _WithRollback(self._cursor)

    def checkpoint(self) -> None:
        """Commit the position together with all that the run has written so far (at most every 50 ms; in between it is
        a savepoint that is kept unless the process dies). `rollback()` goes back to here."""
        self._cursor.session.ensure_going_on()
        self._cursor.session.checkpoint()

    def rollback(self) -> None:
        """Go back to the last checkpoint of this run, or to where the run began. Rows written since stay."""
        self._cursor.session.ensure_going_on()
        self._cursor.roll_back()

    def rewind(self) -> None:
        """Go back to the first row of the table."""
        self._cursor.session.ensure_going_on()
        self._cursor.reposition(None)

    def seek(self, value: Any) -> None:
        """Go on with the records whose ordering value is greater than `value` (not with the one that has it)."""
        self._cursor.session.ensure_going_on()
        self._cursor.reposition(value)

    def __repr__(self) -> str:
        return f"<Stream of {self._cursor.store.ref.name} by {self._cursor.field}>"


def make_letter(cursor: Cursor, error: str, traceback: str) -> DeadLetter:
    """The dead letter for the record that `cursor` has in hand."""
    offset, row, record = cursor.letter()
    return DeadLetter(cursor.lane_in_hand.ref.key, offset, row, record, error, traceback)
