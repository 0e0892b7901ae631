"""What becomes of a run that raised: what stays, what is dropped, and what is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tailrace.node.protocol import DeadLetter, Outcome
from tailrace.node.script import NodeTimeLimitError
from tailrace.node.user_traceback import error_place, format_user_traceback

if TYPE_CHECKING:
    from tailrace.node.cursors import Cursor
    from tailrace.node.session import Session

__all__ = ["error_line", "finish_failed", "letter_for"]

_LINE_CHARS_MAX = 500


def error_line(error: BaseException, app_dir: str, file: str = "") -> str:
    """One line that says what and where: `nodes/a.py:12: ValueError: no such thing`."""
    place = error_place(error, app_dir) if app_dir else None
    text = str(error).strip().partition("\n")[0]
    what = f"{type(error).__name__}: {text}" if text else type(error).__name__
    line = getattr(error, "line", None)
    if not place and file.endswith(".sql") and isinstance(line, int) and hasattr(error, "message"):
        what, file = f"{type(error).__name__}: {error.message}", f"{file}:{line}"
    where = f"{place.file}:{place.line}: " if place else f"{file}: " if file else ""
    return (where + what)[:_LINE_CHARS_MAX]


def letter_for(session: Session, cursor: Cursor, error: BaseException) -> DeadLetter:
    """The dead letter of the record that `cursor` has in hand."""
    offset, row, record = cursor.letter()
    app_dir = session.order.app_dir
    return DeadLetter(
        cursor.lane_in_hand.ref.key,
        offset,
        row,
        record,
        error_line(error, app_dir, session.order.file),
        format_user_traceback(error, app_dir),
    )


def finish_failed(session: Session, error: BaseException) -> Outcome:
    """End a run whose code raised `error`.

    A body of `consume_with_rollback` that raised was dropped already, and is handed out again. A node that is to be
    handed again what it failed at drops what it did since its last checkpoint. Otherwise what the run did stays; the record in hand becomes a dead
    letter, and the next run goes on after it.
    """
    retry = False
    last_try = session.order.dead_letter
    if session.dropped_by is not None and _is_from(error, session.dropped_by):
        retry = True
    elif session.order.again and not last_try:
        session.drop_body(error)
        retry = True
    else:
        cursor = session.hand
        if cursor is not None and cursor.failed_in_hand(error.__traceback__):
            session.add_letter(letter_for(session, cursor, error))
    kind = "timed_out" if isinstance(error, NodeTimeLimitError) else "failed"
    line = error_line(error, session.order.app_dir, session.order.file)
    text = format_user_traceback(error, session.order.app_dir)
    return session.finish(kind, error=line, traceback=text, retry=retry)


def _is_from(error: BaseException, origin: BaseException) -> bool:
    """Whether `error` is `origin`, or was raised because of it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        if one is origin:
            return True
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
    return False
