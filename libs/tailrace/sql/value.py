"""Translated expressions: DuckDB text together with a way to learn its type from DuckDB itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

__all__ = ["Prober", "Value"]

_HOLE = re.compile(r"\{\}")


class Value:
    """One expression in DuckDB's SQL.

    `probe` is the same expression with each column replaced by a NULL of its type, so that its type can be asked
    for outside the query. `literal` is the text of a string constant that has no type yet, as PostgreSQL sees it.
    """

    __slots__ = ("_prober", "_type", "literal", "probe", "sql")

    def __init__(
        self, prober: Prober, sql: str, probe: str | None = None, type: str | None = None, literal: str | None = None
    ) -> None:
        self._prober, self.sql, self._type, self.literal = prober, sql, type, literal
        self.probe = sql if probe is None else probe

    @property
    def type(self) -> str:
        """DuckDB's name of the type."""
        if self._type is None:
            self._type = self._prober.type_of(self.probe)
        return self._type

    @property
    def small_probe(self) -> str:
        """A probe of constant length where the type is known."""
        if self._type is None or self.literal is not None or len(self.probe) < 40:
            return self.probe
        return null_of(self._type)


def null_of(type: str) -> str:
    """A NULL of `type`."""
    return "NULL" if type == '"NULL"' else f"CAST(NULL AS {type})"


class Prober:
    """Learns types by describing queries without rows.

    Args:
        describe: answers DuckDB's name of the type of the one column of a query without tables.
    """

    def __init__(self, describe: Callable[[str], str]) -> None:
        self._describe = lru_cache(maxsize=4096)(describe)

    def type_of(self, probe: str) -> str:
        """Type of the expression `probe`."""
        return self._describe(f"SELECT {probe}")

    def union_type(self, types: list[str]) -> str:
        """The type that a set operation over columns of `types` has."""
        if len(set(types)) == 1:
            return types[0]
        return self._describe(" UNION ALL ".join(f"SELECT {null_of(type)}" for type in types))

    def build(self, template: str, *parts: Value, type: str | None = None) -> Value:
        """`template` with each `{}` replaced by the next of `parts`."""
        return Value(
            self, _fill(template, [part.sql for part in parts]), _fill(template, [p.small_probe for p in parts]), type
        )


def _fill(template: str, texts: list[str]) -> str:
    rest = iter(texts)
    filled = _HOLE.sub(lambda _: next(rest), template)
    assert next(rest, None) is None, template
    return filled
