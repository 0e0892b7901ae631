"""The rows of dead letters: records that a node, or the lake, could not handle, in an ordinary Table beside theirs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import orjson

from tailrace.tables.messages import rows_message

__all__ = ["DEAD_LETTER_FIELDS", "DeadLetterRow", "dead_letters_message", "dead_letters_topic"]

DEAD_LETTER_FIELDS = {
    "at": "DateTime",
    "node": "Text",
    "run": "Text",
    "source_offset": "Integer",
    "source_row": "Integer",
    "record": "Json",
    "error": "Text",
    "traceback": "Text",
    "source_partition": "Integer",
}

DeadLetterRow = tuple[int, int, Any, str, str]
"""Offset and row of the record in its own topic, the record (JSON-able), the error and its traceback."""


def dead_letters_topic(topic: str) -> str:
    """The topic of a Table's dead letters."""
    return f"{topic}-dead"


def dead_letters_message(
    letters: Iterable[DeadLetterRow], now_ms: int, *, node: str = "", run: str = "", partition: int = 0
) -> bytes:
    """Dead letters of one partition as one message of their Table; `node` and `run` are empty where no run left them."""
    at = (datetime(1970, 1, 1) + timedelta(milliseconds=now_ms)).isoformat()
    values = [(at, node, run, *letter, partition) for letter in letters]
    rows = [dict(zip(DEAD_LETTER_FIELDS, each, strict=True)) for each in values]
    writer = {"node": node, "run": run} if node else {"run": ""}
    head = {"kind": "rows", "ts": now_ms, **writer, "n": len(rows), "fields": DEAD_LETTER_FIELDS}
    return rows_message(head, orjson.dumps(rows, default=str))
