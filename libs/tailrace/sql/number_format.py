"""`to_char` of numbers."""

from __future__ import annotations

import re

from tailrace.sql.casts import to_numeric
from tailrace.sql.functions import Call
from tailrace.sql.value import Value

__all__ = ["number_to_char"]

_PATTERN = re.compile(r"(FM)?(S|MI)?(\$)?([09,G]*)(?:([.D])([09]*))?(%)?(MI|S|PR)?$", re.IGNORECASE)


def number_to_char(call: Call, value: Value, pattern: str) -> Value:
    """`value` after a pattern of `9 0 , . FM S MI $ %`.

    Raises:
        SqlError: rejected; the pattern has more than that.
    """
    found = _PATTERN.fullmatch(pattern.strip())
    if not found:
        raise call.fail(f'to_char pattern "{pattern}" is not supported for numbers', "Use 9, 0, comma, point and FM")
    trimmed, sign_first, dollar, whole, point, fraction, percent, sign_last = found.groups()
    whole, fraction = whole.upper().replace("G", ","), fraction or ""
    places = len(fraction)
    digits = len(whole.replace(",", ""))
    number = call.build(f"round({{}}, {places})", to_numeric(call.prober, value))
    number = call.build(f"CAST({{}} AS DECIMAL(38,{places}))", number, type=f"DECIMAL(38,{places})")
    size = call.build("abs({})", number)
    text = call.build("CAST({} AS VARCHAR)", size, type="VARCHAR")
    front = call.build("split_part({}, '.', 1)", text, type="VARCHAR")
    zeros = len(whole.replace(",", "")) - whole.replace(",", "").find("0") if "0" in whole else 0
    # Without a 0 in front of the point, PostgreSQL writes .50; with no digit behind it, 0 stays.
    if "0" not in whole and places:
        front = call.build("CASE WHEN {} = '0' THEN '' ELSE {} END", front, front, type="VARCHAR")
    overflow = call.build(f"(length({{}}) > {digits})", front, type="BOOLEAN")
    if zeros:
        front = call.build(
            f"lpad({{}}, CAST(greatest({zeros}, length({{}})) AS INTEGER), '0')", front, front, type="VARCHAR"
        )
    if "," in whole:
        front = call.build("pg_group_digits({})", front, type="VARCHAR")
    back = call.build("('.' || split_part({}, '.', 2))", text, type="VARCHAR") if places else None
    if back is not None and trimmed:
        kept = fraction.rfind("0") + 1
        digits_behind = call.build("rtrim(split_part({}, '.', 2), '0')", text, type="VARCHAR")
        back = call.build(
            f"('.' || rpad({{}}, CAST(greatest({kept}, length({{}})) AS INTEGER), '0'))",
            digits_behind,
            digits_behind,
            type="VARCHAR",
        )
    elif point and back is None:
        back = Value(call.prober, "'.'", None, "VARCHAR")
    body = call.build("({} || {})", front, back, type="VARCHAR") if back is not None else front
    if dollar:
        body = call.build("('$' || {})", body, type="VARCHAR")
    signs = (sign_first or sign_last or "").upper()
    minus = "CASE WHEN {} < 0 THEN '-' ELSE " + ("'+'" if signs == "S" else ("''" if trimmed else "' '")) + " END"
    sign = call.build(minus, number, type="VARCHAR")
    if sign_last and signs in ("S", "MI"):
        signed = call.build("({} || {})", body, sign, type="VARCHAR")
    elif signs == "PR":
        signed = call.build("CASE WHEN {} < 0 THEN '<' || {} || '>' ELSE {} END", number, body, body, type="VARCHAR")
    else:
        signed = call.build("({} || {})", sign, body, type="VARCHAR")
    width = len(whole) + (1 + places if point else 0) + (1 if dollar else 0) + 1
    if not trimmed:
        signed = call.build(
            f"lpad({{}}, CAST(greatest({width}, length({{}})) AS INTEGER), ' ')", signed, signed, type="VARCHAR"
        )
    if percent:
        signed = call.build("({} || '%')", signed, type="VARCHAR")
    hashes = "'" + ("" if trimmed else " ") + re.sub("[09]", "#", whole) + ("." + "#" * places if point else "") + "'"
    return call.build(f"CASE WHEN {{}} THEN {hashes} ELSE {{}} END", overflow, signed, type="VARCHAR")
