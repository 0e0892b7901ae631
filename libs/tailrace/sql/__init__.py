"""SQL nodes and SQL from Python: templates in, PostgreSQL's meaning on a locked-down DuckDB, Arrow out."""

from __future__ import annotations

from tailrace.sql.database import JSON_METADATA, Database, DatabaseLimits
from tailrace.sql.errors import SqlError, SqlTemplateError
from tailrace.sql.literals import quote_identifier, sql_literal
from tailrace.sql.statement import Statement, StatementKind, analyse
from tailrace.sql.template import render, render_adhoc

__all__ = [
    "JSON_METADATA",
    "Database",
    "DatabaseLimits",
    "SqlError",
    "SqlTemplateError",
    "Statement",
    "StatementKind",
    "analyse",
    "quote_identifier",
    "render",
    "render_adhoc",
    "sql_literal",
]
