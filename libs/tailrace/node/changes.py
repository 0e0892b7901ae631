"""SQL statements that change a table, as what the log knows: rows appended, ids deleted, a version begun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tailrace.node.errors import NoVersionError
from tailrace.node.queries import Tables, database_of, named_tables, register, typed
from tailrace.tables import parse_id

if TYPE_CHECKING:
    import pyarrow as pa

    from tailrace.node.session import Session
    from tailrace.node.store import RunStore
    from tailrace.sql import Database

__all__ = ["change", "write_version"]

_ROW_ID = "tailrace:row"
"""Column of the target that tells its rows apart, the run's own too; hidden from `*`."""

_IDS_PER_MESSAGE = 5_000
"""Ids in one `delete` message: about 150 KB, well under what the log takes."""


def change(session: Session, sql: str) -> None:
    """Carry out an INSERT, UPDATE, DELETE, TRUNCATE or CREATE TABLE ... AS as part of the run.

    Raises:
        NoVersionError: rejected; the table to change has no version yet.
        SqlError: rejected; with PostgreSQL's message where there is one.
    """
    from tailrace.sql import SqlError, StatementKind, analyse

    statement = analyse(sql)
    tables = Tables(session)
    target = tables.find(statement.target) if statement.target is not None else None
    if target is None:
        raise SqlError(
            "a statement that changes a table of this app is expected",
            hint="Use read_sql for a SELECT, and name the table by its Table object",
        )
    kind = statement.kind
    if kind is StatementKind.TRUNCATE:
        target.writer.mark("truncate")
        return
    if kind in (StatementKind.UPDATE, StatementKind.DELETE):
        session.flush()  # then all rows have their ids, where nothing forbids it
    with database_of(session) as database:
        for name in named_tables(sql):
            store = tables.find(name)
            if store is target:
                _register_target(database, name, store)
            elif store is not None:
                register(database, name, store)
        if kind is StatementKind.INSERT and target.view() is None:
            result = database.query(statement.tree.expression.sql(dialect="postgres"))
            target.writer.append(typed(_named(result, statement.columns))[1])
            return
        if kind is not StatementKind.CREATE_AS and target.view() is None:
            raise NoVersionError(target.ref.name)
        changes = database.changes(sql, _ROW_ID)
    if kind is StatementKind.CREATE_AS:
        assert changes.inserted is not None
        write_version(target, changes.inserted)
        return
    _delete(target, changes.deleted_ids)
    if changes.inserted is not None and changes.inserted.num_rows:
        fields, rows = typed(changes.inserted)
        known = target.view()
        if known is not None:  # a column of nothing but NULL says nothing about its type
            fields = {name: known.fields.get(name, each) for name, each in fields.items()}
        from tailrace.tables.schema import conform_arrow

        target.writer.append(conform_arrow(rows, fields))


def _named(result: pa.Table, columns: list[str]) -> pa.Table:
    """What the first INSERT adds, under the names that it lists."""
    from tailrace.sql import SqlError

    if not columns:
        return result
    if len(columns) != result.num_columns:
        more = (
            "expressions than target columns"
            if result.num_columns > len(columns)
            else "target columns than expressions"
        )
        raise SqlError(f"INSERT has more {more}")
    return result.rename_columns(columns)


def write_version(store: RunStore, result: pa.Table) -> None:
    """A query's result as a new version of a table; it shows no ids, and keeps the order of its rows.

    Raises:
        SqlError: rejected; two columns have one name, so one of them would be lost.
    """
    from tailrace.sql import SqlError

    names = result.column_names
    double = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if double is not None:
        raise SqlError(f'column "{double}" specified more than once', hint=f'Name one of them: ... as "{double}_2"')
    fields, table = typed(result)
    writer = store.writer
    writer.declare(monotonic_id=None, ordered=True)
    writer.begin(fields)
    writer.append_columns(table, fields)
    writer.finish_version()


def _register_target(database: Database, name: str, store: RunStore) -> None:
    """The table to change, with the ids of all its rows in a hidden column."""
    reader = store.reader(every_id=True)
    if reader is None:
        return  # CREATE TABLE: it is not there yet
    table: Any = reader.table(id_column=_ROW_ID)
    if reader.id_name is not None:
        at = table.column_names.index(_ROW_ID)
        table = table.add_column(at, reader.id_name, table.column(_ROW_ID))
    database.register(name, table, hidden=(_ROW_ID,))


def _delete(store: RunStore, ids: list[str]) -> None:
    lanes: dict[RunStore, list[str]] = {}
    for text in ids:
        lanes.setdefault(store.lane(text), []).append(text)
    for lane, own in lanes.items():
        _delete_in(lane, own)


def _delete_in(store: RunStore, ids: list[str]) -> None:
    _, cut = store.base()
    places = [(text, parse_id(text)) for text in ids]
    own = {(place.offset - cut, place.row) for _, place in places if place.offset >= cut}
    written = [text for text, place in places if place.offset < cut]
    if own:
        store.writer.remove_own(own)
    for start in range(0, len(written), _IDS_PER_MESSAGE):
        store.writer.mark("delete", ids=written[start : start + _IDS_PER_MESSAGE])
