"""Answers to webhook requests that wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tailrace.node.session import current_session
from tailrace.tables.schema.plain import json_document

__all__ = ["respond_to_request"]


def respond_to_request(
    request_key: str, payload: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> None:
    """Answer the webhook request that waits for this record.

    The answer goes out at once, before the run is committed; the first answer to a request wins.

    Args:
        request_key: the record's `patterns_request_key`.
        payload: anything that JSON can carry; the body of the answer.
        status: of the answer, 200 to 599.
        headers: of the answer. With a `Content-Type` other than JSON a text is the body as it is.

    Raises:
        ValueError: the status is none that an answer can have.
    """
    if not 200 <= status <= 599:
        raise ValueError(f"status {status} is none that an answer can have: 200 to 599")
    session = current_session("respond_to_request()")
    session.ensure_going_on()
    frame = {"op": "respond", "key": str(request_key), "payload": json_document(payload)}
    if status != 200 or headers:
        frame |= {"status": status, "headers": {str(name): str(value) for name, value in (headers or {}).items()}}
    session.link.tell(frame)
