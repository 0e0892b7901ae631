"""Values cast to a type: the canonical Python value that a field of that type holds, whichever way it came in.

| type | canonical value |
|---|---|
| Boolean, Integer, Float | bool, int (64 bits), float (infinities too; NaN is NULL) |
| Decimal | Decimal with exactly `scale` places, rounded half away from zero |
| Text, LongText | str that UTF-8 can carry |
| Binary, LongBinary | bytes; text is read as base64 |
| Date, Time, Interval | date, time without zone, timedelta |
| DateTime | datetime without zone; an aware one is taken to UTC first |
| DateTime(timezone=True) | datetime in UTC; a naive one is read as UTC |
| Json, Struct, Array | dict or list as JSON gives it; text is parsed, a scalar is wrapped in a list |
| Array(items=...) | list of int or float; NaN in it is None |
| Unknown | None, or the null-like text as it came |

A cast that would lose something a person would miss (1.5 as Integer, 10:30 as Date) is refused. In every type but
text the null-like texts of `NULL_TEXTS` are NULL.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import lru_cache, partial
from math import isinf, isnan
from typing import Any, TypeAlias

import orjson

from tailrace.tables.schema.errors import ValueCastError
from tailrace.tables.schema.plain import (
    INTEGER_MAX,
    INTEGER_MIN,
    NULL_TEXTS,
    PLAIN_CLASSES,
    interval_from_text,
    is_null,
    json_document,
    plain,
    text_of,
)
from tailrace.tables.schema.types import BINARY_NAMES, TEXT_NAMES, FieldType, decimal_digits, is_json

__all__ = ["cast_value", "caster"]

_EXACT = Context(prec=100, rounding=ROUND_HALF_UP)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?\Z")
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?\Z")
_INFINITIES = {"inf", "infinity", "+inf", "+infinity", "-inf", "-infinity"}
_BOOLEAN_DIGITS = {"true": "1", "True": "1", "false": "0", "False": "0"}
_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


_Caster: TypeAlias = Callable[[object], object]


class _Refused(ValueError):
    """A conversion says why it does not take a value."""


@lru_cache(maxsize=4096)
def caster(field_type: FieldType) -> _Caster:
    """`cast_value` for one type, to be kept by those who cast many values."""
    convert: Callable[[Any], object]
    if field_type.name == "Decimal":
        convert = partial(_to_decimal, *decimal_digits(field_type))
    elif field_type.name == "DateTime":
        convert = _to_aware if field_type.get("timezone") else _to_naive
    elif is_json(field_type):
        convert = _to_json
    elif field_type.name == "Array":
        convert = partial(_to_array, _to_integer if field_type.get("items") == "Integer" else _to_float)
    else:
        convert = _CONVERTERS[field_type.name]
    keeps_null_texts = field_type.name in TEXT_NAMES or field_type.name in BINARY_NAMES or field_type.name == "Unknown"

    def cast(value: object) -> object:
        known = value if type(value) in PLAIN_CLASSES else plain(value)
        if is_null(known):
            return None
        if not keeps_null_texts and type(known) is str and known in NULL_TEXTS:
            return None
        try:
            return convert(known)
        except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
            reason = str(error) if isinstance(error, _Refused) else ""
            raise ValueCastError(value, str(field_type), reason=reason) from error

    if field_type.name == "DateTime":
        return _iso_first(cast, datetime.fromisoformat, UTC if field_type.get("timezone") else None)
    return _iso_first(cast, date.fromisoformat, None) if field_type.name == "Date" else cast


def _iso_first(cast: _Caster, parse: Callable[[str], Any], zone: tzinfo | None) -> _Caster:
    """`cast` with a shorter way for the text that the encoder writes: readers meet it in each row."""

    def quick(value: object) -> object:
        if type(value) is str:
            try:
                moment = parse(value)
            except ValueError:
                return cast(value)
            if getattr(moment, "tzinfo", None) is zone:
                return moment
        return cast(value)

    return quick


def cast_value(value: object, field_type: FieldType) -> object:
    """`value` as the canonical Python value of `field_type`; None for NULL.

    Casting twice changes nothing.

    Raises:
        ValueCastError: rejected; the type cannot hold it.
    """
    return caster(field_type)(value)


def _to_unknown(value: object) -> object:
    if isinstance(value, str) and value in NULL_TEXTS:
        return value
    raise _Refused("the type is not known yet")


def _to_boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float, Decimal)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str):
        known = _BOOLEANS.get(value.strip().lower())
        if known is not None:
            return known
    raise _Refused("")


def _number(text: str) -> str:
    """The text of a number without spaces and thousands separators; booleans are 1 and 0."""
    text = _BOOLEAN_DIGITS.get(text) or text.strip()
    if "," in text:
        if not _GROUPED.match(text):
            raise _Refused("")
        return text.replace(",", "")
    if not _NUMBER.match(text):
        raise _Refused("")
    return text


def _to_integer(value: object) -> int:
    if isinstance(value, str):
        value = Decimal(_number(value))
    if isinstance(value, (float, Decimal)):
        if not -(2**64) < value < 2**64:
            raise _Refused("over 64 bits")
        if value != int(value):
            raise _Refused("it would lose its fraction")
        value = int(value)
    if not isinstance(value, int):
        raise _Refused("")
    if not INTEGER_MIN <= value <= INTEGER_MAX:
        raise _Refused("over 64 bits")
    return int(value)


def _to_float(value: object) -> float:
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, Decimal):
        number = float(value)
    elif isinstance(value, str):
        if value.strip().lower() in _INFINITIES:
            return float(value)
        number = float(_number(value))
    else:
        raise _Refused("")
    if isinf(number) and (isinstance(value, str) or value.is_finite()):
        raise _Refused("over the range of a Float")
    return number


def _to_decimal(precision: int, scale: int, value: object) -> Decimal:
    if isinstance(value, str):
        exact = Decimal(_number(value))
    elif isinstance(value, float):
        exact = Decimal(repr(value))
    elif isinstance(value, (int, Decimal)):
        exact = Decimal(value)
    else:
        raise _Refused("")
    if not exact.is_finite() or exact.adjusted() > precision:
        raise _Refused(f"over {precision - scale} digits before the point")
    rounded = exact.quantize(Decimal((0, (1,), -scale)), context=_EXACT)
    if abs(rounded) >= Decimal((0, (1,), precision - scale)):
        raise _Refused(f"over {precision - scale} digits before the point")
    return rounded if rounded else abs(rounded)  # there is no negative zero in SQL


def _moment(value: object) -> datetime:
    """A point in time, aware where the value says its zone; numbers are seconds since 1970 in UTC."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    if isinstance(value, bool):
        raise _Refused("")
    if isinstance(value, (int, float)):
        return _EPOCH + timedelta(seconds=value)
    if isinstance(value, Decimal):
        if not -(10**12) < value < 10**12:
            raise _Refused("over the year 9999")
        return _EPOCH + timedelta(microseconds=int((value * 1_000_000).to_integral_value()))
    if not isinstance(value, str):
        raise _Refused("")
    text = value.strip()
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    try:
        number = _number(text)
    except _Refused:
        return _written_moment(text)
    return _moment(Decimal(number))


def _written_moment(text: str) -> datetime:
    """A date in words such as `Wed, 21 Oct 2015 07:28:00 GMT`: taken only where year, month and day are all there."""
    import warnings

    from dateutil import parser

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unknown zone names, which are then read as none
        readings = {parser.parse(text, default=datetime(*day)) for day in ((2000, 1, 1), (2001, 2, 2))}
    if len(readings) != 1:
        raise _Refused("year, month or day is missing")
    return readings.pop()


def _to_naive(value: object) -> datetime:
    moment = _moment(value)
    if moment.utcoffset() is not None:
        moment = moment.astimezone(UTC)
    return moment.replace(tzinfo=None, fold=0)


def _to_aware(value: object) -> datetime:
    moment = _moment(value)
    return moment.replace(tzinfo=UTC, fold=0) if moment.utcoffset() is None else moment.astimezone(UTC)


def _to_date(value: object) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    moment = _moment(value)
    if moment.timetz() != time():
        raise _Refused("it would lose its time of day")
    return moment.date()


def _to_time(value: object) -> time:
    if isinstance(value, str):
        value = time.fromisoformat(value.strip())
    if not isinstance(value, time):
        raise _Refused("")
    offset = value.utcoffset()
    if offset is not None:
        value = (datetime.combine(date(2000, 1, 2), value.replace(tzinfo=None)) - offset).time()
    return value.replace(tzinfo=None, fold=0)


def _to_interval(value: object) -> timedelta:
    if isinstance(value, str):
        value = interval_from_text(value.strip())
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        value = timedelta(seconds=value)
    if not isinstance(value, timedelta):
        raise _Refused("")
    if not INTEGER_MIN < value // timedelta(microseconds=1) <= INTEGER_MAX:
        raise _Refused("over 64 bits of microseconds")
    return value


def _to_binary(value: object) -> bytes | None:
    if isinstance(value, str):
        if value in ("na", "NA", "N/A", "0000-00-00"):  # the other null-like texts are base64 of some bytes
            return None
        return base64.b64decode(value, validate=True)
    if isinstance(value, bytes):
        return value
    raise _Refused("")


def _to_json(value: object) -> object:
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise _Refused(f"invalid JSON: {error}") from error
        if value is None:
            return None
    return json_document(value if isinstance(value, (dict, list)) else [value])


def _to_array(convert: Callable[[object], object], value: object) -> list[object]:
    if isinstance(value, str):
        value = orjson.loads(value)
    if not isinstance(value, list):
        raise _Refused("")
    classes = set(map(type, value))
    if convert is _to_float and classes <= {int, float}:  # vectors are long: a shorter way for what they hold
        numbers = list(map(float, value))
        if not isnan(sum(numbers)):  # then there is no NaN in it
            return numbers  # type: ignore[return-value]
    return [_item(convert, item) for item in value]


def _item(convert: Callable[[object], object], item: object) -> object:
    item = plain(item)
    if is_null(item):
        return None
    if isinstance(item, bool) or (isinstance(item, str) and item not in _ITEM_TEXTS):
        raise _Refused(f"it holds {type(item).__name__}")
    return convert(item)


_ITEM_TEXTS = {"Infinity", "-Infinity"}  # how infinities in a list are written, for JSON has no number for them

_CONVERTERS: dict[str, Callable[[object], object]] = {
    "Unknown": _to_unknown,
    "Boolean": _to_boolean,
    "Integer": _to_integer,
    "Float": _to_float,
    "Text": text_of,
    "LongText": text_of,
    "Binary": _to_binary,
    "LongBinary": _to_binary,
    "Date": _to_date,
    "Time": _to_time,
    "Interval": _to_interval,
}
