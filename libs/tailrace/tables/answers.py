"""Answers of nodes to webhook requests that wait, as records: the host writes them, every gateway reads them.

Gateways follow the topic from its end on, so an answer finds the one that holds its request, wherever the node ran. The
topic is no Table: nobody reads what is older than the longest wait.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

__all__ = ["Answer", "answer_message", "answers_topic", "read_answer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a node says to one request."""

    key: str
    """The record's `patterns_request_key`."""
    payload: Any
    """Any JSON value."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Answer:
        """From a frame or message that has at least `key` and `payload`."""
        headers = {str(name): str(value) for name, value in (document.get("headers") or {}).items()}
        return cls(
            key=str(document["key"]),
            payload=document["payload"],
            status=int(document.get("status") or 200),
            headers=headers,
        )


def answers_topic(topic: str) -> str:
    """The topic of answers that belongs to a graph, named by itself or by one of its topics."""
    return f"{topic.partition('.')[0]}._answers"


def answer_message(answer: Answer, ts_ms: int) -> bytes:
    """A record of the topic."""
    head = {"kind": "answer", "ts": ts_ms, "key": answer.key, "status": answer.status}
    return orjson.dumps({**head, "headers": dict(answer.headers), "payload": answer.payload}, default=str)


def read_answer(value: bytes | None) -> Answer | None:
    """The answer in a record; None where there is none that can be read."""
    try:
        document = orjson.loads(value or b"")
        return Answer.of(document) if document.get("kind") == "answer" else None
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        return None
