"""What a sender is told when its post is not taken."""

from __future__ import annotations

from collections.abc import Mapping

from tailrace.errors import RejectedError

__all__ = ["RefusedError", "UnusableSecretError"]


class RefusedError(RejectedError):
    """A request that is not taken: nothing of it is in the log.

    Args:
        status: of the HTTP answer.
        code: one of few words that say why, for metrics and logs.
        reason: for the sender's developer: what is wrong, and what to send instead.
        headers: of the answer, such as `Retry-After`.
    """

    def __init__(self, status: int, code: str, reason: str, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.code, self.reason, self.headers = status, code, reason, headers
        super().__init__(reason)


class UnusableSecretError(RejectedError):
    """A secret that cannot be a key of its scheme."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the secret cannot be used: {reason}")
