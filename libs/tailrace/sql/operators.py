"""Operators whose meaning hangs on the types of both sides."""

from __future__ import annotations

import re

from tailrace.sql import types
from tailrace.sql.casts import cast, cast_literal, to_numeric, to_text
from tailrace.sql.errors import SqlError
from tailrace.sql.literals import quote_text
from tailrace.sql.value import Prober, Value

__all__ = ["arithmetic", "comparison", "concatenation", "json_get", "matches", "regex_pattern", "unify"]

_FACTOR_SCALE_MAX = 20
"""Most decimals of a product: 18 digits are left in front of the point."""


def arithmetic(prober: Prober, sign: str, left: Value, right: Value) -> Value:
    """`left sign right` for `+ - * / % ^`."""
    left, right = _settle(prober, sign, left, right)
    kinds = (left.type, right.type)
    if all(types.is_integer(kind) or kind == '"NULL"' for kind in kinds):
        if sign == "^":
            return prober.build("power(CAST({} AS DOUBLE), CAST({} AS DOUBLE))", left, right, type="DOUBLE")
        return prober.build(f"({{}} {'//' if sign == '/' else sign} {{}})", left, right)
    if all(types.is_number(kind) or kind == '"NULL"' for kind in kinds):
        if any(types.is_float(kind) for kind in kinds):
            if sign == "^":
                return prober.build("power({}, {})", left, right, type="DOUBLE")
            if sign == "%":
                raise SqlError(
                    "operator does not exist: double precision % double precision", hint="Cast to numeric: x::numeric"
                )
            return prober.build(f"(CAST({{}} AS DOUBLE) {sign} CAST({{}} AS DOUBLE))", left, right, type="DOUBLE")
        return _numeric(prober, sign, to_numeric(prober, left), to_numeric(prober, right))
    if kinds == ("DATE", "DATE") and sign == "-":
        return prober.build("CAST({} - {} AS INTEGER)", left, right, type="INTEGER")
    if sign in "+-" and "INTERVAL" in kinds and "DATE" in kinds:
        return prober.build(f"({{}} {sign} {{}})", left, right, type="TIMESTAMP")
    if sign in "+-" and "DATE" in kinds and any(types.is_integer(kind) for kind in kinds):
        parts = [v if v.type == "DATE" else prober.build("CAST({} AS INTEGER)", v) for v in (left, right)]
        return prober.build(f"({{}} {sign} {{}})", *parts, type="DATE")
    if sign == "-" and all(types.is_time(kind) for kind in kinds):
        target = "TIMESTAMP WITH TIME ZONE" if "TIMESTAMP WITH TIME ZONE" in kinds else "TIMESTAMP"
        return prober.build("({} - {})", cast(prober, left, target), cast(prober, right, target), type="INTERVAL")
    if "INTERVAL" in kinds and sign in "*/":
        parts = [prober.build("CAST({} AS DOUBLE)", v) if types.is_number(v.type) else v for v in (left, right)]
        return prober.build(f"({{}} {sign} {{}})", *parts, type="INTERVAL")
    return prober.build(f"({{}} {sign} {{}})", left, right)


def _settle(prober: Prober, sign: str, left: Value, right: Value) -> tuple[Value, Value]:
    """Give string constants the type that the other side asks for."""
    for value, other in ((left, right), (right, left)):
        if value.literal is None or other.literal is not None:
            continue
        target = other.type
        if types.is_time(target) and sign == "+":
            target = "INTERVAL"
        settled = cast_literal(prober, value, target)
        return (settled, right) if value is left else (left, settled)
    return left, right


def _numeric(prober: Prober, sign: str, left: Value, right: Value) -> Value:
    if sign == "/":
        scale = max(types.numeric_scale(left.type)[1], types.numeric_scale(right.type)[1])
        sides = [prober.build(f"CAST({{}} AS DECIMAL(38,{scale}))", side) for side in (left, right)]
        return prober.build("pg_divide({}, {})", *sides, type=types.UNBOUNDED_NUMERIC)
    if sign == "^":
        power = prober.build("power(CAST({} AS DOUBLE), CAST({} AS DOUBLE))", left, right, type="DOUBLE")
        return to_numeric(prober, power)
    if sign == "*":
        left_scale, right_scale = (types.numeric_scale(side.type)[1] for side in (left, right))
        if left_scale + right_scale > _FACTOR_SCALE_MAX:
            half = _FACTOR_SCALE_MAX // 2
            left_to = min(left_scale, max(half, _FACTOR_SCALE_MAX - right_scale))
            right_to = min(right_scale, _FACTOR_SCALE_MAX - left_to)
            left = prober.build(f"CAST({{}} AS DECIMAL(38,{left_to}))", left)
            right = prober.build(f"CAST({{}} AS DECIMAL(38,{right_to}))", right)
    return prober.build(f"({{}} {sign} {{}})", left, right)


def comparison(prober: Prober, sign: str, left: Value, right: Value) -> Value:
    """`left sign right`, of booleans."""
    if left.literal is None:
        right = cast_literal(prober, right, left.type)
    elif right.literal is None:
        left = cast_literal(prober, left, right.type)
    return prober.build(f"({{}} {sign} {{}})", left, right, type="BOOLEAN")


def concatenation(prober: Prober, left: Value, right: Value) -> Value:
    """`left || right`: of texts, lists or JSON."""
    kinds = (left.type, right.type)
    if kinds == ("JSON", "JSON"):
        return prober.build("json_merge_patch({}, {})", left, right, type="JSON")
    if any(types.is_list(kind) for kind in kinds):
        target = next(kind for kind in kinds if types.is_list(kind))
        left, right = cast_literal(prober, left, target), cast_literal(prober, right, target)
        parts = [v if types.is_list(v.type) else prober.build("[{}]", v) for v in (left, right)]
        return prober.build("list_concat({}, {})", *parts)
    return prober.build("({} || {})", to_text(prober, left), to_text(prober, right), type="VARCHAR")


def matches(prober: Prober, word: str, value: Value, pattern: Value, escape: str | None) -> Value:
    """`value word pattern` for LIKE, ILIKE, SIMILAR TO, `~` and `~i`."""
    if word.startswith("~"):
        flags = ", 'i'" if word == "~i" else ""
        return prober.build(f"regexp_matches({{}}, {{}}{flags})", value, regex_pattern(prober, pattern), type="BOOLEAN")
    if word == "SIMILAR TO":
        if pattern.literal is None:
            raise SqlError("SIMILAR TO takes a constant pattern")
        regex = re.sub(r"[%_.^$\\]", lambda m: {"%": ".*", "_": "."}.get(m[0], "\\" + m[0]), pattern.literal)
        return prober.build("regexp_full_match({}, {}, 's')", value, Value(prober, quote_text(regex)), type="BOOLEAN")
    sign = "\\" if escape is None else escape
    if sign and (pattern.literal is None or sign in pattern.literal):
        escape_text = Value(prober, quote_text(sign))
        return prober.build(f"({{}} {word} {{}} ESCAPE {{}})", value, pattern, escape_text, type="BOOLEAN")
    return prober.build(f"({{}} {word} {{}})", value, pattern, type="BOOLEAN")


def regex_pattern(prober: Prober, pattern: Value) -> Value:
    """A constant pattern in the syntax of DuckDB's engine, which has no `\\m`, `\\M`, `\\y` and no look-around."""
    if pattern.literal is None:
        return pattern
    text = re.sub(r"\\([mMyAZ])", lambda m: {"A": r"\A", "Z": r"\z"}.get(m[1], r"\b"), pattern.literal)
    if re.search(r"\(\?[=!<]", text):
        raise SqlError("look-around in a regular expression is not supported", hint="Match, then test the rest apart")
    return Value(prober, quote_text(text), None, "VARCHAR", literal=text)


def json_get(prober: Prober, value: Value, *keys: Value, text: bool, path: bool = False) -> Value:
    """`value -> key`, `->> key`, or the way along several keys. In a path, digits count as a position too."""
    for number, key in enumerate(keys):
        last = number == len(keys) - 1
        sign = "->>" if text and last else "->"
        result = "VARCHAR" if text and last else "JSON"
        if key.literal is not None:
            name = key.literal.replace("\\", "\\\\").replace('"', '\\"')
            by_name = Value(prober, quote_text(f'$."{name}"'))
            if path and re.fullmatch(r"-?\d+", key.literal):
                template = f"coalesce(({{}} {sign} {key.literal}), ({{}} {sign} {{}}))"
                value = prober.build(template, value, value, by_name, type=result)
                continue
            value = prober.build(f"({{}} {sign} {{}})", value, by_name, type=result)
        elif types.is_integer(key.type):
            value = prober.build(f"({{}} {sign} CAST({{}} AS BIGINT))", value, key, type=result)
        else:
            value = prober.build(f"({{}} {sign} ('$.\"' || {{}} || '\"'))", value, key, type=result)
    return value


def unify(prober: Prober, values: list[Value]) -> list[Value]:
    """Arms of a CASE, COALESCE, list or the like: string constants take the type of the others."""
    typed = [value for value in values if value.literal is None and value.type != '"NULL"']
    if not typed:
        return values
    target = typed[0].type
    if types.is_number(target) or types.is_text(target):
        widest = [v.type for v in typed]
        target = next(
            (t for t in widest if types.is_float(t)), next((t for t in widest if types.is_decimal(t)), target)
        )
    out = []
    for value in values:
        settled = cast_literal(prober, value, target)
        if types.is_float(target) and types.is_decimal(settled.type):
            settled = cast(prober, settled, "DOUBLE")
        out.append(settled)
    return out
