"""The lattice of types: what holds the values of two types, and values taken from one to the other.

        LongText
        LongText(n)
        Text ---------------------------------------------------------------+
        |            |                 |          |          |              |
        Float        DateTime(tz)      Json       Time       Interval       LongBinary, Binary, Text(n)
        |            |                 |  \\
        Decimal(p,s) DateTime          |   Array > Array(items=Float) > Array(items=Integer)
        |            |                 Struct
        Integer      Date
        |
        Boolean                        Unknown lies below everything

`join` is a least upper bound: commutative, associative, idempotent. So the type of a field does not depend on the
order in which values came. Decimals that would need more than 38 digits join to Float, like Decimal and Float do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from tailrace.tables.schema.cast import caster
from tailrace.tables.schema.types import (
    ARRAY_FLOAT,
    BINARY_NAMES,
    DATETIME,
    DATETIME_TZ,
    DECIMAL_DIGITS_MAX,
    FLOAT,
    INTEGER,
    JSON,
    TEXT,
    TEXT_NAMES,
    UNKNOWN,
    FieldType,
    decimal_digits,
    is_json,
    make_type,
)

__all__ = ["join", "join_schemas", "widen_value", "widener"]

# Digits before and after the point that each exact number type needs: a 64-bit integer has 19.
_EXACT = {"Boolean": (1, 0), "Integer": (19, 0)}
_CHAIN = {"Text": 0, "LongText": 1, "Binary": 0, "LongBinary": 1}


@lru_cache(maxsize=65536)
def join(a: FieldType, b: FieldType) -> FieldType:
    """The least type that holds the values of both."""
    if a == b or b == UNKNOWN:
        return a
    if a == UNKNOWN:
        return b
    for rule in (_join_numbers, _join_times, _join_documents, _join_binaries):
        joined = rule(a, b)
        if joined is not None:
            return joined
    return _join_texts(a, b)


def _digits(field_type: FieldType) -> tuple[int, int] | None:
    if field_type.name == "Decimal":
        precision, scale = decimal_digits(field_type)
        return precision - scale, scale
    return _EXACT.get(field_type.name)


def _join_numbers(a: FieldType, b: FieldType) -> FieldType | None:
    left, right = _digits(a), _digits(b)
    if left is not None and right is not None:
        if "Decimal" not in (a.name, b.name):
            return INTEGER
        whole, scale = max(left[0], right[0]), max(left[1], right[1])
        if whole + scale > DECIMAL_DIGITS_MAX:
            return FLOAT
        return make_type("Decimal", precision=whole + scale, scale=scale)
    if (left or a == FLOAT) and (right or b == FLOAT):
        return FLOAT
    return None


def _join_times(a: FieldType, b: FieldType) -> FieldType | None:
    if {a.name, b.name} <= {"Date", "DateTime"}:
        return DATETIME_TZ if DATETIME_TZ in (a, b) else DATETIME
    return None


def _join_documents(a: FieldType, b: FieldType) -> FieldType | None:
    if not {a.name, b.name} <= {"Json", "Struct", "Array"}:
        return None
    if a.name == b.name == "Array":
        return ARRAY_FLOAT if a.arguments and b.arguments else make_type("Array")
    return JSON


def _join_binaries(a: FieldType, b: FieldType) -> FieldType | None:
    return _longer(a, b) if {a.name, b.name} <= BINARY_NAMES else None


def _join_texts(a: FieldType, b: FieldType) -> FieldType:
    texts = [each for each in (a, b) if each.name in TEXT_NAMES]
    if len(texts) == 2:
        return _longer(a, b)
    return _longer(TEXT, texts[0]) if texts else TEXT


def _longer(a: FieldType, b: FieldType) -> FieldType:
    """The later one of a chain such as Text(5) < Text(9) < Text < LongText(9) < LongText."""

    def place(field_type: FieldType) -> tuple[int, float]:
        length = field_type.get("length")
        return _CHAIN[field_type.name], length if isinstance(length, int) else float("inf")

    return max(a, b, key=place)


def join_schemas(a: Mapping[str, FieldType], b: Mapping[str, FieldType]) -> dict[str, FieldType]:
    """The fields of both in first-seen order, each with the join of its types."""
    joined = dict(a)
    for name, field_type in b.items():
        known = joined.get(name)
        joined[name] = field_type if known is None else join(known, field_type)
    return joined


@lru_cache(maxsize=4096)
def widener(from_type: FieldType, to_type: FieldType) -> Callable[[object], object] | None:
    """What `widen_value` does for these two types; None where values stay as they are.

    `to_type` must lie above `from_type` in the lattice: anything else is a mistake of ours.
    """
    assert join(from_type, to_type) == to_type, f"{to_type} is not wider than {from_type}"
    same = from_type == to_type or any(
        from_type.name in names and to_type.name in names for names in (TEXT_NAMES, BINARY_NAMES)
    )
    return None if same or (is_json(from_type) and is_json(to_type)) else caster(to_type)


def widen_value(value: object, from_type: FieldType, to_type: FieldType) -> object:
    """The canonical value of `from_type` as the canonical value of `to_type`.

    It never sees the raw text: "007" that had become 7 becomes "7". Exact numbers keep their digits, True becomes 1
    or "true", dates become midnight (UTC in a DateTime with timezone), naive datetimes are read as UTC there, times
    become ISO text, documents JSON text.
    """
    widen = widener(from_type, to_type)
    return value if value is None or widen is None else widen(value)
