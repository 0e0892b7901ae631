"""JSON pointers (RFC 6901), and a `*` for every element of an array."""

from __future__ import annotations

from typing import Any

__all__ = ["find", "is_pointer"]

_FOUND_MAX = 10_000
"""Most values that `*` may give; more than any gateway takes in one body."""


def is_pointer(text: str) -> bool:
    """Whether `text` is a pointer to something inside a document."""
    return text.startswith("/") and all(part[:1] in ("0", "1") for part in text.split("~")[1:])


def find(document: Any, pointer: str) -> list[Any]:
    """The values that `pointer` leads to, in order; none where it leads nowhere."""
    values = [document]
    for raw in pointer.split("/")[1:]:
        part = raw.replace("~1", "/").replace("~0", "~")
        found: list[Any] = []
        for value in values:
            if isinstance(value, dict):
                if part in value:
                    found.append(value[part])
            elif isinstance(value, list):
                if part == "*":
                    found.extend(value[: _FOUND_MAX - len(found)])
                elif part.isascii() and part.isdecimal() and len(part) < 9 and int(part) < len(value):
                    found.append(value[int(part)])
        values = found
    return values
