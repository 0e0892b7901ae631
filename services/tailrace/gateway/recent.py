"""The last refused requests, to look at: bounded, and without what nobody but the sender should see."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from aiohttp import web

from tailrace.gateway.refusals import RefusedError

__all__ = ["Refusals", "RefusedRequest"]

_HEADERS_MAX = 50
_NAME_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRequest:
    """One request that was not taken. Header values are left out: signatures, tokens and cookies stand there."""

    at_ms: int
    webhook: str | None
    """The id in the URL; None where there is no such webhook: what strangers try is not kept."""
    status: int
    code: str
    reason: str
    address: str
    method: str
    content_type: str
    headers: tuple[str, ...]
    """Their names."""
    body_bytes: int
    """Size of the body as far as it was read."""
    body: str
    """Its beginning, as far as `refused_body_bytes` allows."""


class Refusals:
    """Keeps the newest.

    Args:
        refusals_max: most of them.
        body_bytes: how much of a body is kept; 0: nothing.
    """

    def __init__(self, refusals_max: int, body_bytes: int) -> None:
        self._kept: deque[RefusedRequest] = deque(maxlen=refusals_max)
        self._body_bytes = body_bytes

    def note(
        self,
        at_ms: int,
        webhook: str | None,
        address: str,
        request: web.BaseRequest,
        refused: RefusedError,
        body: bytes,
    ) -> None:
        """Keep one."""
        headers = request.headers
        self._kept.append(
            RefusedRequest(
                at_ms=at_ms,
                webhook=webhook,
                status=refused.status,
                code=refused.code,
                reason=refused.reason,
                address=address,
                method=request.method,
                content_type=headers.get("Content-Type", "")[:_NAME_MAX],
                headers=tuple(name[:_NAME_MAX] for name in list(headers)[:_HEADERS_MAX]),
                body_bytes=len(body),
                body=body[: self._body_bytes].decode("utf-8", "replace"),
            )
        )

    def newest(self, webhook: str | None, last: int) -> list[RefusedRequest]:
        """The newest ones, of one webhook or all, oldest first."""
        found = [each for each in self._kept if webhook in (None, each.webhook)]
        return found[-last:] if last > 0 else []
