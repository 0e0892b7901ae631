"""Tables whose older rows lie in Parquet files, as DuckDB reads them: projections and filters reach the files."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tailrace.sql.literals import quote_identifier, quote_text

__all__ = ["FileColumn", "FileRows"]

_GLOB = frozenset("*?[]{}")
"""Characters by which DuckDB takes a path for a pattern, with no way to say that it is none."""

_INTERVAL = (
    "to_microseconds(CASE WHEN starts_with({0}, '-') THEN -1 ELSE 1 END * ("
    "CAST(regexp_extract({0}, 'P(\\d+)D', 1) AS BIGINT) * 86400000000"
    " + CAST(regexp_extract({0}, 'T(\\d+)', 1) AS BIGINT) * 1000000"
    " + CAST(rpad(regexp_extract({0}, '\\.(\\d+)S', 1), 6, '0') AS BIGINT)))"
)
"""`P1DT3.000005S`, with a minus before it where it is negative: DuckDB reads no ISO 8601 durations."""


@dataclass(frozen=True, slots=True)
class FileColumn:
    """A column of a table and where the files have it."""

    name: str
    stored: str
    """The column's name in the files; a file that does not have it is older than the column."""
    cast: str | None = None
    """DuckDB's type that what is stored is cast to; None: it is what the column shows. INTERVAL is read from ISO text."""

    def sql(self, there: Collection[str]) -> str:
        """The column's expression over the files, which have the columns `there`."""
        if self.stored not in there:
            return "NULL"
        stored = f"f.{quote_identifier(self.stored)}"
        if self.cast == "INTERVAL":
            return _INTERVAL.format(stored)
        return f"CAST({stored} AS {self.cast})" if self.cast else stored


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRows:
    """Rows of Parquet files: all but those that later ones have taken the place of."""

    paths: Sequence[Path]
    """Absolute; their rows come in this order."""
    columns: Sequence[FileColumn]
    """In the table's order."""
    id_column: str
    """The stored column of the rows' ids."""
    before: str | None = None
    """Only rows with lesser ids."""
    key: Mapping[str, str] | None = None
    """Column -> the column of `superseding` that it is compared with: rows that agree in all of them are left out."""

    @property
    def can_be_named(self) -> bool:
        """Whether DuckDB can be told to read these files and no others."""
        return not any(_GLOB & set(str(path)) for path in self.paths)

    @property
    def source(self) -> str:
        """The files as DuckDB reads them; those that lack a column have NULL there."""
        paths = ", ".join(quote_text(str(path)) for path in self.paths)
        return f"read_parquet([{paths}], union_by_name = true, hive_partitioning = false)"

    def select(self, there: Collection[str], *, deleted: str | None, superseding: str | None) -> str:
        """The rows; in the files' order where nothing is left out.

        Args:
            there: the columns that the files have.
            deleted: the relation whose column `id` names rows to leave out.
            superseding: the relation whose columns `key` speaks of.
        """
        items = ", ".join(f"{each.sql(there)} AS {quote_identifier(each.name)}" for each in self.columns)
        row_id = f"f.{quote_identifier(self.id_column)}"
        joins = ""
        if deleted is not None:
            joins += f" ANTI JOIN {quote_identifier(deleted)} d ON d.id = {row_id}"
        if superseding is not None and self.key:
            by_name = {each.name: each for each in self.columns}
            equal = " AND ".join(
                f"k.{quote_identifier(theirs)} = {by_name[ours].sql(there)}" for ours, theirs in self.key.items()
            )
            joins += f" ANTI JOIN {quote_identifier(superseding)} k ON {equal}"
        where = f" WHERE {row_id} < {quote_text(self.before)}" if self.before is not None else ""
        return f"SELECT {items} FROM {self.source} f{joins}{where}"  # noqa: S608 (quoted)
