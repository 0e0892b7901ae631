"""Functions of dates, moments and intervals."""

from __future__ import annotations

import re

from tailrace.sql import types
from tailrace.sql.casts import cast, cast_literal
from tailrace.sql.functions import Call, Handler, fixed
from tailrace.sql.literals import quote_text
from tailrace.sql.number_format import number_to_char
from tailrace.sql.value import Value

__all__ = ["FUNCTIONS"]

_MOMENT = "TIMESTAMP WITH TIME ZONE"
_UNITS = {
    unit: base
    for base, names in {
        "microsecond": "microsecond microseconds us usec",
        "millisecond": "millisecond milliseconds ms msec",
        "second": "second seconds sec s",
        "minute": "minute minutes min m",
        "hour": "hour hours h hr",
        "day": "day days d",
        "week": "week weeks w",
        "month": "month months mon mons",
        "quarter": "quarter",
        "year": "year years y yr",
        "decade": "decade decades",
        "century": "century centuries",
        "millennium": "millennium millenniums",
        "dow": "dow",
        "isodow": "isodow",
        "doy": "doy",
        "isoyear": "isoyear",
        "epoch": "epoch",
        "julian": "julian",
        "timezone": "timezone",
    }.items()
    for unit in names.split()
}
_DECIMAL_UNITS = {"second": 6, "millisecond": 3, "epoch": 6}


def _unit(call: Call) -> str:
    literal = call.args[0].literal if call.args else None
    if literal is None:
        raise call.fail(f"{call.name} takes a constant unit such as 'month'")
    try:
        return _UNITS[literal.strip().lower()]
    except KeyError:
        raise call.fail(f'unit "{literal}" not recognized') from None


def _date_trunc(call: Call) -> Value:
    if not 2 <= len(call.args) <= 3:
        raise call.wrong_arguments()
    unit = _unit(call)
    value = call.args[1]
    if value.literal is not None or value.type in ("DATE", "VARCHAR", '"NULL"'):
        value = cast(call.prober, value, _MOMENT)
    if len(call.args) == 3:
        zone = call.args[2]
        value = cast(call.prober, value, _MOMENT)
        return call.build(
            f"(date_trunc('{unit}', {{}} AT TIME ZONE {{}}) AT TIME ZONE {{}})", value, zone, zone, type=_MOMENT
        )
    return call.build(f"date_trunc('{unit}', {{}})", value, type=value.type)


def _extract(call: Call) -> Value:
    """A field as numeric (`extract`) or double (`date_part`)."""
    if len(call.args) != 2:
        raise call.wrong_arguments()
    unit, value = _unit(call), call.args[1]
    if value.literal is not None:
        value = cast(call.prober, value, "TIMESTAMP")
    if value.type == "DATE":
        if unit in ("hour", "minute", "second", "millisecond", "microsecond"):
            raise call.fail(f'unit "{unit}" not supported for type date')
        if unit == "epoch":
            value = cast(call.prober, value, "TIMESTAMP")
    if unit == "epoch":
        micros = call.build("epoch_us({})", value)
        if value.type == "INTERVAL":  # a year counts 365.25 days, the months beyond it 30
            micros = call.build(
                "(epoch_us({}) + CAST(datepart('year', {}) AS BIGINT) * 453600000000)", value, value, type="BIGINT"
            )
        field, scale = micros, 6
    elif unit in _DECIMAL_UNITS:
        field, scale = call.build("datepart('microsecond', {})", value), _DECIMAL_UNITS[unit]
    elif unit == "microsecond":
        field, scale = call.build("datepart('microsecond', {})", value), 0
    else:
        field, scale = call.build(f"datepart('{unit}', {{}})", value), 0
    if call.name == "date_part":
        divisor = f" / 1{'0' * scale}" if scale else ""
        return call.build(f"CAST({{}} AS DOUBLE){divisor}" if scale else "CAST({} AS DOUBLE)", field, type="DOUBLE")
    if scale:
        factor = "0." + "0" * (scale - 1) + "1"
        width = 38 if unit == "epoch" else 10
        return call.build(
            f"CAST(CAST({{}} AS DECIMAL(19,0)) * {factor} AS DECIMAL({width},{scale}))",
            field,
            type=f"DECIMAL({width},{scale})",
        )
    return call.build("CAST({} AS DECIMAL(19,0))", field, type="DECIMAL(19,0)")


def _age(call: Call) -> Value:
    if not 1 <= len(call.args) <= 2:
        raise call.wrong_arguments()
    kinds = {value.type for value in call.args}
    target = _MOMENT if _MOMENT in kinds else "TIMESTAMP"
    values = [cast(call.prober, value, target) for value in call.args]
    if len(values) == 1:
        return call.build("age(CAST(current_date AS TIMESTAMP), CAST({} AS TIMESTAMP))", values[0], type="INTERVAL")
    return call.build("age({}, {})", *values, type="INTERVAL")


# Pieces of to_char's pattern for moments, longest first where one begins another, with the DuckDB that makes each.
_PIECES: dict[str, str] = {
    "HH24": "strftime({}, '%H')",
    "HH12": "strftime({}, '%I')",
    "HH": "strftime({}, '%I')",
    "MI": "strftime({}, '%M')",
    "SSSSS": "CAST(datepart('hour', {}) * 3600 + datepart('minute', {}) * 60 + datepart('second', {}) AS VARCHAR)",
    "SS": "strftime({}, '%S')",
    "MS": "strftime({}, '%g')",
    "US": "strftime({}, '%f')",
    "IYYY": "lpad(CAST(datepart('isoyear', {}) AS VARCHAR), 4, '0')",
    "IW": "strftime({}, '%V')",
    "ID": "strftime({}, '%u')",
    "Y,YYY": "pg_group_digits(CAST(datepart('year', {}) AS VARCHAR))",
    "YYYY": "lpad(CAST(datepart('year', {}) AS VARCHAR), 4, '0')",
    "YYY": "right(CAST(datepart('year', {}) AS VARCHAR), 3)",
    "YY": "right(CAST(datepart('year', {}) AS VARCHAR), 2)",
    "Y": "right(CAST(datepart('year', {}) AS VARCHAR), 1)",
    "MONTH": "rpad(upper(monthname({})), 9, ' ')",
    "Month": "rpad(monthname({}), 9, ' ')",
    "month": "rpad(lower(monthname({})), 9, ' ')",
    "MON": "upper(strftime({}, '%b'))",
    "Mon": "strftime({}, '%b')",
    "mon": "lower(strftime({}, '%b'))",
    "MM": "strftime({}, '%m')",
    "DAY": "rpad(upper(dayname({})), 9, ' ')",
    "Day": "rpad(dayname({}), 9, ' ')",
    "day": "rpad(lower(dayname({})), 9, ' ')",
    "DY": "upper(strftime({}, '%a'))",
    "Dy": "strftime({}, '%a')",
    "dy": "lower(strftime({}, '%a'))",
    "DDD": "strftime({}, '%j')",
    "DD": "strftime({}, '%d')",
    "D": "CAST(datepart('dow', {}) + 1 AS VARCHAR)",
    "WW": "lpad(CAST((datepart('doy', {}) - 1) // 7 + 1 AS VARCHAR), 2, '0')",
    "W": "CAST((datepart('day', {}) - 1) // 7 + 1 AS VARCHAR)",
    "Q": "CAST(datepart('quarter', {}) AS VARCHAR)",
    "CC": "lpad(CAST(datepart('century', {}) AS VARCHAR), 2, '0')",
    "J": "CAST(CAST(datepart('julian', CAST({} AS DATE)) AS BIGINT) AS VARCHAR)",
    "AM": "strftime({}, '%p')",
    "PM": "strftime({}, '%p')",
    "am": "lower(strftime({}, '%p'))",
    "pm": "lower(strftime({}, '%p'))",
    "A.M.": "CASE WHEN datepart('hour', {}) < 12 THEN 'A.M.' ELSE 'P.M.' END",
    "P.M.": "CASE WHEN datepart('hour', {}) < 12 THEN 'A.M.' ELSE 'P.M.' END",
    "TZ": "'UTC'",
    "tz": "'utc'",
    "OF": "'+00'",
    "TZH": "'+00'",
    "TZM": "'00'",
}
_TOKEN = re.compile(
    '"([^"]*)"|(FM|TM)|(' + "|".join(re.escape(name) for name in sorted(_PIECES, key=len, reverse=True)) + ")(TH|th)?",
)


def _moment_to_char(call: Call, value: Value, pattern: str) -> Value:
    parts: list[Value] = []

    def text(piece: str) -> None:
        if piece:
            parts.append(Value(call.prober, quote_text(piece), None, "VARCHAR"))

    at, trimmed = 0, False
    for token in _TOKEN.finditer(_folded(pattern)):
        text(pattern[at : token.start()])
        at = token.end()
        if token[1] is not None:
            text(token[1])
        elif token[2]:
            trimmed = token[2] == "FM"
        else:
            template = _PIECES[token[3]]
            piece = call.build(template, *[value] * template.count("{}"), type="VARCHAR")
            if trimmed:
                piece = call.build("regexp_replace(rtrim({}, ' '), '^0+(\\d)', '\\1')", piece, type="VARCHAR")
                trimmed = False
            if token[4]:
                piece = call.build(
                    "({} || CASE WHEN {} SIMILAR TO '.*1[123]' THEN 'th' WHEN {} LIKE '%1' THEN 'st' "
                    "WHEN {} LIKE '%2' THEN 'nd' WHEN {} LIKE '%3' THEN 'rd' ELSE 'th' END)",
                    *[piece] * 5,
                    type="VARCHAR",
                )
            parts.append(piece)
    text(pattern[at:])
    if not parts:
        return Value(call.prober, "''", None, "VARCHAR")
    return call.build("(" + " || ".join("{}" for _ in parts) + ")", *parts, type="VARCHAR")


def _folded(pattern: str) -> str:
    """`pattern` with `yyyy-mm-dd` written as `YYYY-MM-DD`: only names of months and days tell case apart."""
    numbers = sorted(
        [
            "hh24",
            "hh12",
            "hh",
            "mi",
            "sssss",
            "ss",
            "ms",
            "us",
            "iyyy",
            "iw",
            "id",
            "y,yyy",
            "yyyy",
            "yyy",
            "yy",
            "ddd",
            "dd",
            "ww",
            "cc",
            "mm",
            "fm",
            "q",
        ],
        key=len,
        reverse=True,
    )
    folded = re.compile('"[^"]*"|' + "|".join(map(re.escape, numbers)), re.IGNORECASE)
    return folded.sub(lambda m: m[0] if m[0].startswith('"') else m[0].upper(), pattern)


def _to_char(call: Call) -> Value:
    if len(call.args) != 2 or call.args[1].literal is None:
        raise call.fail("to_char takes a value and a constant pattern")
    value, pattern = call.args[0], call.args[1].literal
    if types.is_number(value.type):
        return number_to_char(call, value, pattern)
    if value.type == "INTERVAL":
        value = call.build("(TIMESTAMP '2000-01-01 00:00:00' + {})", value, type="TIMESTAMP")
    elif value.type == "DATE" or value.literal is not None:
        value = cast(call.prober, value, "TIMESTAMP")
    return _moment_to_char(call, value, pattern)


_PARSE = {
    "YYYY": "%Y", "YY": "%y", "MM": "%m", "DD": "%d", "HH24": "%H", "HH12": "%I", "HH": "%I", "MI": "%M",
    "SS": "%S", "MS": "%g", "US": "%f", "MON": "%b", "MONTH": "%B", "DAY": "%A", "DY": "%a", "DDD": "%j",
    "AM": "%p", "PM": "%p", "TZH": "%z",
}  # fmt: skip
_PARSE_TOKEN = re.compile('"([^"]*)"|(FM)|(' + "|".join(sorted(_PARSE, key=len, reverse=True)) + ")|(.)", re.I | re.S)


def _parse_format(pattern: str) -> str:
    out = []
    for token in _PARSE_TOKEN.finditer(pattern):
        if token[1] is not None:
            out.append(token[1].replace("%", "%%"))
        elif token[3]:
            out.append(_PARSE[token[3].upper()])
        elif token[4]:
            out.append(token[4].replace("%", "%%"))
    return "".join(out)


def _to_timestamp(call: Call) -> Value:
    if len(call.args) == 1:
        value = cast_literal(call.prober, call.args[0], "DOUBLE")
        return call.build("to_timestamp(CAST({} AS DOUBLE))", value, type=_MOMENT)
    if len(call.args) != 2 or call.args[1].literal is None:
        raise call.fail("to_timestamp takes seconds, or a text and a constant pattern")
    pattern = Value(call.prober, quote_text(_parse_format(call.args[1].literal)), None, "VARCHAR")
    return call.build("CAST(strptime({}, {}) AS TIMESTAMP WITH TIME ZONE)", call.args[0], pattern, type=_MOMENT)


def _to_date(call: Call) -> Value:
    if len(call.args) != 2 or call.args[1].literal is None:
        raise call.fail("to_date takes a text and a constant pattern")
    pattern = Value(call.prober, quote_text(_parse_format(call.args[1].literal)), None, "VARCHAR")
    characters = _parsed_characters(call.args[1].literal)
    text = call.args[0]
    if characters is not None:
        text = call.build(f"left({{}}, {characters})", text, type="VARCHAR")
    return call.build("CAST(strptime({}, {}) AS DATE)", text, pattern, type="DATE")


def _parsed_characters(pattern: str) -> int | None:
    """How much of a text the pattern can take, which passes over what follows; None where its parts vary."""
    characters = 0
    for token in _PARSE_TOKEN.finditer(pattern):
        word = (token[3] or "").upper()
        if token[2] or word in ("MONTH", "DAY", "TZH"):
            return None
        characters += {"HH24": 2, "HH12": 2, "MS": 3, "US": 6}.get(word, len(token[1] or word or token[4] or ""))
    return characters


def _date_bin(call: Call) -> Value:
    if len(call.args) != 3:
        raise call.wrong_arguments()
    step = cast_literal(call.prober, call.args[0], "INTERVAL")
    value, origin = (
        cast(call.prober, v, _MOMENT if v.type == _MOMENT else "TIMESTAMP") for v in (call.args[1], call.args[2])
    )
    origin = cast(call.prober, origin, value.type)
    return call.build("time_bucket({}, {}, {})", step, value, origin, type=value.type)


def _refuse(call: Call) -> Value:
    raise call.wrong_arguments()


FUNCTIONS: dict[str, Handler] = {
    "now": fixed("now()", type=_MOMENT),
    "transaction_timestamp": fixed("now()", type=_MOMENT),
    "statement_timestamp": fixed("now()", type=_MOMENT),
    "clock_timestamp": fixed("now()", type=_MOMENT),
    "date_trunc": _date_trunc,
    "extract": _extract,
    "date_part": _extract,
    "age": _age,
    "to_char": _to_char,
    "to_timestamp": _to_timestamp,
    "to_date": _to_date,
    "date_bin": _date_bin,
    "make_date": fixed("make_date({}, {}, {})", type="DATE"),
    "make_time": fixed("make_time({}, {}, {})", type="TIME"),
    "make_timestamp": fixed("make_timestamp({}, {}, {}, {}, {}, {})", type="TIMESTAMP"),
    "make_timestamptz": fixed("make_timestamptz({}, {}, {}, {}, {}, {})", type=_MOMENT),
    "isfinite": fixed("isfinite({})", type="BOOLEAN"),
    "timezone": fixed("timezone({}, {})"),
    "date": lambda call: cast(call.prober, call.args[0], "DATE") if len(call.args) == 1 else _refuse(call),
}
