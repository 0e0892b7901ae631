"""Lengths of time as people write them."""

from __future__ import annotations

import re
from datetime import timedelta

__all__ = ["duration"]

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s|m|h|d)")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def duration(text: str) -> timedelta:
    """The length of time of a text such as `90s`, `10m`, `1.5h` or `7d`.

    Raises:
        ValueError: it is none, or no time at all.
    """
    match = _DURATION.fullmatch(text.strip())
    found = timedelta(seconds=float(match[1]) * _UNITS_S[match[2]]) if match else timedelta(0)
    if not found:
        raise ValueError(f"{text!r} is no length of time such as 90s, 12h or 7d")
    return found
