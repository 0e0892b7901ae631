"""Errors of the engine: what it refuses to take in."""

from __future__ import annotations

from tailrace.errors import FatalError, RejectedError

__all__ = ["BadRecordError", "BadScheduleError"]


class BadScheduleError(RejectedError):
    """A schedule that is no five-field crontab expression, or that never fires."""

    def __init__(self, text: str, detail: str) -> None:
        self.text, self.detail = text, detail
        super().__init__(
            f"schedule {text!r} cannot be used: {detail}; write five fields (minute hour day month weekday, UTC),"
            f" for example '0 22 * * *'"
        )


class BadRecordError(FatalError):
    """A slot's stored record cannot be read; going on without it could repeat or skip runs."""

    def __init__(self, field: str, value: object) -> None:
        self.field, self.value = field, value
        super().__init__(
            f"slot record has {field} = {value!r}, which this version cannot read: start the version that wrote it,"
            f" or restore the State topic"
        )
