"""State's typed JSON: values come back as what they were.

Plain JSON stays as it is; anything else is an object with the one key `$` for its type and `v` for its value.
"""

from __future__ import annotations

import base64
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from tailrace.node.errors import StateValueError
from tailrace.tables.schema.plain import plain

__all__ = ["decode_value", "encode_value"]

_DEPTH_MAX = 200
"""Deepest nesting: orjson stops at 254, and a value that contains itself has to end somewhere."""


def encode_value(value: object, key: str = "") -> Any:
    """`value` as typed JSON, sharing nothing with it.

    Raises:
        StateValueError: rejected; nothing faithful can be made of it.
    """
    return _encode(value, key, 0)


def _encode(value: object, key: str, depth: int) -> Any:
    if depth > _DEPTH_MAX:
        raise StateValueError(key, value)
    if isinstance(value, tuple):
        return {"$": "tuple", "v": [_encode(item, key, depth + 1) for item in value]}
    if isinstance(value, set | frozenset):
        return {"$": "set", "v": [_encode(item, key, depth + 1) for item in value]}
    known = plain(value)
    if known is None or isinstance(known, bool | str):
        return known
    if isinstance(known, int):
        return known if -(2**63) <= known < 2**63 else {"$": "int", "v": str(known)}
    if isinstance(known, float):
        return known if known - known == 0 else {"$": "float", "v": str(known)}
    if isinstance(known, list):
        return [_encode(item, key, depth + 1) for item in known]
    if isinstance(known, dict):
        if all(type(name) is str for name in known) and "$" not in known:
            return {name: _encode(item, key, depth + 1) for name, item in known.items()}
        pairs = [[_encode(name, key, depth + 1), _encode(item, key, depth + 1)] for name, item in known.items()]
        return {"$": "dict", "v": pairs}
    if isinstance(known, datetime | date | time):
        return {"$": type(known).__name__, "v": known.isoformat()}
    if isinstance(known, timedelta):
        return {"$": "timedelta", "v": [known.days, known.seconds, known.microseconds]}
    if isinstance(known, Decimal):
        return {"$": "Decimal", "v": str(known)}
    if isinstance(known, bytes):
        return {"$": "bytes", "v": base64.b64encode(known).decode()}
    raise StateValueError(key, value)


def decode_value(value: Any) -> Any:
    """The inverse of `encode_value`; a type that is not known comes as the plain JSON that it is."""
    if isinstance(value, list):
        return [decode_value(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("$")
    decode = _DECODERS.get(kind) if isinstance(kind, str) else None
    return decode(value["v"]) if decode else {name: decode_value(item) for name, item in value.items()}


_DECODERS: dict[str, Any] = {
    "tuple": lambda items: tuple(map(decode_value, items)),
    "set": lambda items: set(map(decode_value, items)),
    "dict": lambda pairs: {decode_value(name): decode_value(item) for name, item in pairs},
    "int": int,
    "float": float,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": lambda parts: timedelta(*parts),
    "Decimal": Decimal,
    "bytes": base64.b64decode,
}
