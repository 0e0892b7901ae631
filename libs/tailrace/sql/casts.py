"""Casts as PostgreSQL makes them."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from tailrace.sql import types
from tailrace.sql.value import Prober, Value

__all__ = ["cast", "cast_literal", "interval", "to_numeric", "to_text"]

_FROM_TEXT = {
    "DATE": "pg_text_date({})",
    "TIMESTAMP": "pg_text_timestamp({})",
    "TIMESTAMP WITH TIME ZONE": "pg_text_timestamptz({})",
    "BOOLEAN": "pg_text_boolean({})",
}
_SIGN = re.compile(r"([+-])\s*(?=\d)")


def cast(prober: Prober, value: Value, target: str, characters_max: int | None = None) -> Value:
    """`value` as the DuckDB type `target`; a text is cut to `characters_max`."""
    source = value.type
    if types.is_text(target):
        text = to_text(prober, value)
        if characters_max is not None:
            text = prober.build(f"left({{}}, {characters_max})", text, type=target)
        return Value(prober, text.sql, text.probe, "VARCHAR")
    if source == target and value.literal is None:
        return value
    if target == types.UNBOUNDED_NUMERIC:
        return to_numeric(prober, value)
    if types.is_text(source):
        if target in _FROM_TEXT:
            return prober.build(_FROM_TEXT[target], value, type=target)
        if types.is_integer(target):
            return prober.build(f"CAST(pg_text_integer({{}}) AS {target})", value, type=target)
        if target == "INTERVAL" and value.literal is not None:
            return interval(prober, value.literal)
        if types.is_list(target) and value.literal is not None:
            items = "[" + value.literal.strip().removeprefix("{").removesuffix("}") + "]"
            return Value(prober, f"CAST({_quote(items)} AS {target})", None, target)
    if types.is_float(source) and types.is_decimal(target):
        return prober.build(f"CAST(pg_double_text({{}}) AS {target})", value, type=target)
    return prober.build(f"CAST({{}} AS {target})", value, type=target)


def cast_literal(prober: Prober, value: Value, target: str) -> Value:
    """A string constant without a type takes `target`, as PostgreSQL decides from what stands beside it."""
    if value.literal is None or types.is_text(target) or target == '"NULL"':
        return value
    return cast(prober, value, target)


def interval(prober: Prober, text: str) -> Value:
    """The interval that `text` says; its signs may stand apart from their numbers, as in `1 month - 1 day`."""
    close = _SIGN.sub(lambda sign: sign[1].replace("+", ""), text)
    return Value(prober, f"CAST({_quote(close)} AS INTERVAL)", None, "INTERVAL")


def to_numeric(prober: Prober, value: Value) -> Value:
    """`value` as a numeric, with as many decimals as it has or, where that is open, with 16."""
    source = value.type
    if value.literal is not None:
        try:
            number = Decimal(value.literal.strip())
        except InvalidOperation:
            number = None
        if number is not None and number.is_finite():
            text = format(number, "f")
            digits = len(text.replace("-", "").replace(".", "").lstrip("0"))
            scale = len(text.partition(".")[2])
            target = f"DECIMAL({min(38, max(digits, scale + 1))},{min(scale, 37)})"
            return Value(prober, f"CAST({_quote(text)} AS {target})", None, target)
    if types.is_integer(source) or source == "HUGEINT":
        precision, _ = types.numeric_scale(source)
        return prober.build(f"CAST({{}} AS DECIMAL({precision},0))", value, type=f"DECIMAL({precision},0)")
    if types.is_decimal(source):
        return value
    if types.is_float(source):
        return prober.build("CAST(pg_double_text({}) AS DECIMAL(38,15))", value, type="DECIMAL(38,15)")
    return prober.build(f"CAST({{}} AS {types.UNBOUNDED_NUMERIC})", value, type=types.UNBOUNDED_NUMERIC)


def to_text(prober: Prober, value: Value) -> Value:
    """`value` as a text, written as PostgreSQL does."""
    source = value.type
    if types.is_text(source):
        return value
    template = "CAST({} AS VARCHAR)"
    if types.is_float(source):
        template = "pg_float_text({})"
    elif source == "INTERVAL":
        template = "pg_interval_text({})"
    elif types.is_list(source):
        template = "(chr(123) || coalesce(array_to_string(CAST({} AS VARCHAR[]), ','), '') || chr(125))"
    return prober.build(template, value, type="VARCHAR")


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
