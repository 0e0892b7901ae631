"""The functions of PostgreSQL that SQL may call: this table is also the list of what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlglot import exp

from tailrace.sql.dialect import line_of
from tailrace.sql.errors import SqlError
from tailrace.sql.scope import Scope, close_match
from tailrace.sql.value import Prober, Value

if TYPE_CHECKING:
    from tailrace.sql.expressions import ExpressionTranslator

__all__ = ["Call", "Handler", "call_function", "fixed", "known_functions"]


@dataclass(slots=True)
class Call:
    """One call: the function's name in lower case, its arguments, and what surrounds an aggregate."""

    translator: ExpressionTranslator
    scope: Scope
    node: exp.Expr
    name: str
    args: list[Value]
    distinct: bool = False
    order: list[tuple[Value, str]] = field(default_factory=list)
    star: bool = False
    suffix: str = ""
    """` FILTER (…) OVER (…)`: what follows the closing parenthesis of the aggregate."""
    nulls: str = ""
    windowed: bool = False
    filtered: bool = False
    within: bool = False

    @property
    def prober(self) -> Prober:
        """Where types are asked for."""
        return self.translator.prober

    def build(self, template: str, *parts: Value, type: str | None = None) -> Value:
        """As `Prober.build`."""
        return self.prober.build(template, *parts, type=type)

    def aggregate(self, name: str, *parts: Value, type: str | None = None, ordered: bool = True) -> Value:
        """The DuckDB aggregate or window function `name` over `parts`, with DISTINCT, ORDER BY, FILTER and OVER."""
        inner = ", ".join("{}" for _ in parts)
        plain = self.build(f"{name}({inner})", *parts)
        order = ", ".join(f"{value.sql}{way}" for value, way in self.order) if ordered else ""
        if ordered and self.distinct and not order:  # PostgreSQL finds doubles by sorting, and keeps the order
            order = f"{parts[0].sql} NULLS LAST"
        text = ", ".join(part.sql for part in parts)
        sql = (
            f"{name}({'DISTINCT ' if self.distinct else ''}{text}{' ORDER BY ' + order if order else ''}{self.nulls})"
            + self.suffix
        )
        return Value(self.prober, sql, plain.probe, type)

    def fail(self, message: str, hint: str | None = None) -> SqlError:
        """An error at this call."""
        return SqlError(message, line=line_of(self.node), hint=hint)

    def wrong_arguments(self) -> SqlError:
        """What PostgreSQL says to arguments that no function of the name takes."""
        kinds = ", ".join("unknown" if a.literal is not None else a.type.lower() for a in self.args)
        return self.fail(f"function {self.name}({kinds}) does not exist", "Look at the number and types of arguments")


Handler = Callable[[Call], Value]


def fixed(*templates: str, type: str | None = None, same: bool = False) -> Handler:
    """A scalar function: one template for each number of arguments, and the result's type.

    `same`: the type of the first argument.
    """
    by_count = {template.count("{}"): template for template in templates}

    def handle(call: Call) -> Value:
        template = by_count.get(len(call.args))
        if template is None:
            raise call.wrong_arguments()
        return call.build(template, *call.args, type=call.args[0].type if same else type)

    return handle


def _tables() -> tuple[dict[str, Handler], dict[str, Handler]]:
    from tailrace.sql import functions_aggregate, functions_json, functions_number, functions_text, functions_time

    scalars: dict[str, Handler] = {}
    for module in (functions_number, functions_text, functions_time, functions_json):
        scalars |= module.FUNCTIONS
    return scalars, functions_aggregate.FUNCTIONS


_SCALARS: dict[str, Handler] = {}
_AGGREGATES: dict[str, Handler] = {}


def known_functions() -> frozenset[str]:
    """Names of all functions that SQL may call."""
    if not _SCALARS:
        scalars, aggregates = _tables()
        _SCALARS.update(scalars)
        _AGGREGATES.update(aggregates)
    return frozenset(_SCALARS) | frozenset(_AGGREGATES)


def call_function(call: Call) -> Value:
    """The call in DuckDB's SQL.

    Raises:
        SqlError: rejected; PostgreSQL has no such function, or we do not have it.
    """
    known = known_functions()
    if handler := _AGGREGATES.get(call.name):
        return handler(call)
    if handler := _SCALARS.get(call.name):
        if call.suffix or call.distinct or call.order or call.star:
            raise call.fail(f"{call.name} is not an aggregate or window function")
        return handler(call)
    raise call.fail(f"function {call.name}() does not exist or is not supported", close_match(call.name, known))
