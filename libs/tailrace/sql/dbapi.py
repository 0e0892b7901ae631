"""The driver (PEP 249) that SQLAlchemy speaks to: read-only, over one `Database`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from tailrace.sql.database import Database
from tailrace.sql.errors import SqlError

__all__ = [
    "Connection",
    "Cursor",
    "DatabaseError",
    "Error",
    "InterfaceError",
    "ProgrammingError",
    "apilevel",
    "paramstyle",
    "threadsafety",
]

apilevel = "2.0"
threadsafety = 1
paramstyle = "named"


BATCH_ROWS = 10_000
"""Rows that are Python objects at a time."""


class Error(Exception):
    """Any error of the driver."""


class InterfaceError(Error):
    """The driver was used in a way that it does not offer."""


class DatabaseError(Error):
    """The database refused."""


class ProgrammingError(DatabaseError):
    """The statement is wrong; its text is that of the `SqlError`, which is the cause."""


class Connection:
    """A connection to a `Database`, which somebody else closes."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def cursor(self) -> Cursor:
        """A new cursor."""
        return Cursor(self.database)

    def commit(self) -> None:
        """Nothing: it is read-only."""

    def rollback(self) -> None:
        """Nothing: it is read-only."""

    def close(self) -> None:
        """Nothing: the database stays open."""


class Cursor:
    """One statement and its rows."""

    arraysize = 1

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows: Iterator[tuple[Any, ...]] = iter(())
        self.description: list[tuple[Any, ...]] | None = None
        self.rowcount = -1

    def execute(self, operation: str, parameters: Mapping[str, object] | Sequence[object] | None = None) -> Cursor:
        """Run a SELECT; `:name` in it stands for a parameter."""
        if parameters and not isinstance(parameters, Mapping):
            raise InterfaceError("parameters are a mapping: the style is :name")
        try:
            table = self._database.query(operation, dict(parameters) if isinstance(parameters, Mapping) else None)
        except SqlError as error:
            raise ProgrammingError(str(error)) from error
        self.description = [(field.name, str(field.type), None, None, None, None, None) for field in table.schema]
        self.rowcount = table.num_rows
        self._rows = (
            row
            for batch in table.to_batches(max_chunksize=BATCH_ROWS)
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)
        )
        return self

    def executemany(self, operation: str, parameters: Sequence[Any]) -> Cursor:
        """Refused: it is read-only."""
        raise InterfaceError("this connection reads only: write through Table.append or Table.execute_sql")

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, None after the last."""
        return next(self._rows, None)

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """The next `size` rows."""
        return list(islice(self._rows, size or self.arraysize))

    def fetchall(self) -> list[tuple[Any, ...]]:
        """The rows that are left."""
        return list(self._rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._rows

    def setinputsizes(self, *_: Any) -> None:
        """Nothing."""

    def setoutputsize(self, *_: Any) -> None:
        """Nothing."""

    def close(self) -> None:
        """Forget the rows."""
        self._rows = iter(())
