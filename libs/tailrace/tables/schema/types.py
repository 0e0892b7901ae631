"""Field types of the Common Model: names, parameters, and the text form that schemas and log messages carry."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

__all__ = [
    "ARRAY_FLOAT",
    "ARRAY_INTEGER",
    "BINARY",
    "BINARY_NAMES",
    "BOOLEAN",
    "DATE",
    "DATETIME",
    "DATETIME_TZ",
    "DECIMAL",
    "DECIMAL_DIGITS_MAX",
    "FLOAT",
    "INTEGER",
    "INTERVAL",
    "JSON",
    "JSON_NAMES",
    "LONG_TEXT",
    "TEXT",
    "TEXT_NAMES",
    "TIME",
    "TYPE_NAMES",
    "UNKNOWN",
    "FieldType",
    "decimal_digits",
    "fields_from_json",
    "fields_to_json",
    "is_json",
    "make_type",
    "parse_type",
    "shown_type",
]

DECIMAL_DIGITS_MAX = 38
"""Most digits of a Decimal: what Arrow's decimal128, Delta and DuckDB hold. More is declared in vain: 38 are kept."""

# Parameters of each type in positional order, with their defaults (None: unset).
_PARAMETERS: dict[str, dict[str, object]] = {
    "Boolean": {},
    "Integer": {},
    "Float": {},
    "Decimal": {"precision": 16, "scale": 6},
    "Text": {"length": None},
    "LongText": {"length": None},
    "Binary": {"length": None},
    "LongBinary": {"length": None},
    "Date": {},
    "DateTime": {"timezone": False},
    "Time": {},
    "Interval": {},
    "Json": {},
    "Struct": {},
    "Array": {"items": None},
    "Unknown": {},
}
_PARAMETER_TYPES: dict[str, type] = {"precision": int, "scale": int, "length": int, "timezone": bool, "items": str}

TYPE_NAMES = frozenset(_PARAMETERS) - {"Unknown"}
"""Names that a schema may use. `Unknown` is ours: a field that has held nothing but null-like values yet."""

_TYPE_TEXT = re.compile(r"\s*(\w+)\s*(?:\((.*)\))?\s*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class FieldType:
    """The type of one field, such as `Decimal(precision=12, scale=2)`. Make it with `parse_type` or `make_type`.

    `arguments` holds what differs from the defaults, in the parameters' order, so equal types compare equal.
    """

    name: str
    arguments: tuple[tuple[str, object], ...] = ()

    @property
    def parameters(self) -> dict[str, object]:
        """All parameters that have a value, defaults included."""
        merged = {**_PARAMETERS[self.name], **dict(self.arguments)}
        return {key: value for key, value in merged.items() if value is not None}

    def get(self, parameter: str) -> object:
        """The value of one parameter, its default where none was given."""
        return dict(self.arguments).get(parameter, _PARAMETERS[self.name].get(parameter))

    def __str__(self) -> str:
        if not self.arguments:
            return self.name
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in self.arguments)})"

    def __repr__(self) -> str:
        return f"FieldType({str(self)!r})"


@lru_cache(maxsize=4096)
def _make(name: str, given: tuple[tuple[str, object], ...]) -> FieldType:
    defaults = _PARAMETERS[name]
    values = dict(given)
    return FieldType(
        name,
        tuple((key, values[key]) for key, default in defaults.items() if key in values and values[key] != default),
    )


def make_type(name: str, **parameters: object) -> FieldType:
    """The type `name` with these parameters.

    Raises:
        KeyError: no type has this name (names are case-sensitive).
    """
    if name not in _PARAMETERS:
        raise KeyError(_unknown_name(name))
    return _make(name, tuple(parameters.items()))


@lru_cache(maxsize=4096)
def parse_type(text: str) -> FieldType:
    """The type that `text` writes: a bare name, or with positional or keyword arguments.

    Arguments that cannot be read, or are of the wrong kind, are ignored, and so are unknown keywords.

    Raises:
        KeyError: no type has this name (names are case-sensitive: `text` and `Datetime` are none).
        ValueError: more arguments than the type has parameters, or no type at all.
    """
    match = _TYPE_TEXT.match(text)
    if match is None:
        raise ValueError(f"{text!r} is no type: write a name such as Text or Decimal(12, 2)")
    name, arguments = match.groups()
    if name not in _PARAMETERS:
        raise KeyError(_unknown_name(name))
    parts = [part.strip() for part in (arguments or "").split(",") if part.strip()]
    names = list(_PARAMETERS[name])
    if len(parts) > len(names):
        takes = f"takes {', '.join(names)}" if names else "takes no arguments"
        raise ValueError(f"{text!r} has {len(parts)} arguments: {name} {takes}")
    values: dict[str, object] = {}
    for position, part in enumerate(parts):
        key, equals, value = part.partition("=")
        key, value = (key.strip(), value.strip()) if equals else (names[position], part)
        parsed = _argument(key, value)
        if key in names and parsed is not None:
            values[key] = parsed
    return _make(name, tuple(values.items()))


def _argument(key: str, text: str) -> object:
    """The value of one argument; None where it cannot be read or is of the wrong kind."""
    wanted = _PARAMETER_TYPES.get(key)
    value: object
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = text
    if key == "items":
        return value if value in ("Integer", "Float") else None
    return value if type(value) is wanted else None


def _unknown_name(name: str) -> str:
    close = [known for known in sorted(TYPE_NAMES) if known.lower() == name.lower()]
    hint = f"write {close[0]}" if close else f"use one of {', '.join(sorted(TYPE_NAMES))}"
    return f"no field type is called {name!r} (names are case-sensitive): {hint}"


BOOLEAN = make_type("Boolean")
INTEGER = make_type("Integer")
FLOAT = make_type("Float")
DECIMAL = make_type("Decimal")
TEXT = make_type("Text")
LONG_TEXT = make_type("LongText")
BINARY = make_type("Binary")
DATE = make_type("Date")
DATETIME = make_type("DateTime")
DATETIME_TZ = make_type("DateTime", timezone=True)
TIME = make_type("Time")
INTERVAL = make_type("Interval")
JSON = make_type("Json")
ARRAY_FLOAT = make_type("Array", items="Float")
ARRAY_INTEGER = make_type("Array", items="Integer")
UNKNOWN = make_type("Unknown")

BINARY_NAMES = frozenset({"Binary", "LongBinary"})
TEXT_NAMES = frozenset({"Text", "LongText"})
JSON_NAMES = frozenset({"Json", "Struct"})


def is_json(field_type: FieldType) -> bool:
    """Whether values are JSON documents: text from `read()`, objects from streams. A bare `Array` (of anything) is."""
    return field_type.name in JSON_NAMES or (field_type.name == "Array" and not field_type.arguments)


def decimal_digits(field_type: FieldType) -> tuple[int, int]:
    """(precision, scale) that a Decimal type really has: 0 <= scale <= precision <= 38."""
    precision, scale = field_type.get("precision"), field_type.get("scale")
    assert isinstance(precision, int)
    assert isinstance(scale, int)
    scale = min(max(scale, 0), DECIMAL_DIGITS_MAX)
    return min(max(precision, scale, 1), DECIMAL_DIGITS_MAX), scale


def shown_type(field_type: FieldType) -> FieldType:
    """What users are shown: `Unknown` is Text to them."""
    return TEXT if field_type.name == "Unknown" else field_type


def fields_to_json(fields: Mapping[str, FieldType]) -> dict[str, str]:
    """The compact form of typed fields in log messages: `{"id": "Integer", "total": "Decimal(scale=2)"}`."""
    return {name: str(field_type) for name, field_type in fields.items()}


def fields_from_json(document: Mapping[str, str]) -> dict[str, FieldType]:
    """The inverse of `fields_to_json`."""
    return {name: parse_type(text) for name, text in document.items()}
