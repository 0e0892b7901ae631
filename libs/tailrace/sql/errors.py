"""Errors of SQL: of a template, and of the statement that came out of it."""

from __future__ import annotations

from tailrace.errors import RejectedError

__all__ = ["SqlError", "SqlTemplateError"]


class SqlError(RejectedError):
    """A statement that PostgreSQL would refuse, that we do not support, or that failed while it ran.

    `line` counts from 1 in the statement as it was given, None where it is not known. `hint` says what to try.
    """

    def __init__(self, message: str, *, line: int | None = None, hint: str | None = None) -> None:
        self.message, self.line, self.hint = message, line, hint
        text = message if line is None else f"line {line}: {message}"
        super().__init__(text if hint is None else f"{text}. {hint}")


class SqlTemplateError(RejectedError):
    """A SQL file whose template cannot be rendered."""

    def __init__(self, path: str, line: int | None, cause: str) -> None:
        self.path, self.line, self.cause = path, line, cause
        place = path if line is None else f"{path}:{line}"
        super().__init__(f"Error parsing file {place}: {cause}")
