"""State: what a node remembers from one run to the next."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

from tailrace.node.cursors import LOG_ORDER, Cursor
from tailrace.node.session import current_session
from tailrace.node.values import decode_value, encode_value

if TYPE_CHECKING:
    from tailrace.node.session import Session

__all__ = ["State"]

_STREAMED = "latest_streamed_"


class State:
    """The key/value state of the node that runs, kept from run to run.

    Values are what JSON knows, and datetimes, dates, times, Decimals, bytes, tuples and sets; they come back as what
    they were, as copies: change a value and `set_value` it again. State is committed together with the rows that the
    run writes, also when the run fails.

    The positions of the node's streams show up as `latest_streamed_<store id>_<field>`: setting such a key moves the
    stream at once, and `reset()` takes all of them back to the beginning.
    """

    def __init__(self) -> None:
        self._session = current_session("State()")

    # -- single keys

    def get_value(self, key: str, default: Any = None) -> Any:
        """The value under `key`, else `default`. A key that was set to None gives None."""
        session = self._going_on()
        cursor = _cursor_of(session, key)
        if cursor is not None:
            return default if cursor.value is None else cursor.value
        return decode_value(session.state[key]) if key in session.state else default

    def set_value(self, key: str, value: Any) -> None:
        """Keep `value` under `key`.

        Raises:
            StateValueError: rejected; the value is none that State can keep.
        """
        session = self._going_on()
        cursor = _cursor_of(session, key)
        if cursor is not None:
            cursor.reposition(value)
        else:
            with session.lock:
                session.state[str(key)] = encode_value(value, str(key))

    def get_datetime(self, key: str, default: datetime | None = None) -> datetime | None:
        """The value under `key`, else `default`, as a datetime, naive or aware as it was stored; texts and dates are
        converted."""
        value = self.get_value(key)
        if value is None:
            value = default
        if value is None:
            return None
        if isinstance(value, datetime):
            return value
        if isinstance(value, date):
            return datetime.combine(value, time())
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value)
        try:
            return datetime.fromisoformat(str(value).strip())
        except ValueError:
            from dateutil import parser

            return parser.parse(str(value))

    # -- the whole

    def get(self) -> dict[str, Any]:
        """All keys and values, the streams' positions among them."""
        session = self._going_on()
        values = {key: decode_value(value) for key, value in session.state.items()}
        for key, cursor in _positions(session):
            if cursor.value is not None:
                values[key] = cursor.value
        return values

    def set(self, state: Mapping[str, Any]) -> None:
        """Replace the whole state. Streams whose position is not in it begin anew."""
        self.reset()
        for key, value in state.items():
            self.set_value(key, value)

    def reset(self) -> None:
        """Forget everything, the positions of streams too."""
        session = self._going_on()
        with session.lock:
            session.state.clear()
            for _, cursor in _positions(session):
                cursor.reposition(None)

    # -- the run

    def should_continue(self, pct_of_limit: float | None = None, seconds_till_limit: float | None = None) -> bool:
        """False when the run's time limit is near: stop then, and `request_new_run()`.

        Args:
            pct_of_limit: part of the limit that may be used, from 0 to 1 (or to 100).
            seconds_till_limit: seconds that must be left.

        With both, or neither (then 80% and 120 s), whichever is later counts.
        """
        session = self._going_on()
        limit_s = session.order.time_limit_s
        if pct_of_limit is None and seconds_till_limit is None:
            pct_of_limit, seconds_till_limit = 0.8, 120.0
        ends: list[float] = []
        if pct_of_limit is not None:
            ends.append(limit_s * (pct_of_limit / 100 if pct_of_limit > 1 else pct_of_limit))
        if seconds_till_limit is not None:
            ends.append(limit_s - seconds_till_limit)
        return session.elapsed_s < max(ends)

    def request_new_run(self, trigger_downstream: bool = True, wait_atleast_seconds: float | None = None) -> None:
        """Run this node again after this run has ended.

        Args:
            trigger_downstream: False: what this run writes does not fire the nodes that read it.
            wait_atleast_seconds: least pause before the new run; None: at once.
        """
        session = self._going_on()
        session.requested = (int((wait_atleast_seconds or 0) * 1000), trigger_downstream)
        session.quiet = not trigger_downstream

    def _going_on(self) -> Session:
        self._session.ensure_going_on()
        return self._session

    def __repr__(self) -> str:
        return f"<State of {self._session.order.node}>"


def _cursor_of(session: Session, key: object) -> Cursor | None:
    """The cursor whose position `key` is."""
    if not isinstance(key, str) or not key.startswith(_STREAMED):
        return None
    rest = key[len(_STREAMED) :]
    for ref in session.refs:
        if rest.startswith(ref.store_id + "_"):
            field = rest[len(ref.store_id) + 1 :]
            return session.store(ref).cursor(field)
    return None


def _positions(session: Session) -> list[tuple[str, Cursor]]:
    """All streams that have a position, by this run or an earlier one."""
    for ref in session.refs:
        for field, kept in session.order.orders.get(ref.key, {}).items():
            session.store(ref).cursor(kept[2] if field == LOG_ORDER else field)
        if ref.key in session.order.places:
            session.store(ref).log_cursor()
    return [(f"{_STREAMED}{cursor.store.ref.store_id}_{cursor.field}", cursor) for cursor in session.cursors.values()]
