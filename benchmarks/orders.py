"""Orders: the records of the stream benchmarks, as they come in and as they must come out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from tailrace.log import NewRecord
from tailrace.tables import webhook_message

__all__ = ["MESSAGE_BYTES", "changed", "messages", "order", "rows_of"]

MESSAGE_BYTES = 280
"""Size of one message in the log, its head included."""

_TS_MS = 1_700_000_000_000
_POSTS_PER_MS = 20


def order(number: int) -> dict[str, Any]:
    """What the sender posts."""
    return {
        "number": number,
        "customer": f"customer-{number * 7919 % 10_007:05}",
        "item": f"item-{number % 97:02}",
        "price": (number % 500) / 4 + 0.25,
        "quantity": number % 9 + 1,
        "express": number % 3 == 0,
        "note": "",
    }


def changed(order: dict[str, Any]) -> dict[str, Any]:
    """What the sample makes of it."""
    return {**order, "total": order["price"] * order["quantity"]}


def messages(count: int) -> Iterator[NewRecord]:
    """The input topic's records, one order each, `MESSAGE_BYTES` long."""
    for number in range(count):
        value = order(number)
        head = {"ts": _TS_MS + number // _POSTS_PER_MS}
        short = webhook_message(head, orjson.dumps(value), 1)
        value["note"] = ("a note that fills the record " * 10)[: MESSAGE_BYTES - len(short)]
        yield NewRecord(webhook_message(head, orjson.dumps(value), 1))


def rows_of(values: Sequence[bytes]) -> list[dict[str, Any]]:
    """The rows in messages of a table's topic."""
    rows: list[dict[str, Any]] = []
    for value in values:
        rows += orjson.loads(value)["rows"]
    return rows
