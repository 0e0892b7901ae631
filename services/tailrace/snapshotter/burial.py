"""Rows that fit no type of their Table go to its dead letters, an ordinary Table beside it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import orjson

from tailrace.log import Log, NewRecord, Partition, TopicSpec
from tailrace.tables import BadRow, rows_message

__all__ = ["bury"]

_FIELDS = {
    "at": "DateTime",
    "node": "Text",
    "run": "Text",
    "source_offset": "Integer",
    "source_row": "Integer",
    "record": "Json",
    "error": "Text",
    "traceback": "Text",
}
"""As of the dead letters that runs leave."""

_ROWS_MAX = 100


def bury(log: Log, topic: str, dead: Sequence[BadRow], now_ms: int) -> None:
    """Append the rows to the dead letters of the Table of `topic`; durable on return."""
    if topic.endswith("-dead"):  # there is nowhere further to go
        return
    log.create_topics([TopicSpec(f"{topic}-dead")])
    at = (datetime(1970, 1, 1) + timedelta(milliseconds=now_ms)).isoformat()
    for start in range(0, len(dead), _ROWS_MAX):
        rows = [
            {
                "at": at,
                "node": "",
                "run": "",
                "source_offset": each.offset,
                "source_row": each.row,
                "record": each.value,
                "error": str(each.error),
                "traceback": "",
            }
            for each in dead[start : start + _ROWS_MAX]
        ]
        head = {"kind": "rows", "ts": now_ms, "n": len(rows), "fields": _FIELDS}
        log.append(Partition(f"{topic}-dead"), [NewRecord(rows_message(head, orjson.dumps(rows, default=str)))])
