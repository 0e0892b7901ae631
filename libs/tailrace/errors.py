"""Errors of the log, the tables and the nodes.

TailraceError
├── RetriableError   call again, same arguments: it may work, and doing it twice does no harm
├── AbortableError   abort the transaction, go back to the committed places, start over
├── RejectedError    this input can never work: dead-letter it, tell its author, go on with the next
└── FatalError       this process must not go on: exit, and let the supervisor start another

Callers catch a family, never a message's text. Each error carries its values as attributes. An unknown
error counts as fatal. The errors of one room live in that room and derive from one of the four.
"""

from __future__ import annotations

__all__ = ["AbortableError", "FatalError", "RejectedError", "RetriableError", "SettingError", "TailraceError"]


class TailraceError(Exception):
    """Any error that Tailrace raises on purpose; its text says what happened and what to do next."""


class RetriableError(TailraceError):
    """Call again with the same arguments: it may work, and doing it twice does no harm."""


class AbortableError(TailraceError):
    """Abort the transaction, go back to the committed places and start over."""


class RejectedError(TailraceError):
    """This input can never work: dead-letter it or tell its author, and go on with the next."""


class FatalError(TailraceError):
    """This process must not go on: exit, and let the supervisor start another."""


class SettingError(RejectedError):
    """A setting has a value that cannot work."""

    def __init__(self, name: str, value: object, rule: str) -> None:
        self.name, self.value, self.rule = name, value, rule
        super().__init__(f"setting {name} is {value!r}: {rule}")
