"""Values of Python, numpy, pandas and pyarrow brought to the few classes that casting knows; and JSON text.

Nothing heavy is imported: foreign values are told by the module of their class and by what they can do.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite, isnan
from typing import Any
from uuid import UUID

import orjson

__all__ = [
    "INTEGER_MAX",
    "INTEGER_MIN",
    "NULL_TEXTS",
    "PLAIN_CLASSES",
    "clean_text",
    "interval_from_text",
    "interval_text",
    "is_null",
    "json_bytes",
    "json_document",
    "json_text",
    "plain",
    "text_of",
]

INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1

NULL_TEXTS = frozenset({"", "None", "null", "NULL", "na", "NA", "N/A", "0000-00-00"})
"""Texts that stand for a missing value: no evidence of a type, and NULL in every field that is not text."""

PLAIN_CLASSES = frozenset(
    {type(None), bool, int, float, str, bytes, Decimal, date, datetime, time, timedelta, dict, list}
)
"""Classes that `plain` gives back; anything else that comes out of it is an object of unknown kind."""


def is_null(value: object) -> bool:
    """Whether a plain value is NULL in every type: None and NaN."""
    if isinstance(value, float):
        return isnan(value)
    return value is None or (isinstance(value, Decimal) and value.is_nan())


def plain(value: Any) -> object:
    """`value` as an object of one of `PLAIN_CLASSES`, where there is a faithful one; None for NaT and NA.

    Scalars of numpy, pandas and pyarrow become Python's own, below a microsecond cut off; arrays, tuples and
    sets become lists, other mappings dicts (whose contents stay as they are), enum members their value, UUIDs text.
    """
    cls = type(value)
    if cls in PLAIN_CLASSES:
        return value
    home = cls.__module__.partition(".")[0]
    if home in ("numpy", "pandas", "pyarrow"):
        return _foreign(value, cls, home)
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, str):
        return str.__str__(value)
    for base in (int, float):
        if isinstance(value, base):
            return base(value)
    if isinstance(value, datetime):
        return datetime.combine(value.date(), value.timetz())
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, UUID):
        return str(value)
    return value


def _foreign(value: Any, cls: type, home: str) -> object:
    if cls.__name__ in ("NaTType", "NAType"):
        return None
    if home == "numpy":
        kind = getattr(getattr(value, "dtype", None), "kind", "")
        if getattr(value, "ndim", 0):
            return value.tolist()
        if kind in "Mm":
            value = value.astype("datetime64[us]" if kind == "M" else "timedelta64[us]")
        return plain(value.item()) if hasattr(value, "item") else value
    if home == "pyarrow" and hasattr(value, "as_py"):
        return plain(value.as_py())
    if hasattr(value, "to_pydatetime") and hasattr(value, "tzinfo"):
        return value.to_pydatetime(warn=False)
    if hasattr(value, "to_pytimedelta"):
        return value.to_pytimedelta()
    return list(value) if hasattr(value, "__iter__") else value


def clean_text(text: str) -> str:
    """`text` as UTF-8 can carry it: pairs of surrogates joined, lone ones replaced by U+FFFD. NUL is kept."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def text_of(value: object) -> str:
    """The text of a plain value.

    Booleans are `true` and `false` as in JSON and SQL, decimals have no exponent, times are ISO 8601, documents JSON,
    bytes are UTF-8 where they are valid, else base64. Anything else is what `str` makes of it.
    """
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, (date, time)):  # datetimes too
        return value.isoformat()
    if isinstance(value, timedelta):
        return interval_text(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    if isinstance(value, (dict, list)):
        return json_text(value)
    return clean_text(str(value))


_INTERVAL = re.compile(
    r"(?P<sign>-?)P(?:(?P<d>\d+)D)?(?:T(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+)(?:\.(?P<us>\d{1,6}))?S)?)?\Z",
    re.ASCII,
)
_INTERVAL_CLOCK = re.compile(
    r"(?:(?P<d>-?\d+) days?)?(?:,? ?(?P<sign>-?)(?P<h>\d+):(?P<m>\d\d):(?P<s>\d\d)(?:\.(?P<us>\d{1,6}))?)?\Z", re.ASCII
)


def interval_text(value: timedelta) -> str:
    """ISO 8601 duration of days and seconds, such as `P1DT3.000005S`; negative ones begin with a minus."""
    sign, value = ("-", -value) if value < timedelta(0) else ("", value)
    fraction = f".{value.microseconds:06}" if value.microseconds else ""
    return f"{sign}P{value.days}DT{value.seconds}{fraction}S"


def interval_from_text(text: str) -> timedelta:
    """The inverse of `interval_text`; reads `1 day, 2:03:04.5` (Python) and `1 day 02:03:04.5` (SQL) as well."""
    match = _INTERVAL.match(text)
    if match is not None:
        parts = {key: int(match[key] or 0) for key in "dhms"}
        size = timedelta(days=parts["d"], hours=parts["h"], minutes=parts["m"], seconds=parts["s"])
        size += timedelta(microseconds=int((match["us"] or "0").ljust(6, "0")))
        return -size if match["sign"] else size
    match = _INTERVAL_CLOCK.match(text)
    if match is None or not text:
        raise ValueError(f"{text!r} is no interval: write it like PT90S or 1 day 02:03:04")
    parts = {key: int(match[key] or 0) for key in "dhms"}
    clock = timedelta(hours=parts["h"], minutes=parts["m"], seconds=parts["s"])
    clock += timedelta(microseconds=int((match["us"] or "0").ljust(6, "0")))
    return timedelta(days=parts["d"]) + (-clock if match["sign"] else clock)


def json_bytes(value: object) -> bytes:
    """Compact JSON of any Python value.

    Datetimes are ISO 8601 in milliseconds (microseconds where they have them) with `Z` for UTC; decimals, UUIDs and
    integers beyond 64 bits are text; NaN and infinities are null; bytes as in `text_of`; keys become text.

    Raises:
        ValueError: it is nested deeper than some hundred levels, or contains itself.
    """
    try:
        return orjson.dumps(value, default=_unusual, option=orjson.OPT_PASSTHROUGH_DATETIME)
    except orjson.JSONEncodeError:  # a key that is no text, a huge integer, a lone surrogate: the slow way knows them
        try:
            # The standard library goes deeper than orjson, which stops at 254 levels.
            return json.dumps(_tame(value), ensure_ascii=False, separators=(",", ":")).encode()
        except RecursionError as error:
            raise ValueError("it is nested too deeply, or contains itself") from error


def json_text(value: object) -> str:
    """`json_bytes` as text."""
    return json_bytes(value).decode()


def json_document(value: object) -> object:
    """`value` as it comes back from JSON: dicts, lists, text, numbers, booleans and None, nothing shared with it."""
    return orjson.loads(json_bytes(value))


def _unusual(value: object) -> object:
    """What orjson's encoder asks for values that it does not know."""
    known = plain(value)
    if isinstance(known, datetime):
        text = known.isoformat(timespec="microseconds" if known.microsecond % 1000 else "milliseconds")
        return text[:-6] + "Z" if known.tzinfo is UTC or text.endswith("+00:00") else text
    if type(known) in (bool, int, float, str, dict, list, type(None)):
        return known
    return text_of(known)


def _tame(value: object) -> object:
    value = plain(value)
    if isinstance(value, dict):
        return {_key(key): _tame(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_tame(item) for item in value]
    if isinstance(value, str):
        return clean_text(value)
    if type(value) is int and not INTEGER_MIN <= value <= 2**64 - 1:
        return str(value)
    if isinstance(value, float):
        return value if isfinite(value) else None
    if value is None or isinstance(value, (bool, int)):
        return value
    return _unusual(value)


def _key(key: object) -> str:
    key = plain(key)
    return "null" if key is None else text_of(key)
