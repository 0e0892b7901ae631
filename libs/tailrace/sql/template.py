"""SQL files and `read_sql` texts as Jinja templates: sandboxed, bounded, `Table` and `Parameter` as safe SQL."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.exceptions import SecurityError
from jinja2.nodes import CallBlock, FilterBlock, ImportedName, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tailrace.errors import TailraceError
from tailrace.sql.errors import SqlTemplateError
from tailrace.sql.literals import quote_identifier, sql_literal
from tailrace.sqltext import strip_sql_comments

__all__ = ["OUTPUT_CHARACTERS_MAX", "TYPE_NAMES", "Connection", "render", "render_adhoc"]

OUTPUT_CHARACTERS_MAX = 1_000_000
"""Longest statement that a template may make: more is a loop that ran away, and the SQL parser would choke on it."""

STEPS_MAX = 200_000
"""Most pieces of text that a template may put out, empty ones too: bounds nested loops that write nothing."""

VALUE_CHARACTERS_MAX = 100_000
"""Longest text or list that an operator may make: `'x' * 10**9` would fill the memory before it is put out."""


class Connection(str):
    """The type `Connection("kind")` of a Parameter."""

    __slots__ = ()


TYPE_NAMES = ("str", "int", "float", "bool", "datetime", "date", "list", "Connection")
"""Names of types that `Parameter(..., type=…)` takes; in a template they stand for themselves."""


class _TypeName(str):
    """A type's name; it can be called only as `Connection("kind")`."""

    __slots__ = ()

    def __call__(self, kind: str = "") -> Connection:
        if self != "Connection":
            raise SecurityError(f"{self} is the name of a type here, not a function")
        return Connection(kind)


class _Literal(str):
    """SQL text of a parameter, which templates may print, and otherwise use as its value: compare and test it, count
    with it, loop over it."""

    __slots__ = ("value",)
    value: Any

    def __bool__(self) -> bool:
        return bool(self.value)

    def __eq__(self, other: object) -> bool:
        return bool(self.value == _value(other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: object) -> bool:
        return bool(self.value < _value(other))

    def __le__(self, other: object) -> bool:
        return bool(self.value <= _value(other))

    def __gt__(self, other: object) -> bool:
        return bool(self.value > _value(other))

    def __ge__(self, other: object) -> bool:
        return bool(self.value >= _value(other))

    def __hash__(self) -> int:
        return str.__hash__(self)

    def __index__(self) -> int:
        return operator.index(self.value)

    def __len__(self) -> int:
        return len(self.value)

    def __contains__(self, item: object) -> bool:
        return _value(item) in self.value

    def __iter__(self) -> Iterator[Any]:
        """The items of a list, each as safe as the whole."""
        return iter([_literal(item) for item in self.value])

    def __getitem__(self, at: Any) -> Any:
        return _literal(self.value[_value(at)])


def _value(given: object) -> Any:
    return given.value if isinstance(given, _Literal) else given


def _is_number(given: object) -> bool:
    return isinstance(given, int | float | Decimal)


def _literal(value: object) -> _Literal:
    literal = _Literal(sql_literal(value))
    literal.value = value
    return literal


class _Environment(ImmutableSandboxedEnvironment):
    """No attribute of anything but loops, no module, no other template; operators that cannot fill the memory."""

    intercepted_binops = frozenset(["*", "**", "+", "%", "-", "/", "//"])
    intercepted_unops = frozenset(["-", "+"])

    def wrap_str_format(self, value: Any) -> None:
        """`str.format` is a method like any other that is not on the list: its widths could fill the memory."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return type(obj).__name__ in ("LoopContext", "Cycler", "Namespace") or (
            isinstance(obj, str | list | tuple | dict)
            and not isinstance(obj, _TypeName)
            and attr in _METHODS
            and super().is_safe_attribute(obj, attr, value)
        )

    def call_unop(self, context: Any, operator: str, arg: Any) -> Any:
        if isinstance(arg, _Literal):
            return _literal(super().call_unop(context, operator, arg.value))
        return super().call_unop(context, operator, arg)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, _Literal) or isinstance(right, _Literal):
            numbers = _value(left), _value(right)
            if all(map(_is_number, numbers)):
                return _literal(self.call_binop(context, operator, *numbers))
        if operator == "**" and (abs(left) > 10**6 or abs(right) > 64):
            raise SecurityError("the power is too large for a template")
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, str | list | tuple) and isinstance(times, int):
                    _bound(len(text) * times)
        if operator == "+" and isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
            _bound(len(left) + len(right))
        if operator == "%" and isinstance(left, str):
            raise SecurityError("text % values is not available in a template, use ~ to join texts")
        return super().call_binop(context, operator, left, right)


_METHODS = frozenset(
    [
        "lower",
        "upper",
        "title",
        "capitalize",
        "strip",
        "lstrip",
        "rstrip",
        "split",
        "startswith",
        "endswith",
        "isdigit",
        "items",
        "keys",
        "values",
        "get",
    ]
)
_FILTERS_REFUSED = ("attr", "format", "center", "indent", "pprint", "xmlattr", "urlize", "wordwrap", "tojson", "map")


def _bound(length: int) -> None:
    if length > VALUE_CHARACTERS_MAX:
        raise SecurityError(f"a value of {length} characters is over the limit of {VALUE_CHARACTERS_MAX}")


def _environment() -> _Environment:
    environment = _Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    for name in _FILTERS_REFUSED:
        environment.filters.pop(name, None)
    environment.globals.clear()
    environment.globals["range"] = _range
    return environment


def _range(*bounds: int) -> range:
    numbers = range(*bounds)
    if len(numbers) > 10_000:
        raise SecurityError(f"range of {len(numbers)} is over the limit of 10000")
    return numbers


def render(
    source: str,
    *,
    table: Callable[..., str],
    parameter: Callable[..., object],
    path: str,
) -> str:
    """The statement that the SQL file `path` with the text `source` makes; lines keep their numbers where they can.

    Args:
        table: answers `Table(name, mode="r", ...)` with the physical name, not quoted.
        parameter: answers `Parameter(name, description=None, type=str, default=…)` with the value.
            In the template it prints as a safe literal.

    Raises:
        SqlTemplateError: rejected; with the file and, where Jinja tells it, the line. An error of `table` or
            `parameter` that is one of ours passes through as it is.
    """
    names: dict[str, object] = {name: _TypeName(name) for name in TYPE_NAMES}
    names["Table"] = lambda *args, **options: quote_identifier(table(*args, **options))
    names["Parameter"] = lambda *args, **options: _literal(parameter(*args, **options))
    return _render(source, names, path)


def render_adhoc(sql: str, names: Mapping[str, str], *, path: str = "<sql>") -> str:
    """`sql` of `read_sql` and `execute_sql` with `{{ my_table }}` replaced; `names` gives each port's physical name."""
    if "{" not in sql:
        return sql
    return _render(sql, {name: quote_identifier(physical) for name, physical in names.items()}, path)


def _render(source: str, names: Mapping[str, object], path: str) -> str:
    environment = _environment()
    try:
        text = strip_sql_comments(source)
        tree = environment.parse(text)
        if node := next(tree.find_all((Macro, CallBlock, FilterBlock, ImportedName)), None):
            raise TemplateSyntaxError("macros and blocks are not available in a SQL template", node.lineno)
        pieces: list[str] = []
        characters = 0
        for steps, piece in enumerate(environment.from_string(tree).generate(**names)):
            characters += len(piece)
            if characters > OUTPUT_CHARACTERS_MAX or steps > STEPS_MAX:
                raise SecurityError(f"the statement is over the limit of {OUTPUT_CHARACTERS_MAX} characters")
            pieces.append(piece)
    except TailraceError:
        raise
    except TemplateSyntaxError as error:
        raise SqlTemplateError(path, error.lineno, str(error.message)) from error
    except TemplateError as error:
        raise SqlTemplateError(path, _line(error), error.message or type(error).__name__) from error
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError, MemoryError) as error:
        raise SqlTemplateError(path, _line(error), f"{type(error).__name__}: {error}") from error
    return "".join(pieces)


def _line(error: BaseException) -> int | None:
    """Line of the template that was being rendered: Jinja puts it into the traceback."""
    line = None
    traceback = error.__traceback__
    while traceback is not None:
        if re.fullmatch(r"<template>|<unknown>", traceback.tb_frame.f_code.co_filename):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
