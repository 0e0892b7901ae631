"""PostgreSQL as sqlglot reads it, with every function left under the name that the author gave it.

sqlglot folds functions into its own classes (`ceiling` becomes `Ceil`, `date_part` an `Extract`), which loses the name that
PostgreSQL gives to the output column and brings rewrites of its own. Here only what has a grammar of its own is special;
`tailrace.sql.functions` says what each name means.
"""

from __future__ import annotations

from typing import Any, ClassVar

import sqlglot
from sqlglot import exp
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import SqlglotError
from sqlglot.parsers.postgres import PostgresParser
from sqlglot.tokenizer_core import TokenType

from tailrace.sql.errors import SqlError

__all__ = ["STATEMENT_CHARACTERS_MAX", "fold", "line_of", "parse"]

STATEMENT_CHARACTERS_MAX = 1_000_000
"""Longest statement that is parsed: the parser is Python, at some hundred thousand characters a second."""

_GRAMMATICAL = ("CAST", "EXTRACT", "SUBSTRING", "TRIM", "POSITION", "OVERLAY")


class TailracePostgres(Postgres):
    """PostgreSQL without sqlglot's opinions on functions and JSON paths."""

    INDEX_OFFSET = 0  # sqlglot would count from 0; we pass on what is written

    def to_json_path(self, path: exp.Expr | None) -> exp.Expr | None:
        return path

    class Parser(PostgresParser):
        JSON_OPERATORS: ClassVar[dict[Any, Any]] = {
            **PostgresParser.JSON_OPERATORS,
            TokenType.ARROW: lambda self, this, path: self.expression(exp.JSONExtract(this=this, expression=path)),
            TokenType.DARROW: lambda self, this, path: self.expression(
                exp.JSONExtractScalar(this=this, expression=path)
            ),
        }
        LAMBDAS: ClassVar[dict[Any, Any]] = {}  # `f(j -> 'a')` is JSON, not a lambda
        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS = {  # noqa: RUF012
            name: parser for name, parser in PostgresParser.FUNCTION_PARSERS.items() if name in _GRAMMATICAL
        }
        NO_PAREN_FUNCTION_PARSERS = {  # noqa: RUF012
            name: parser for name, parser in PostgresParser.NO_PAREN_FUNCTION_PARSERS.items() if name in ("ANY", "CASE")
        }


def parse(sql: str) -> exp.Expr:
    """The one statement in `sql`; blanks and `;` at its end do not count.

    Raises:
        SqlError: rejected; no statement, several, too long, or not PostgreSQL's grammar.
    """
    if len(sql) > STATEMENT_CHARACTERS_MAX:
        raise SqlError(f"the statement has {len(sql)} characters, over the limit of {STATEMENT_CHARACTERS_MAX}")
    try:
        found = [tree for tree in sqlglot.parse(sql, read=TailracePostgres) if tree is not None]
    except SqlglotError as error:
        details = getattr(error, "errors", None) or [{}]
        message = str(details[0].get("description") or error).split("\n")[0].rstrip(". ")
        near = details[0].get("highlight")
        text = f'syntax error at or near "{near}": {message}' if near else f"syntax error: {message}"
        raise SqlError(text, line=details[0].get("line")) from error
    except RecursionError as error:
        raise SqlError("the statement is nested too deeply", hint="Split it into common table expressions") from error
    found = [tree for tree in found if not isinstance(tree, exp.Semicolon)]
    if not found:
        raise SqlError("there is no statement", hint="Write one SELECT")
    if len(found) > 1:
        raise SqlError(
            f"there are {len(found)} statements where one is expected",
            line=line_of(found[1]),
            hint="Use one statement a node, or one call each",
        )
    return found[0]


def fold(identifier: exp.Expr | str | None) -> str:
    """The name that PostgreSQL understands: lower case, unless it is quoted."""
    if isinstance(identifier, exp.Identifier):
        return str(identifier.this) if identifier.args.get("quoted") else str(identifier.this).lower()
    if isinstance(identifier, exp.Expr):
        return fold(identifier.this)
    return (identifier or "").lower()


def line_of(node: exp.Expr | None) -> int | None:
    """Line of the first token in `node` that remembers where it stood."""
    if node is None:
        return None
    for part in node.walk():
        if (line := part.meta.get("line")) is not None:
            return int(line)
    return None
