"""SQL without its comments, line for line."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["strip_sql_comments"]

UNCLOSED_TAGS_MAX = 10
"""After so many template tags that are never closed none are looked for: each looks ahead to the end of the text, and
one is enough for a template error."""

_PLAIN = re.compile(r"(?:[^-/'\"$eE{]|[eE](?!'))+")
_DOLLAR = re.compile(r"\$(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?\$")
_LINE_END = re.compile(r"[\r\n]")
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_TEMPLATE_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_TEMPLATE_ENDS = {"{{": re.compile(r"['\"]|}}"), "{%": re.compile(r"['\"]|%}"), "{#": re.compile(r"#}")}
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
    return "".join(_Scanner(sql).parts())


class _Scanner:
    """One pass over a text."""

    def __init__(self, sql: str) -> None:
        self._sql = sql
        self._unclosed_tags = 0

    def parts(self) -> Iterator[str]:
        sql, at = self._sql, 0
        while at < len(sql):
            if plain := _PLAIN.match(sql, at):
                yield plain.group()
                at = plain.end()
            elif sql.startswith("--", at):
                end = _LINE_END.search(sql, at)
                at = end.start() if end else len(sql)
            elif sql.startswith("/*", at):
                end_at = self._block_end(at)
                yield " " + "".join(_LINE_END.findall(sql, at, end_at))
                at = end_at
            else:
                end_at = self._unit_end(at)
                yield sql[at:end_at]
                at = end_at

    def _unit_end(self, at: int) -> int:
        """End of the literal, quoted identifier, template tag or single character that begins at `at`."""
        sql, char = self._sql, self._sql[at]
        if char in "'\"":
            return self._quote_end(at, char, char)
        begins_word = at == 0 or not (sql[at - 1].isalnum() or sql[at - 1] in "_$")
        if char in "eE" and begins_word and sql.startswith("'", at + 1):
            return self._quote_end(at + 1, "'", "E")
        if char == "$" and begins_word and (tag := _DOLLAR.match(sql, at)):
            end = sql.find(tag.group(), tag.end())
            return len(sql) if end < 0 else end + len(tag.group())
        if char == "{":
            return self._template_end(at) or at + 1
        return at + 1

    def _quote_end(self, at: int, quote: str, kind: str) -> int:
        """End of what `quote` opens at `at`. A doubled quote is the end of one literal and the start of the next."""
        stops = _QUOTE_STOPS[kind]
        at += 1
        while stop := stops.search(self._sql, at):
            if stop.group() == quote:
                return stop.end()
            escape = stop.group() == "\\"
            at = stop.end() + 1 if escape else self._template_end(stop.start()) or stop.end()
        return len(self._sql)

    def _template_end(self, at: int) -> int | None:
        """End of the template tag that begins at `at`; None where there is none, or it is never closed."""
        ends = _TEMPLATE_ENDS.get(self._sql[at : at + 2])
        if ends is None or self._unclosed_tags >= UNCLOSED_TAGS_MAX:
            return None
        at += 2
        while end := ends.search(self._sql, at):
            if end.group() not in "'\"":
                return end.end()
            string = _TEMPLATE_STRING.match(self._sql, end.start())
            if string is None:
                break
            at = string.end()
        self._unclosed_tags += 1
        return None

    def _block_end(self, at: int) -> int:
        depth = 0
        for edge in _BLOCK_EDGE.finditer(self._sql, at):
            depth += 1 if edge.group() == "/*" else -1
            if depth == 0:
                return edge.end()
        return len(self._sql)
