"""SQLAlchemy over a `Database`: PostgreSQL's dialect, our driver, read-only."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from sqlalchemy import create_engine, types
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.base import PGCompiler, PGIdentifierPreparer, PGTypeCompiler
from sqlalchemy.engine import Engine
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import NoSuchTableError
from sqlalchemy.pool import StaticPool

from tailrace.sql import dbapi
from tailrace.sql.database import Database

__all__ = ["TailraceDialect", "make_engine"]


class TailraceDialect(DefaultDialect):
    """Writes SQL as for PostgreSQL; asks the server nothing, for there is none."""

    name = "tailrace"
    driver = "tailrace"
    default_paramstyle = "named"
    supports_statement_cache = True
    supports_native_boolean = True
    supports_native_decimal = True
    default_schema_name = "public"
    statement_compiler = PGCompiler
    type_compiler_cls = PGTypeCompiler
    preparer = PGIdentifierPreparer

    @classmethod
    def import_dbapi(cls) -> Any:
        """Our driver's module."""
        return dbapi

    def initialize(self, connection: Any) -> None:
        """Nothing to ask."""

    def do_ping(self, dbapi_connection: Any) -> bool:
        """Always there."""
        return True

    def has_table(self, connection: Any, table_name: str, schema: str | None = None, **_: Any) -> bool:
        """Whether the table is registered."""
        return schema in (None, "public") and _database(connection).resolve(table_name) is not None

    def get_table_names(self, connection: Any, schema: str | None = None, **_: Any) -> list[str]:
        """Names of the registered tables."""
        return sorted(_database(connection).tables)

    def get_columns(self, connection: Any, table_name: str, schema: str | None = None, **_: Any) -> Any:
        """Columns of a registered table."""
        name = _database(connection).resolve(table_name)
        if name is None:
            raise NoSuchTableError(table_name)
        fields = _database(connection).tables[name]
        return [
            {"name": column.name, "type": _type_of(fields.field(column.name).type), "nullable": True, "default": None}
            for column in _database(connection).relation(name).columns
            if not column.hidden
        ]

    def get_view_names(self, connection: Any, schema: str | None = None, **_: Any) -> list[str]:
        """There are none."""
        return []

    def get_pk_constraint(self, connection: Any, table_name: str, schema: str | None = None, **_: Any) -> Any:
        """Keys are not told here."""
        return {"constrained_columns": [], "name": None}

    def _nothing(self, connection: Any, table_name: str, schema: str | None = None, **_: Any) -> Any:
        return []

    get_foreign_keys = get_indexes = get_unique_constraints = get_check_constraints = _nothing

    def get_table_comment(self, connection: Any, table_name: str, schema: str | None = None, **_: Any) -> Any:
        """Tables have none."""
        return {"text": None}


def _database(connection: Any) -> Database:
    driver: dbapi.Connection = connection.connection.dbapi_connection
    return driver.database


def _type_of(kind: pa.DataType) -> types.TypeEngine[Any]:
    if pa.types.is_boolean(kind):
        return types.Boolean()
    if pa.types.is_integer(kind):
        return types.BigInteger()
    if pa.types.is_floating(kind):
        return types.Float()
    if pa.types.is_decimal(kind):
        return types.Numeric(kind.precision, kind.scale)
    if pa.types.is_date(kind):
        return types.Date()
    if pa.types.is_timestamp(kind):
        return types.DateTime(timezone=kind.tz is not None)
    return types.Text()


registry.register("tailrace", __name__, "TailraceDialect")


def make_engine(database: Database) -> Engine:
    """An engine with one connection, to `database`; errors of SQL arrive as SQLAlchemy's, ours in `.orig`."""
    return create_engine("tailrace://", creator=lambda: dbapi.Connection(database), poolclass=StaticPool)
