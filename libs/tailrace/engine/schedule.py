"""Schedules: five crontab fields in UTC, and the minutes at which they fire."""

from __future__ import annotations

from functools import lru_cache

from croniter import croniter

from tailrace.engine.errors import BadScheduleError

__all__ = ["check_schedule", "last_fire_ms", "next_fire_ms"]


@lru_cache(maxsize=4096)
def check_schedule(text: str) -> None:
    """Return if `text` is a schedule that fires now and then.

    Raises:
        BadScheduleError: rejected; not five fields, a value out of range, or a day that no month has.
    """
    fields = text.split()
    if len(fields) != 5:
        raise BadScheduleError(text, f"it has {len(fields)} fields, not five")
    try:
        croniter(text, 0).get_next(float)
    except (ValueError, KeyError) as error:  # croniter's own errors are ValueErrors
        raise BadScheduleError(text, str(error)) from error


def next_fire_ms(text: str, after_ms: int) -> int:
    """The first fire later than `after_ms`, in ms since 1970; a whole minute."""
    check_schedule(text)
    return round(croniter(text, after_ms / 1000).get_next(float) * 1000)


def last_fire_ms(text: str, at_ms: int) -> int:
    """The last fire at or before `at_ms`, in ms since 1970; a whole minute."""
    check_schedule(text)
    # croniter looks for times strictly before the second that it is given.
    return round(croniter(text, at_ms // 1000 + 1).get_prev(float) * 1000)
