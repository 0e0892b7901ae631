"""Parameters: the values that graph.yml gives to a node's code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from typing import Any

from tailrace.node.errors import MissingParameterError, ParameterValueError
from tailrace.node.session import current_session

__all__ = ["REQUIRED", "Connection", "Parameter", "UnnamedParameter", "coerce"]


class _Required:
    def __repr__(self) -> str:
        return "<required>"


REQUIRED: Any = _Required()
"""Default of a parameter that must have a value."""


class Connection(dict[str, Any]):
    """A connection to an outside service: the marker of a parameter's type, and the resolved values themselves.

    `Parameter("key", type=Connection("openai"))` gives a `Connection` whose values are read like those of any dict:
    `conn["api_key"]`, `conn.get("token")`. A connection that has not been made yet is empty, and so falsy.
    """

    def __init__(self, kind: str = "", values: Mapping[str, Any] | None = None) -> None:
        super().__init__(values or {})
        self.kind = kind

    def __repr__(self) -> str:
        return f"Connection({self.kind!r}, {sorted(self)})"  # names alone: the values are secrets


class UnnamedParameter:
    """A parameter that takes its name from the argument whose default it is, in nodes of early releases."""

    def __init__(self, description: str | None, type: Any, default: Any) -> None:
        self.description, self.type, self.default = description, type, default

    def value(self, name: str) -> Any:
        """The value of the parameter `name`."""
        return Parameter(name, self.description, self.type, self.default)


def Parameter(
    name: str | None = None,
    description: str | None = None,
    type: Any = str,
    default: Any = REQUIRED,
) -> Any:
    """The value of the parameter `name`, as the declared type.

    Args:
        name: any text; the key under the node's `parameter_values` in graph.yml. Only as the default of an argument of
            a `@node` function can it be left out.
        description: for the settings form.
        type: `str`, `int`, `float`, `bool`, `datetime`, `date`, `list`, or `Connection("<kind>")`. YAML's `'20'` for
            an `int` becomes 20, `"2000-01-01"` for a `datetime` midnight of that day.
        default: used where graph.yml gives no value, or null; coerced like a value, `None` stays None.

    Raises:
        MissingParameterError: rejected; no value and no default. A missing `Connection` is an empty one instead.
        ParameterValueError: rejected; the value is none of the type.
    """
    if name is None:
        return UnnamedParameter(description, type, default)
    session = current_session("Parameter")
    value = session.order.parameters.get(name)
    if value is None:
        value = default
    if value is REQUIRED:
        variable = session.order.unset.get(name, "")
        if not _is_connection(type):
            raise MissingParameterError(name, variable)
        if variable:
            session.warn_once(f"Parameter({name!r}): the connection is empty: {variable} is not set")
        return Connection(_kind(type))
    return coerce(name, value, type)


def _is_connection(wanted: Any) -> bool:
    return isinstance(wanted, Connection) or wanted is Connection


def _kind(wanted: Any) -> str:
    return wanted.kind if isinstance(wanted, Connection) else ""


def coerce(name: str, value: Any, wanted: Any) -> Any:
    """`value` as `wanted`; None stays None, and a type that we do not know takes the value as it is."""
    if value is None:
        return None
    if _is_connection(wanted):
        if isinstance(value, Mapping):
            return Connection(_kind(wanted), value)
        raise ParameterValueError(name, value, f"{_kind(wanted)} connection")
    convert = _CONVERTERS.get(wanted)
    if convert is None:
        return value
    try:
        return convert(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ParameterValueError(name, value, wanted.__name__) from error


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date | time) else str(value)


def _integer(value: Any) -> int:
    if isinstance(value, str):
        value = value.strip().replace(",", "").replace("_", "")
        return int(value) if value.lstrip("+-").isdigit() else _integer(float(value))
    if isinstance(value, float) and value != int(value):
        raise ValueError("it has a fraction")
    return int(value)


def _float(value: Any) -> float:
    return float(value.strip().replace(",", "")) if isinstance(value, str) else float(value)


def _boolean(value: Any) -> bool:
    if isinstance(value, str):
        known = {"true": True, "yes": True, "on": True, "1": True, "t": True, "y": True}
        known |= {"false": False, "no": False, "off": False, "0": False, "f": False, "n": False, "": False}
        if value.strip().lower() not in known:
            raise ValueError(value)
        return known[value.strip().lower()]
    if isinstance(value, bool | int | float):
        return bool(value)
    raise TypeError(value)


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return datetime.fromtimestamp(value)
    text = str(value).strip()
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        from dateutil import parser

        return parser.parse(text)


def _list(value: Any) -> list[Any]:
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("["):
            import yaml

            parsed = yaml.safe_load(text)
            if isinstance(parsed, list):
                return parsed
        return [part.strip() for part in text.split(",")] if text else []
    return list(value) if isinstance(value, list | tuple | set | frozenset) else [value]


_CONVERTERS: dict[Any, Callable[[Any], Any]] = {
    str: _text,
    int: _integer,
    float: _float,
    bool: _boolean,
    datetime: _moment,
    date: lambda value: value if type(value) is date else _moment(value).date(),
    list: _list,
    dict: dict,
}
