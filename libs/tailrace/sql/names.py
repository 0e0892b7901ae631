"""The name that PostgreSQL gives to an output column without an alias.

Source: PostgreSQL, `src/backend/parser/parse_target.c`, `FigureColnameInternal`.
"""

from __future__ import annotations

from sqlglot import exp

from tailrace.sql.dialect import fold
from tailrace.sql.types import postgres_type_name

__all__ = ["UNNAMED", "output_name"]

UNNAMED = "?column?"
"""What an expression is called that has no name of its own."""

_WEAK, _STRONG = 1, 2

_SYNTAX: dict[type[exp.Expr], str] = {
    exp.Extract: "extract",
    exp.Substring: "substring",
    exp.StrPosition: "position",
    exp.Overlay: "overlay",
    exp.AtTimeZone: "timezone",
    exp.Array: "array",
    exp.Tuple: "row",
    exp.Exists: "exists",
    exp.CurrentDate: "current_date",
    exp.CurrentTimestamp: "current_timestamp",
    exp.CurrentTime: "current_time",
    exp.Localtimestamp: "localtimestamp",
    exp.Localtime: "localtime",
    exp.CurrentUser: "current_user",
}
_TRIMS = {"LEADING": "ltrim", "TRAILING": "rtrim"}


def output_name(node: exp.Expr) -> str:
    """Name of the output column that `node` makes, aliased or not."""
    if isinstance(node, exp.Alias):
        return fold(node.args["alias"])
    return _figure(node)[0] or UNNAMED


def _figure(node: exp.Expr | None) -> tuple[str | None, int]:
    """The name and how strongly it is held: a cast's type name gives way to a name inside."""
    match node:
        case exp.Column():
            return fold(node.this), _STRONG
        case exp.Dot():
            return fold(node.expression), _STRONG
        case exp.Identifier():
            return fold(node), _STRONG
        case exp.Paren() | exp.Collate() | exp.Filter() | exp.WithinGroup() | exp.Window() | exp.Bracket():
            return _figure(node.this)
        case exp.IgnoreNulls() | exp.RespectNulls():
            return _figure(node.this)
        case exp.Anonymous():
            return str(node.this).lower(), _STRONG
        case exp.Trim():
            return _TRIMS.get(str(node.args.get("position") or "").upper(), "btrim"), _STRONG
        case exp.Interval():
            return "interval", _WEAK
        case exp.Cast():
            name, strength = _figure(node.this)
            if strength <= _WEAK:
                return postgres_type_name(node.args["to"]), _WEAK
            return name, strength
        case exp.Case():
            name, strength = _figure(node.args.get("default"))
            return (name, strength) if strength > _WEAK else ("case", _WEAK)
        case exp.Subquery() | exp.Select():
            query: exp.Expr = node
            while isinstance(query, exp.Subquery):
                query = query.this
            if isinstance(query, exp.SetOperation):
                query = query.this
            if isinstance(query, exp.Select) and query.expressions:
                first = query.expressions[0]
                return (fold(first.args["alias"]), _STRONG) if isinstance(first, exp.Alias) else _figure(first)
            return None, 0
        case None:
            return None, 0
        case _:
            name = _SYNTAX.get(type(node))
            return (name, _STRONG) if name else (None, 0)
