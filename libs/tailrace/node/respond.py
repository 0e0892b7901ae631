"""Answers to webhook requests that wait."""

from __future__ import annotations

from typing import Any

from tailrace.node.session import current_session
from tailrace.tables.schema.plain import json_document

__all__ = ["respond_to_request"]


def respond_to_request(request_key: str, payload: Any) -> None:
    """Answer the webhook request that waits for this record.

    The answer goes out at once, before the run is committed; the first answer to a request wins.

    Args:
        request_key: the record's `patterns_request_key`.
        payload: anything that JSON can carry; the body of the answer.
    """
    session = current_session("respond_to_request()")
    session.ensure_going_on()
    session.link.tell({"op": "respond", "key": str(request_key), "payload": json_document(payload)})
