"""What our own code logs while `up` runs: warnings to standard error, each once in a while, without tracebacks."""

from __future__ import annotations

import logging
import time

from tailrace.cli.output import say

__all__ = ["quieten"]

REPEAT_S = 30.0
"""A warning is said once in so long: a log that is away is asked several times a second."""


class _Say(logging.Handler):
    """Says records; the same text once in `REPEAT_S`."""

    def __init__(self, *, verbose: bool) -> None:
        super().__init__()
        self._verbose = verbose
        self._said_s: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        now_s = time.monotonic()
        if not self._verbose and now_s < self._said_s.get(text, float("-inf")) + REPEAT_S:
            return
        if len(self._said_s) > 1000:
            self._said_s.clear()
        self._said_s[text] = now_s
        if record.exc_info and record.exc_info[1] is not None:
            text = f"{text}: {record.exc_info[1]!r}"
            if self._verbose:
                text += "\n" + logging.Formatter().formatException(record.exc_info)
        say(f"{record.levelname.lower()}: {text}", style="red" if record.levelno >= logging.ERROR else "yellow")


def quieten(*, verbose: bool) -> None:
    """Have warnings said (with `verbose`, everything that our rooms log, and tracebacks)."""
    root = logging.getLogger()
    root.handlers = [_Say(verbose=verbose)]
    root.setLevel(logging.WARNING)
    logging.getLogger("tailrace").setLevel(logging.DEBUG if verbose else logging.WARNING)
