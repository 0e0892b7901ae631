"""Functions of texts."""

from __future__ import annotations

import re

from tailrace.sql import types
from tailrace.sql.casts import cast, to_text
from tailrace.sql.functions import Call, Handler, fixed
from tailrace.sql.literals import quote_text
from tailrace.sql.operators import regex_pattern
from tailrace.sql.value import Value

__all__ = ["FUNCTIONS"]

_PLACE = re.compile(r"%(?:(\d+)\$)?(-)?(\d+)?([sIL%])")


def _text_of(call: Call, value: Value) -> Value:
    """A value inside a text: booleans are `t` and `f` there, as PostgreSQL's output functions write them."""
    if value.type == "BOOLEAN":
        return call.build("CASE {} WHEN true THEN 't' WHEN false THEN 'f' END", value, type="VARCHAR")
    return to_text(call.prober, value)


def _format(call: Call) -> Value:
    """printf-like `format`: `%s`, `%I`, `%L`, `%%`, positions and widths."""
    if not call.args or call.args[0].literal is None:
        raise call.fail("format takes a constant text as its first argument")
    pattern, values = call.args[0].literal, call.args[1:]
    parts: list[Value] = []
    at, following = 0, 0
    for place in re.finditer(r"%[^sIL%]*[sIL%]?", pattern):
        found = _PLACE.fullmatch(place[0])
        if found is None:
            raise call.fail(f'unrecognized format() type specifier in "{place[0]}"', "Write %% for a percent sign")
        if place.start() > at:
            parts.append(Value(call.prober, quote_text(pattern[at : place.start()]), None, "VARCHAR"))
        at = place.end()
        position, left, width, kind = found.groups()
        if kind == "%":
            parts.append(Value(call.prober, "'%'", None, "VARCHAR"))
            continue
        following = int(position) if position else following + 1
        if not 1 <= following <= len(values):
            raise call.fail("too few arguments for format()")
        text = _text_of(call, values[following - 1])
        template = {
            "s": "coalesce({}, '')",
            "I": "pg_quote_ident({})",
            "L": "coalesce(pg_quote_literal({}), 'NULL')",
        }[kind]
        part = call.build(template, text, type="VARCHAR")
        if width:
            pad = "rpad" if left else "lpad"
            part = call.build(
                f"{pad}({{}}, CAST(greatest(length({{}}), {width}) AS INTEGER), ' ')", part, part, type="VARCHAR"
            )
        parts.append(part)
    if at < len(pattern):
        parts.append(Value(call.prober, quote_text(pattern[at:]), None, "VARCHAR"))
    parts = parts or [call.args[0]]
    return call.build("(" + " || ".join("{}" for _ in parts) + ")", *parts, type="VARCHAR")


def _concat(call: Call) -> Value:
    values = [_text_of(call, value) for value in call.args]
    return call.build("concat(" + ", ".join("{}" for _ in values) + ")", *values, type="VARCHAR")


def _concat_ws(call: Call) -> Value:
    if not call.args:
        raise call.wrong_arguments()
    values = [to_text(call.prober, call.args[0]), *(_text_of(call, value) for value in call.args[1:])]
    return call.build("concat_ws(" + ", ".join("{}" for _ in values) + ")", *values, type="VARCHAR")


def _substring(call: Call) -> Value:
    if not 2 <= len(call.args) <= 3:
        raise call.wrong_arguments()
    text, start, *rest = call.args
    if start.literal is not None or types.is_text(start.type):
        if rest:
            raise call.fail("substring(… from pattern for escape) is not supported")
        return _regexp_substring(call, text, start)
    if rest:
        return call.build("pg_substring({}, {}, {})", text, start, rest[0], type="VARCHAR")
    return call.build("pg_substring_from({}, {})", text, start, type="VARCHAR")


def _regexp_substring(call: Call, text: Value, pattern: Value) -> Value:
    groups = _groups(pattern)
    template = "pg_regexp_group({}, {})" if groups else "pg_regexp_whole({}, {})"
    return call.build(template, text, regex_pattern(call.prober, pattern), type="VARCHAR")


def _groups(pattern: Value) -> int:
    """How many groups a constant pattern captures."""
    if pattern.literal is None:
        return 0
    try:
        return re.compile(pattern.literal).groups
    except re.error:
        return 0


def _regexp_match(call: Call) -> Value:
    if not 2 <= len(call.args) <= 3:
        raise call.wrong_arguments()
    text, pattern = call.args[:2]
    flags = f", {call.args[2].sql}" if len(call.args) == 3 else ""
    numbers = range(1, _groups(pattern) + 1) or range(1)
    pattern = regex_pattern(call.prober, pattern)
    parts = [part for _ in numbers for part in (text, pattern)]
    items = ", ".join(f"regexp_extract({{}}, {{}}, {number}{flags})" for number in numbers)
    return call.build(
        f"CASE WHEN regexp_matches({{}}, {{}}{flags}) THEN [{items}] END", text, pattern, *parts, type="VARCHAR[]"
    )


def _regexp_matches(call: Call) -> Value:
    """A row for each match: the first one, or with the flag `g` all."""
    if len(call.args) == 3 and "g" in (call.args[2].literal or ""):
        if _groups(call.args[1]) > 1:
            raise call.fail("regexp_matches(..., 'g') takes a pattern with one group at most")
        flags = quote_text((call.args[2].literal or "").replace("g", ""))
        group = _groups(call.args[1])
        pattern = regex_pattern(call.prober, call.args[1])
        found = f"regexp_extract_all({{}}, {{}}, {group}, {flags})"
        return call.build(f"unnest(list_transform({found}, lambda m: [m]))", call.args[0], pattern, type="VARCHAR[]")
    match = _regexp_match(call)
    return call.build("unnest(CASE WHEN {} IS NULL THEN [] ELSE [{}] END)", match, match, type="VARCHAR[]")


def _regexp_replace(call: Call) -> Value:
    if not 3 <= len(call.args) <= 4:
        raise call.wrong_arguments()
    text, pattern, replacement = call.args[:3]
    if replacement.literal is not None:
        changed = replacement.literal.replace(r"\&", r"\0")
        replacement = Value(call.prober, quote_text(changed), None, "VARCHAR")
    parts = [text, regex_pattern(call.prober, pattern), replacement, *call.args[3:]]
    return call.build(f"regexp_replace({', '.join('{}' for _ in parts)})", *parts, type="VARCHAR")


def _regexp(template: str, type: str) -> Handler:
    """A function of a text and a pattern, with or without flags."""

    def handle(call: Call) -> Value:
        if not 2 <= len(call.args) <= 3:
            raise call.wrong_arguments()
        flags = f", {call.args[2].sql}" if len(call.args) == 3 else ""
        pattern = regex_pattern(call.prober, call.args[1])
        return call.build(template.replace("FLAGS", flags), call.args[0], pattern, type=type)

    return handle


def _length(call: Call) -> Value:
    if len(call.args) != 1:
        raise call.wrong_arguments()
    return call.build("CAST(length({}) AS INTEGER)", to_text(call.prober, call.args[0]), type="INTEGER")


def _array_to_string(call: Call) -> Value:
    if not 2 <= len(call.args) <= 3:
        raise call.wrong_arguments()
    array = cast(call.prober, call.args[0], "VARCHAR[]")
    if len(call.args) == 3:
        array = call.build("list_transform({}, lambda item: coalesce(item, {}))", array, call.args[2], type="VARCHAR[]")
    return call.build(
        "CASE WHEN {} IS NOT NULL THEN coalesce(array_to_string({}, {}), '') END",
        array,
        array,
        call.args[1],
        type="VARCHAR",
    )


def _overlay(call: Call) -> Value:
    if not 3 <= len(call.args) <= 4:
        raise call.wrong_arguments()
    text, new, start = call.args[:3]
    length = call.args[3] if len(call.args) == 4 else call.build("length({})", new)
    return call.build(
        "(pg_substring({}, 1, {} - 1) || {} || pg_substring_from({}, {} + {}))",
        text, start, new, text, start, length,
        type="VARCHAR",
    )  # fmt: skip


def _string_to_array(call: Call) -> Value:
    if len(call.args) != 2:
        raise call.wrong_arguments()
    text, separator = call.args
    return call.build(
        "CASE WHEN {} = '' THEN CAST([] AS VARCHAR[]) ELSE string_split({}, {}) END",
        text,
        text,
        separator,
        type="VARCHAR[]",
    )


FUNCTIONS: dict[str, Handler] = {
    "format": _format,
    "concat": _concat,
    "concat_ws": _concat_ws,
    "lower": fixed("lower({})", type="VARCHAR"),
    "upper": fixed("upper({})", type="VARCHAR"),
    "initcap": fixed("pg_initcap({})", type="VARCHAR"),
    "length": _length,
    "char_length": _length,
    "character_length": _length,
    "octet_length": fixed("CAST(strlen({}) AS INTEGER)", type="INTEGER"),
    "bit_length": fixed("CAST(strlen({}) * 8 AS INTEGER)", type="INTEGER"),
    "strpos": fixed("CAST(strpos({}, {}) AS INTEGER)", type="INTEGER"),
    "ascii": fixed("ascii({})", type="INTEGER"),
    "chr": fixed("chr(CAST({} AS INTEGER))", type="VARCHAR"),
    "btrim": fixed("trim({}, ' ')", "trim({}, {})", type="VARCHAR"),
    "trim": fixed("trim({}, ' ')", "trim({}, {})", type="VARCHAR"),
    "ltrim": fixed("ltrim({}, ' ')", "ltrim({}, {})", type="VARCHAR"),
    "rtrim": fixed("rtrim({}, ' ')", "rtrim({}, {})", type="VARCHAR"),
    "lpad": fixed("lpad({}, CAST({} AS INTEGER), ' ')", "lpad({}, CAST({} AS INTEGER), {})", type="VARCHAR"),
    "rpad": fixed("rpad({}, CAST({} AS INTEGER), ' ')", "rpad({}, CAST({} AS INTEGER), {})", type="VARCHAR"),
    "left": fixed("left({}, {})", type="VARCHAR"),
    "right": fixed("right({}, {})", type="VARCHAR"),
    "repeat": fixed("repeat({}, {})", type="VARCHAR"),
    "reverse": fixed("reverse({})", type="VARCHAR"),
    "replace": fixed("replace({}, {}, {})", type="VARCHAR"),
    "translate": fixed("translate({}, {}, {})", type="VARCHAR"),
    "split_part": fixed("split_part({}, {}, {})", type="VARCHAR"),
    "starts_with": fixed("starts_with({}, {})", type="BOOLEAN"),
    "substring": _substring,
    "substr": _substring,
    "overlay": _overlay,
    "md5": fixed("md5({})", type="VARCHAR"),
    "to_hex": fixed("lower(to_hex({}))", type="VARCHAR"),
    "quote_ident": fixed("pg_quote_ident({})", type="VARCHAR"),
    "quote_literal": fixed("pg_quote_literal({})", type="VARCHAR"),
    "regexp_replace": _regexp_replace,
    "regexp_match": _regexp_match,
    "regexp_matches": _regexp_matches,
    "regexp_like": _regexp("regexp_matches({}, {}FLAGS)", "BOOLEAN"),
    "regexp_count": _regexp("CAST(len(regexp_extract_all({}, {}, 0FLAGS)) AS INTEGER)", "INTEGER"),
    "regexp_substr": lambda call: _regexp_substring(call, *call.args) if len(call.args) == 2 else _substring(call),
    "regexp_split_to_array": _regexp("string_split_regex({}, {}FLAGS)", "VARCHAR[]"),
    "regexp_split_to_table": _regexp("unnest(string_split_regex({}, {}FLAGS))", "VARCHAR"),
    "string_to_array": _string_to_array,
    "string_to_table": fixed("unnest(string_split({}, {}))", type="VARCHAR"),
    "array_to_string": _array_to_string,
}
