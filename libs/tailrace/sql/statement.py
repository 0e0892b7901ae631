"""What a statement does, and to which table: known before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlglot import exp

from tailrace.sql.dialect import fold, line_of, parse
from tailrace.sql.errors import SqlError

__all__ = ["Statement", "StatementKind", "analyse"]


class StatementKind(StrEnum):
    """What a statement does."""

    SELECT = "select"
    """Reads, and gives rows."""
    INSERT = "insert"
    """Adds rows to its target."""
    CREATE_AS = "create-as"
    """Makes its target from a query."""
    UPDATE = "update"
    """Changes rows of its target."""
    DELETE = "delete"
    """Takes rows out of its target."""
    TRUNCATE = "truncate"
    """Takes all rows out of its target."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One parsed statement. `target` is the table it changes, None for a SELECT; `sql` is without trailing `;`."""

    kind: StatementKind
    target: str | None
    sql: str
    tree: exp.Expr

    @property
    def columns(self) -> list[str]:
        """The columns that an INSERT lists after its target, [] where it lists none."""
        listed = self.tree.this if isinstance(self.tree, exp.Insert) else None
        if not isinstance(listed, exp.Schema):
            return []
        return [fold(node.this if isinstance(node, exp.Column) else node) for node in listed.expressions]


def analyse(sql: str) -> Statement:
    """What the one statement `sql` does.

    Raises:
        SqlError: rejected; not one statement, or neither a query nor a change of rows.
    """
    tree = parse(sql)
    text = sql.strip().rstrip("; \t\r\n")
    match tree:
        case exp.Select() | exp.SetOperation() | exp.Subquery() | exp.Values():
            if tree.args.get("into"):
                raise SqlError("SELECT INTO is not supported", line=line_of(tree), hint="Use CREATE TABLE … AS SELECT")
            return Statement(StatementKind.SELECT, None, text, tree)
        case exp.Insert():
            return Statement(StatementKind.INSERT, _table(tree.this), text, tree)
        case exp.Update():
            return Statement(StatementKind.UPDATE, _table(tree.this), text, tree)
        case exp.Delete():
            return Statement(StatementKind.DELETE, _table(tree.this), text, tree)
        case exp.TruncateTable() if len(tree.expressions) == 1:
            return Statement(StatementKind.TRUNCATE, _table(tree.expressions[0]), text, tree)
        case exp.Create() if str(tree.args.get("kind")).upper() == "TABLE" and isinstance(
            tree.expression, exp.Select | exp.SetOperation | exp.Subquery | exp.Values
        ):
            return Statement(StatementKind.CREATE_AS, _table(tree.this), text, tree)
        case exp.Create(this=exp.Schema() as table, expression=None) if str(tree.args.get("kind")).upper() == "TABLE":
            return Statement(StatementKind.CREATE_AS, _table(table), text, _without_rows(tree, table))
    words = text.split(None, 2)
    raise SqlError(
        f"{' '.join(words[:2]).upper() if words else 'this'} is not allowed here",
        line=line_of(tree),
        hint="Use SELECT, INSERT, UPDATE, DELETE, TRUNCATE or CREATE TABLE",
    )


def _without_rows(create: exp.Create, table: exp.Schema) -> exp.Create:
    """`CREATE TABLE t (a int, ...)` as one from a query that has these columns and no row. Keys and NOT NULL are left
    out: `Table.init` declares them."""
    columns = []
    for column in table.expressions:
        if not isinstance(column, exp.ColumnDef):
            continue  # a constraint of the table
        if column.kind is None or any(isinstance(c.kind, exp.DefaultColumnConstraint) for c in column.constraints):
            raise SqlError("a column needs a type, and can have no default", line=line_of(column))
        null = exp.Cast(this=exp.Null(), to=column.kind.copy())
        columns.append(exp.alias_(null, exp.to_identifier(fold(column.this), quoted=True)))
    empty = create.copy()
    empty.set("this", table.this.copy())
    empty.set("expression", exp.Select(expressions=columns).where(exp.false()))
    return empty


def _table(node: exp.Expr | None) -> str:
    if isinstance(node, exp.Schema):
        node = node.this
    if not isinstance(node, exp.Table) or not isinstance(node.this, exp.Identifier):
        raise SqlError("the statement has no table to change", line=line_of(node))
    if node.args.get("db") or node.args.get("catalog"):
        raise SqlError(
            f"{fold(node.args.get('db'))}.{fold(node.this)}: tables are not in a schema",
            line=line_of(node),
            hint="Name the table alone, in double quotes",
        )
    return fold(node.this)
