"""Python values and names as SQL text that cannot be taken for anything else."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

from tailrace.sql.errors import SqlError

__all__ = ["quote_identifier", "quote_text", "sql_literal"]


def quote_identifier(name: str) -> str:
    """`name` in double quotes."""
    if "\0" in name:
        raise SqlError("a name holds a NUL character", hint="Take it out")
    return '"' + name.replace('"', '""') + '"'


def quote_text(text: str) -> str:
    """`text` as a string literal. A backslash needs nothing: literals are never written as `E'…'`."""
    if "\0" in text:
        raise SqlError("a text holds a NUL character, which PostgreSQL cannot store", hint="Take it out")
    return "'" + text.replace("'", "''") + "'"


def sql_literal(value: object) -> str:
    """`value` as a PostgreSQL literal.

    Numbers are bare (negative ones in parentheses, so that `-{{ x }}` starts no comment), None is NULL, dates and
    times are quoted text, dicts JSON text. A list is a parenthesised list, as `x in {{ p }}` wants it; the empty
    one is `(NULL)`, which nothing is in.

    Raises:
        SqlError: rejected; the type has no literal.
    """
    match value:
        case None:
            return "NULL"
        case bool():
            return "TRUE" if value else "FALSE"
        case int() | Decimal() if not isinstance(value, Decimal) or value.is_finite():
            text = format(value, "f") if isinstance(value, Decimal) else str(int(value))
            return f"({text})" if text.startswith("-") else text
        case float():
            if not math.isfinite(value):
                return f"CAST('{value}' AS double precision)"
            text = repr(float(value))
            return f"({text})" if text.startswith("-") else text
        case datetime():
            return quote_text(value.isoformat(sep=" "))
        case date() | time():
            return quote_text(value.isoformat())
        case timedelta():
            return f"interval '{value.days} days {value.seconds}.{value.microseconds:06d} seconds'"
        case str():
            return quote_text(str(value))
        case UUID():
            return quote_text(str(value))
        case list() | tuple() | set() | frozenset():
            return "(" + (", ".join(sql_literal(item) for item in value) or "NULL") + ")"
        case Mapping():
            return quote_text(json.dumps(dict(value), default=str))
        case _:
            raise SqlError(
                f"a value of type {type(value).__name__} has no SQL literal",
                hint="Use a text, number, boolean, date, datetime, list or None",
            )
