"""Whether a producer lost a connection, which librdkafka tells to nothing but its log."""

from __future__ import annotations

import logging

__all__ = ["Connections"]

_LOST = "in state UP"
"""How librdkafka ends the line about a connection that was in use; others were only being made."""


class Connections:
    """Stands in for the logger of one producer. Its lines are heard when the producer is polled.

    When a connection breaks, librdkafka repeats on a new one what was on its way, requests that end a transaction, too.
    The first copy may still lie somewhere and arrive late. A broker of before KIP-890, or one whose client speaks no newer
    protocol (this one), cannot tell it from a request of the transaction that is open by then: it would commit or abort
    half of it (Jepsen saw that happen). So such a producer must not begin another transaction.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._broken = False

    @property
    def broken(self) -> bool:
        """Whether one that was in use broke since the producer was made, or since `forget`."""
        return self._broken

    def forget(self) -> None:
        """Nothing was on its way when it broke, so no copy of anything can arrive."""
        self._broken = False

    def log(self, level: int, text: str, *values: object) -> None:
        """Called by confluent-kafka, as `logging.Logger.log`."""
        if _LOST in text % values:
            self._broken = True
        self._logger.log(level, text, *values)
