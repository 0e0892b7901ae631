"""The type of a value that was given without one, and the fields of records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isnan

from tailrace.tables.schema.plain import INTEGER_MAX, INTEGER_MIN, NULL_TEXTS, PLAIN_CLASSES, plain
from tailrace.tables.schema.types import (
    ARRAY_FLOAT,
    ARRAY_INTEGER,
    BOOLEAN,
    DATE,
    DATETIME,
    DATETIME_TZ,
    DECIMAL,
    DECIMAL_DIGITS_MAX,
    FLOAT,
    INTEGER,
    INTERVAL,
    JSON,
    LONG_TEXT,
    TEXT,
    TIME,
    UNKNOWN,
    FieldType,
    make_type,
)
from tailrace.tables.schema.widen import join

__all__ = ["infer_decimal", "infer_fields", "infer_type", "infer_values"]

LONG_TEXT_CHARS_MIN = 65_536
_HUGE_INTEGER = make_type("Decimal", precision=DECIMAL_DIGITS_MAX, scale=0)
_BOOLEAN_TEXTS = frozenset({"true", "True", "false", "False"})

# Text that begins otherwise is no number and no date; most text is settled by this look.
_NUMBER_STARTS = frozenset("-.0123456789")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")
_DATETIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}(:?[0-9]{2}(:?[0-9]{2}([.,][0-9]{1,6})?)?)?"
    r"(?P<zone>Z|[+-][0-9]{2}(:?[0-9]{2})?)?\Z"
)
_INTEGER = re.compile(r"-?([0-9]{1,3}(,[0-9]{3})+|[0-9]+)\Z")
_FLOAT = re.compile(r"-?(([0-9]{1,3}(,[0-9]{3})+|[0-9]*)\.[0-9]+([eE][+-]?[0-9]{1,3})?|[0-9]+[eE][+-][0-9]{1,3})\Z")


def infer_type(value: object) -> FieldType:
    """The least type that holds `value` as what it is; `Unknown` for null-like values.

    Integers beyond 64 bits are Decimal(38, 0) while they fit there, else Text. A Decimal has at least the default's
    digits, so that a column does not widen with each longer number. Aware datetimes are DateTime(timezone=True).
    A list of numbers that is not empty is an Array of them; other lists, also `[]`, are Json. In texts a leading plus
    makes no number (phone numbers), nor do more digits than 64 bits hold (ids).
    """
    if type(value) not in PLAIN_CLASSES:
        value = plain(value)
    if value is None:
        return UNKNOWN
    if isinstance(value, str):
        return infer_text(value)
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int):
        return _infer_integer(value)
    if isinstance(value, float):
        return UNKNOWN if isnan(value) else FLOAT
    if isinstance(value, Decimal):
        return infer_decimal(value)
    if isinstance(value, datetime):
        return DATETIME if value.utcoffset() is None else DATETIME_TZ
    if isinstance(value, date):
        return DATE
    if isinstance(value, time):
        return TIME
    if isinstance(value, timedelta):
        return INTERVAL
    if isinstance(value, list):
        return _infer_list(value)
    return JSON if isinstance(value, dict) else TEXT


def infer_text(text: str) -> FieldType:
    """`infer_type` of a text: null-like, ISO date or datetime, boolean, integer, float, else Text."""
    if text in NULL_TEXTS:
        return UNKNOWN
    if text[0] not in _NUMBER_STARTS:
        if text in _BOOLEAN_TEXTS:
            return BOOLEAN
        return TEXT if len(text) < LONG_TEXT_CHARS_MIN else LONG_TEXT
    if len(text) <= 26:
        if len(text) == 10 and _DATE.match(text) and _is_iso(text):
            return DATE
        if len(text) >= 14 and (match := _DATETIME.match(text)) and _is_iso(text):
            return DATETIME_TZ if match["zone"] else DATETIME
        if _INTEGER.match(text):
            return INTEGER if INTEGER_MIN <= int(text.replace(",", "")) <= INTEGER_MAX else TEXT
        if _FLOAT.match(text):
            return FLOAT if abs(float(text.replace(",", ""))) != float("inf") else TEXT
    elif len(text) < 400 and _FLOAT.match(text):
        return FLOAT
    return TEXT if len(text) < LONG_TEXT_CHARS_MIN else LONG_TEXT


def _is_iso(text: str) -> bool:
    """Whether there is such a day and time; the shape has been looked at."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            moment.timestamp()
    except (ValueError, OverflowError):
        return False
    return True


def _infer_integer(value: int) -> FieldType:
    if INTEGER_MIN <= value <= INTEGER_MAX:
        return INTEGER
    return _HUGE_INTEGER if abs(value) < 10**DECIMAL_DIGITS_MAX else TEXT


def infer_decimal(value: Decimal, *, roomy: bool = True) -> FieldType:
    """The type of a Decimal: with the default's digits at least, or not `roomy`, exactly those that it has."""
    if not value.is_finite():
        return UNKNOWN if value.is_nan() else FLOAT
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    scale = max(-exponent, 0)
    whole = max(len(digits) + exponent, 0) if any(digits) else 0
    if whole + scale > DECIMAL_DIGITS_MAX:
        return TEXT
    wanted = make_type("Decimal", precision=max(whole + scale, 1), scale=scale)
    if not roomy:
        return wanted
    wider = join(DECIMAL, wanted)
    return wider if wider.name == "Decimal" else wanted


def _infer_list(items: list[object]) -> FieldType:
    classes = set(map(type, items))
    if not classes <= {int, float}:
        return JSON if classes & PLAIN_CLASSES or not items else _infer_odd_list(items)
    if not classes:
        return JSON
    if classes == {int}:
        return ARRAY_INTEGER if all(INTEGER_MIN <= item <= INTEGER_MAX for item in items) else JSON  # type: ignore[operator]
    return ARRAY_FLOAT


def _infer_odd_list(items: list[object]) -> FieldType:
    """A list of foreign scalars, such as numpy's."""
    plain_items = [plain(item) for item in items]
    return _infer_list(plain_items) if set(map(type, plain_items)) <= {int, float} else JSON


_QUICK: dict[type, FieldType] = {bool: BOOLEAN, type(None): UNKNOWN, dict: JSON}


def infer_values(values: Iterable[object], sample_max: int | None = None) -> FieldType:
    """The join over values; with `sample_max`, over that many which are not null-like."""
    found = UNKNOWN
    seen = 0
    for value in values:
        one = _QUICK.get(type(value)) or infer_type(value)
        if one is UNKNOWN:
            continue
        found = join(found, one)
        seen += 1
        if seen == sample_max:
            break
    return found


def infer_fields(records: Iterable[Mapping[str, object]], sample_max: int | None = 100) -> dict[str, FieldType]:
    """The fields of records in first-seen order, each typed by its first `sample_max` values (None: by all of them).

    All names of all records are there. A field that holds nothing but null-like values is `Unknown`.
    """
    found: dict[str, FieldType] = {}
    left: dict[str, int] = {}
    budget = -1 if sample_max is None else sample_max
    for record in records:
        for name, value in record.items():
            count = left.get(name)
            if count is None:
                name = name if type(name) is str else str(name)  # noqa: PLW2901 (one name for both lookups)
                count = left.setdefault(name, budget)
                found.setdefault(name, UNKNOWN)
            if count == 0:
                continue
            one = _QUICK.get(type(value)) or infer_type(value)
            if one is not UNKNOWN:
                left[name] = count - 1
                found[name] = join(found[name], one)
    return found
