"""Which columns a name can mean at one place of a query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from tailrace.sql.errors import SqlError
from tailrace.sql.literals import quote_identifier

__all__ = ["Column", "Relation", "Scope", "Source", "close_match", "distinct_names"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: the name PostgreSQL knows it by, the one DuckDB does (they differ where names repeat), its type."""

    name: str
    physical: str
    type: str
    hidden: bool = False
    """Not part of `*`."""


@dataclass(frozen=True, slots=True)
class Relation:
    """Something that can stand in FROM: DuckDB's text and the columns."""

    sql: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """A relation under its alias in a FROM clause."""

    alias: str
    columns: tuple[Column, ...]
    scalar: bool = False
    """Made by a function of one column."""

    def find(self, name: str) -> list[Column]:
        """Columns called `name`; where none is, those that differ by case only."""
        return [c for c in self.columns if c.name == name] or [
            c for c in self.columns if c.name.lower() == name.lower()
        ]


@dataclass(slots=True)
class Scope:
    """The sources of one FROM clause, inside the scopes around it."""

    parent: Scope | None = None
    sources: list[Source] = field(default_factory=list)
    merged: dict[str, str] = field(default_factory=dict)
    """Columns that USING made one of two, with their types: they are named without a table."""
    tables: Mapping[str, Relation] = field(default_factory=dict)
    """Common table expressions and tables that FROM may name."""
    windows: dict[str, str] = field(default_factory=dict)

    def child(self) -> Scope:
        """The scope of a subquery."""
        return Scope(parent=self, tables=self.tables)

    def add(self, source: Source, line: int | None) -> None:
        """Put `source` beside the others."""
        if any(other.alias == source.alias for other in self.sources):
            raise SqlError(f'table name "{source.alias}" specified more than once', line=line, hint="Give one an alias")
        self.sources.append(source)

    def column(self, table: str | None, name: str, line: int | None) -> tuple[str, str]:
        """DuckDB's text and type of the column.

        Raises:
            SqlError: rejected; there is none of the name, or several.
        """
        scope: Scope | None = self
        while scope is not None:
            if found := scope._find(table, name, line) or scope._scalar(table, name) or scope._row(table, name):
                return found
            scope = scope.parent
        if table is not None and not self._knows(table):
            raise SqlError(f'missing FROM-clause entry for table "{table}"', line=line)
        full = f"{table}.{name}" if table else f'"{name}"'
        raise SqlError(f"column {full} does not exist", line=line, hint=close_match(name, self._names()))

    def _find(self, table: str | None, name: str, line: int | None) -> tuple[str, str] | None:
        if table is None and name in self.merged:
            return quote_identifier(name), self.merged[name]
        found = [
            (source, column)
            for source in self.sources
            if table is None or source.alias == table
            for column in source.find(name)
        ]
        if not found and table is not None:
            found = [(s, c) for s in self.sources if s.alias.lower() == table.lower() for c in s.find(name)]
        if len(found) > 1:
            raise SqlError(f'column reference "{name}" is ambiguous', line=line, hint="Write the table before it")
        if not found:
            return None
        source, column = found[0]
        return f"{quote_identifier(source.alias)}.{quote_identifier(column.physical)}", column.type

    def _scalar(self, table: str | None, name: str) -> tuple[str, str] | None:
        """The alias of a function in FROM stands for its one column."""
        for source in self.sources:
            if table is None and source.scalar and source.alias == name:
                column = source.columns[0]
                return f"{quote_identifier(source.alias)}.{quote_identifier(column.physical)}", column.type
        return None

    def _row(self, table: str | None, name: str) -> tuple[str, str] | None:
        """An alias where a column is expected stands for its whole row, as in `row_to_json(q)`."""
        for source in self.sources:
            if table is None and source.alias == name and source.columns:
                alias = quote_identifier(name)
                names = [quote_identifier(column.name) for column in source.columns]
                parts = [f"{alias}.{quote_identifier(column.physical)}" for column in source.columns]
                types = [column.type for column in source.columns]
                values = ", ".join(f"{name} := {part}" for name, part in zip(names, parts, strict=True))
                row_type = ", ".join(f"{name} {type}" for name, type in zip(names, types, strict=True))
                return f"struct_pack({values})", f"STRUCT({row_type})"
        return None

    def _knows(self, table: str) -> bool:
        return any(s.alias == table for s in self.sources) or (self.parent is not None and self.parent._knows(table))

    def _names(self) -> list[str]:
        return [c.name for s in self.sources for c in s.columns] + (self.parent._names() if self.parent else [])


def close_match(name: str, names: Iterable[str]) -> str | None:
    """A hint that names the most similar of `names`, if one is."""
    found = get_close_matches(name, sorted(set(names)), n=1)
    return f'Perhaps you meant "{found[0]}"' if found else None


def distinct_names(names: list[str]) -> list[str]:
    """`names`, changed where two would be one for DuckDB, which does not tell case apart."""
    taken = {name.lower() for name in names}
    seen: set[str] = set()
    out = []
    for name in names:
        unique, number = name, 1
        while unique.lower() in seen or (unique != name and unique.lower() in taken):
            unique, number = f"{name}:{number}", number + 1
        seen.add(unique.lower())
        out.append(unique)
    return out
