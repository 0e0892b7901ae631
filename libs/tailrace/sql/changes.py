"""What a statement would change in a Table, computed and not carried out: a Table is changed through the log alone.

An INSERT is the rows that it adds. A DELETE is the ids of the rows that go. An UPDATE is both: the ids of the rows it
touches, and those rows as they are afterwards, to be appended again. CREATE TABLE … AS is the rows of a new version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
from sqlglot import exp

from tailrace.sql.casts import cast
from tailrace.sql.dialect import fold, line_of
from tailrace.sql.errors import SqlError
from tailrace.sql.literals import quote_identifier
from tailrace.sql.query import QueryTranslator
from tailrace.sql.scope import Column, Relation, close_match
from tailrace.sql.statement import Statement, StatementKind, analyse
from tailrace.sql.value import Value, null_of

if TYPE_CHECKING:
    from tailrace.sql.database import Database

__all__ = ["Changes", "compute_changes"]


@dataclass(frozen=True, slots=True)
class Changes:
    """What one statement does to the rows of `target`: first `deleted_ids` go, then `inserted` is appended.

    A TRUNCATE names no ids: all rows go. A CREATE AS begins a new version with `inserted`.
    """

    kind: StatementKind
    target: str
    inserted: pa.Table | None
    """Rows to append, in order, without the id column; None where the statement adds none."""

    deleted_ids: list[str]
    """Values of the id column as text, each once."""


def compute_changes(
    database: Database, sql: str, id_column: str, parameters: Mapping[str, object] | None = None
) -> Changes:
    """See `Database.changes`."""
    statement = analyse(sql)
    if statement.kind is StatementKind.SELECT or statement.target is None:
        raise SqlError("a statement that changes a table is expected, not a SELECT", hint="Use read_sql to read")
    for clause, words in (("returning", "RETURNING"), ("conflict", "ON CONFLICT"), ("order", "ORDER BY")):
        if statement.tree.args.get(clause):
            raise SqlError(f"{words} is not supported here", line=line_of(statement.tree), hint="Leave it out")
    if statement.kind is StatementKind.TRUNCATE:
        return Changes(statement.kind, statement.target, None, [])
    work = _Work(database, statement, id_column, database.translator(parameters))
    steps = {
        StatementKind.INSERT: work.insert,
        StatementKind.CREATE_AS: work.create_as,
        StatementKind.DELETE: work.delete,
        StatementKind.UPDATE: work.update,
    }
    try:
        return steps[statement.kind]()
    except RecursionError as error:
        raise SqlError("the statement is nested too deeply", hint="Split it into common table expressions") from error


class _Work:
    """One statement on its way to `Changes`."""

    def __init__(self, database: Database, statement: Statement, id_column: str, translator: QueryTranslator) -> None:
        assert statement.target is not None
        self._database, self._tree, self._translator = database, statement.tree, translator
        self._kind, self._id = statement.kind, id_column
        self._target = database.resolve(statement.target) or statement.target

    def create_as(self) -> Changes:
        relation = self._query(self._tree.expression)
        names = [column.name for column in relation.columns]
        for name in names:
            if names.count(name) > 1:
                raise SqlError(
                    f'column "{name}" specified more than once', line=line_of(self._tree), hint="Name it with AS"
                )
        return Changes(self._kind, self._target, self._database.run(self._database.final(relation)), [])

    def insert(self) -> Changes:
        columns = self._columns()
        if self._tree.args.get("default"):
            raise SqlError("INSERT … DEFAULT VALUES is not supported", line=line_of(self._tree))
        if isinstance(self._tree.this, exp.Schema):
            columns = [self._column(node, columns) for node in self._tree.this.expressions]
        relation = self._query(self._tree.expression)
        if len(relation.columns) > len(columns):
            raise SqlError("INSERT has more expressions than target columns", line=line_of(self._tree))
        if isinstance(self._tree.this, exp.Schema) and len(relation.columns) < len(columns):
            raise SqlError("INSERT has more target columns than expressions", line=line_of(self._tree))
        rows = self._database.run(self._cast(relation, columns[: len(relation.columns)]))
        return Changes(self._kind, self._target, self._without_id(rows), [])

    def delete(self) -> Changes:
        using = [exp.Join(this=table) for table in self._tree.args.get("using") or []]
        relation = self._query(self._select([self._id_node()], using))
        return Changes(self._kind, self._target, None, _unique(self._database.run(relation)))

    def update(self) -> Changes:
        columns = self._columns()
        new: dict[str, exp.Expr] = {column.name: self._of_target(column.name) for column in columns}
        for target, value in self._assignments():
            column = self._column(target, columns)
            if column.name == self._id:
                raise SqlError(f'column "{self._id}" cannot be changed', line=line_of(target))
            is_default = isinstance(value, exp.Column) and fold(value.this) == "default"
            new[column.name] = exp.Null() if is_default else value
        columns = [column for column in columns if column.name != self._id]
        source = self._tree.args.get("from_")
        joins = [exp.Join(this=source.this), *(source.this.args.pop("joins", None) or [])] if source else []
        items = [self._id_node(), *(new[column.name] for column in columns)]
        relation = self._query(self._select(items, joins))
        identity = replace(relation.columns[0], name=self._id)
        rows = self._database.run(self._cast(relation, [identity, *columns]))
        first: dict[str, int] = {}
        for number, identity_of_row in enumerate(rows.column(0).to_pylist()):
            first.setdefault(str(identity_of_row), number)
        if len(first) < rows.num_rows:  # several rows of FROM matched: like PostgreSQL, one of them counts
            rows = rows.take(pa.array(first.values(), pa.int64()))
        return Changes(self._kind, self._target, rows.remove_column(0), list(first))

    # Pieces

    def _query(self, node: exp.Expr | None) -> Relation:
        if node is None:
            raise SqlError("the statement has no rows", line=line_of(self._tree))
        clause = self._tree.args.get("with_")
        if clause is not None and node is not self._tree:
            if node.args.get("with_"):
                raise SqlError("two WITH clauses are not supported", line=line_of(node))
            node.set("with_", clause)
        return self._translator.query(node, self._translator.root())

    def _select(self, items: Sequence[exp.Expr], joins: Sequence[exp.Expr]) -> exp.Select:
        return exp.Select(
            expressions=list(items),
            from_=exp.From(this=self._tree.this),
            joins=list(joins),
            where=self._tree.args.get("where"),
        )

    def _of_target(self, name: str) -> exp.Column:
        table = self._tree.this
        alias = fold(table.args["alias"].this) if table.args.get("alias") else fold(table.this)
        return exp.Column(this=exp.Identifier(this=name, quoted=True), table=exp.Identifier(this=alias, quoted=True))

    def _id_node(self) -> exp.Column:
        if not any(column.name == self._id for column in self._database.relation(self._target).columns):
            raise SqlError(f'table "{self._target}" has no column "{self._id}" that tells its rows apart')
        return self._of_target(self._id)

    def _columns(self) -> list[Column]:
        return [column for column in self._database.relation(self._target).columns if not column.hidden]

    def _column(self, node: exp.Expr, columns: list[Column]) -> Column:
        name = fold(node.this if isinstance(node, exp.Column) else node)
        found = [column for column in columns if column.name == name] or [
            column for column in columns if column.name.lower() == name.lower()
        ]
        if not found:
            raise SqlError(
                f'column "{name}" of relation "{self._target}" does not exist',
                line=line_of(node),
                hint=close_match(name, [column.name for column in columns]),
            )
        return found[0]

    def _assignments(self) -> list[tuple[exp.Expr, exp.Expr]]:
        pairs: list[tuple[exp.Expr, exp.Expr]] = []
        for item in self._tree.expressions:
            left, right = item.this, item.expression
            if not isinstance(left, exp.Tuple):
                pairs.append((left, right))
            elif isinstance(right, exp.Tuple) and len(left.expressions) == len(right.expressions):
                pairs += zip(left.expressions, right.expressions, strict=True)
            else:
                raise SqlError("SET (…) = takes as many values in parentheses", line=line_of(item))
        return pairs

    def _cast(self, relation: Relation, columns: list[Column]) -> Relation:
        """`relation` with the names and types of `columns`."""
        prober = self._translator.prober
        items = []
        for given, wanted in zip(relation.columns, columns, strict=True):
            value = Value(prober, quote_identifier(given.physical), null_of(given.type), given.type)
            items.append(f"{cast(prober, value, wanted.type).sql} AS {quote_identifier(wanted.name)}")
        named = tuple(replace(column, physical=column.name, hidden=False) for column in columns)
        return Relation(f"SELECT {', '.join(items)} FROM ({relation.sql})", named)  # noqa: S608 (translated)

    def _without_id(self, rows: pa.Table) -> pa.Table:
        """The rows without ids of their own: each row gets a new one when it is appended."""
        return rows.drop_columns([self._id]) if self._id in rows.schema.names else rows


def _unique(rows: pa.Table) -> list[str]:
    return list(dict.fromkeys(map(str, rows.column(0).to_pylist())))
