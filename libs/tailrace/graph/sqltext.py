"""SQL without its comments, line for line."""

from __future__ import annotations

import re

__all__ = ["strip_sql_comments"]

TEMPLATE_TAG_CHARACTERS_MAX = 2_000
TEMPLATE_COMMENT_CHARACTERS_MAX = 20_000
"""Longest template tag and comment that are known for one. Without a limit, text full of `{{` would take quadratic
time."""

_PLAIN = re.compile(r"(?:[^-/'\"$eE{]|[eE](?!'))+")
_DOLLAR = re.compile(r"\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?\$")
_LINE_END = re.compile(r"[\r\n]")
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_TEMPLATE_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_TEMPLATE_ENDS = {"{{": re.compile(r"['\"]|}}"), "{%": re.compile(r"['\"]|%}")}
_QUOTE_STOPS = {
    "'": re.compile(r"'|{(?=[{%#])"),
    '"': re.compile(r"\"|{(?=[{%#])"),
    "E": re.compile(r"'|\\|{(?=[{%#])"),
}


def strip_sql_comments(sql: str) -> str:
    """`sql` without `-- …` and `/* … */` (which nest, as in PostgreSQL); every line keeps its number.

    Run it before templating: real files begin with comments that hold a literal `{{`. What only looks like a
    comment stays: inside string literals (`'…'`, `E'…'`, `$$…$$`, `$tag$…$tag$`), quoted identifiers and template
    tags. A block comment leaves a space, so that the words around it stay two. What is never closed runs to the end.
    """
    out: list[str] = []
    at = 0
    while at < len(sql):
        if plain := _PLAIN.match(sql, at):
            out.append(plain.group())
            at = plain.end()
            continue
        if sql.startswith("--", at):
            end = _LINE_END.search(sql, at)
            at = end.start() if end else len(sql)
            continue
        if sql.startswith("/*", at):
            end_at = _block_end(sql, at)
            out.append(" " + "".join(_LINE_END.findall(sql, at, end_at)))
            at = end_at
            continue
        end_at = _unit_end(sql, at)
        out.append(sql[at:end_at])
        at = end_at
    return "".join(out)


def _unit_end(sql: str, at: int) -> int:
    """End of the literal, quoted identifier, template tag or single character that begins at `at`."""
    char = sql[at]
    if char in "'\"":
        return _quote_end(sql, at, char, char)
    begins_word = at == 0 or not (sql[at - 1].isalnum() or sql[at - 1] in "_$")
    if char in "eE" and begins_word and sql.startswith("'", at + 1):
        return _quote_end(sql, at + 1, "'", "E")
    if char == "$" and begins_word and (tag := _DOLLAR.match(sql, at)):
        end = sql.find(tag.group(), tag.end())
        return len(sql) if end < 0 else end + len(tag.group())
    if char == "{":
        return _template_end(sql, at) or at + 1
    return at + 1


def _quote_end(sql: str, at: int, quote: str, kind: str) -> int:
    """End of what `quote` opens at `at`. A doubled quote is the end of one literal and the start of the next."""
    stops = _QUOTE_STOPS[kind]
    at += 1
    while stop := stops.search(sql, at):
        if stop.group() == quote:
            return stop.end()
        escape = stop.group() == "\\"
        at = stop.end() + 1 if escape else _template_end(sql, stop.start()) or stop.end()
    return len(sql)


def _template_end(sql: str, at: int) -> int | None:
    """End of the template tag that begins at `at`; None where there is none, or it is never closed."""
    opened = sql[at : at + 2]
    if opened == "{#":
        closed = sql.find("#}", at + 2, at + TEMPLATE_COMMENT_CHARACTERS_MAX)
        return None if closed < 0 else closed + 2
    ends = _TEMPLATE_ENDS.get(opened)
    if ends is None:
        return None
    stop = at + TEMPLATE_TAG_CHARACTERS_MAX
    at += 2
    while end := ends.search(sql, at, stop):
        if end.group() not in "'\"":
            return end.end()
        string = _TEMPLATE_STRING.match(sql, end.start(), stop)
        if string is None:
            return None
        at = string.end()
    return None


def _block_end(sql: str, at: int) -> int:
    depth = 0
    for edge in _BLOCK_EDGE.finditer(sql, at):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(sql)
