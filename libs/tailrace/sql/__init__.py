"""SQL nodes and SQL from Python: templates in, PostgreSQL's meaning on a locked-down DuckDB, Arrow out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tailrace.sql.changes import Changes
from tailrace.sql.database import JSON_METADATA, Database, DatabaseLimits
from tailrace.sql.errors import SqlError, SqlTemplateError
from tailrace.sql.files import FileColumn, FileRows
from tailrace.sql.literals import quote_identifier, sql_literal
from tailrace.sql.statement import Statement, StatementKind, analyse
from tailrace.sql.template import render, render_adhoc

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine


def engine(database: Database) -> Engine:
    """A read-only SQLAlchemy engine over `database`: `engine.connect().execute(text(sql))`.

    SQLAlchemy is imported here, because most nodes never need it.
    """
    from tailrace.sql.alchemy import make_engine

    return make_engine(database)


__all__ = [
    "JSON_METADATA",
    "Changes",
    "Database",
    "DatabaseLimits",
    "FileColumn",
    "FileRows",
    "SqlError",
    "SqlTemplateError",
    "Statement",
    "StatementKind",
    "analyse",
    "engine",
    "quote_identifier",
    "render",
    "render_adhoc",
    "sql_literal",
]
