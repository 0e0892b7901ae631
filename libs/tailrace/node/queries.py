"""SQL from Python nodes: which tables a text names, SELECTs over them, and statements that change one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tailrace.node.errors import NoVersionError
from tailrace.node.lake import lake_table
from tailrace.node.reads import Result
from tailrace.tables import VersionView
from tailrace.tables.schema import FieldType, conform_arrow, infer_arrow

if TYPE_CHECKING:
    import pyarrow as pa

    from tailrace.node.session import Session
    from tailrace.node.store import RunStore
    from tailrace.sql import Database

__all__ = [
    "Tables",
    "database_of",
    "execute",
    "named_tables",
    "open_database",
    "register",
    "rendered",
    "select",
    "typed",
]


class Tables:
    """The tables that SQL of this run can name: by physical name, by port, by store."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find(self, name: str) -> RunStore | None:
        """The store that `name` means; None where it means none of ours."""
        session = self._session
        for store in session.stores:
            view = store.view() if store.known or store.writer.holds_rows else None
            if view is not None and view.name == name:
                return store
            if store.is_name_to_come(name):
                return store
        table = session.ports.get(name)
        if table is not None and table._store is not None:
            found: RunStore = table._store
            return found
        by_name = [ref for ref in session.refs if name in (ref.name, ref.key, ref.topic)]
        if by_name:
            return session.store(by_name[0])
        for ref in session.refs:
            if name.startswith(ref.name + "_") and len(name) == len(ref.name) + 11:
                store = session.store(ref)
                if store.view_of(name) is not None:
                    return store
        return None

    def names(self) -> dict[str, str]:
        """Physical name by port and by store, for templates; tables without a version are left out."""
        names = {}
        for port, table in self._session.ports.items():
            view = table._store.view()
            if view is not None:
                names[port] = view.name
            elif table.mode == "w":
                names[port] = table._store.name_to_come()
        return names


def rendered(session: Session, sql: str) -> str:
    """`sql` with `{{ port }}` replaced by physical names."""
    from tailrace.sql import render_adhoc

    sql = str(sql)
    return render_adhoc(sql, Tables(session).names()) if "{" in sql else sql


def named_tables(sql: str) -> list[str]:
    """The names in `sql` that may be tables, once each."""
    from sqlglot import exp

    from tailrace.sql import analyse

    tree = analyse(sql).tree
    return list(dict.fromkeys(table.name for table in tree.find_all(exp.Table) if table.name))


_lock = threading.RLock()
_kept: dict[tuple[Path, ...], Database] = {}
"""Databases that wait for their next statement, by the files that they may read: one without any, and one with."""


@contextmanager
def database_of(session: Session, files: tuple[Path, ...] = ()) -> Iterator[Database]:
    """An empty database that may read `files` and no others, for one statement at a time.

    Opening one takes 30 ms, so a worker keeps its own, and one that may read the files of its last statement over the
    lake. A statement that was broken off from outside (a time limit) takes its database along.
    """
    from tailrace.sql import Database, DatabaseLimits

    with _lock:
        database = _kept.pop(files, None)
        if database is None:
            if files:  # other files than before: the snapshot has moved on
                for others in [each for each in _kept if each]:
                    _kept.pop(others).close()
            limits = DatabaseLimits(memory_bytes_max=max(256 << 20, session.order.memory_bytes_max // 2))
            database = Database(limits, files=files)
        try:
            yield database
            for name in list(database.tables):
                database.unregister(name)
        except Exception:
            for name in list(database.tables):
                database.unregister(name)
            _kept[files] = database
            raise
        except BaseException:
            database.close()
            raise
        _kept[files] = database


@contextmanager
def open_database(session: Session, sql: str) -> Iterator[Database]:
    """A database that holds the tables which `sql` names, as this run sees them, and nothing else."""
    tables = Tables(session)
    views = {}
    for name in named_tables(sql):
        store = tables.find(name)
        if store is not None:
            views[name] = (store, named_view(name, store))
    in_lake = {name: lake_table(store, view) for name, (store, view) in views.items()}
    files = {path: None for table in in_lake.values() if table is not None for path in table.paths}
    with database_of(session, tuple(files)) as database:
        for name, (store, view) in views.items():
            lake = in_lake[name]
            if lake is not None:
                lake.register(database, name)
            else:
                register(database, name, store, view)
        yield database


def named_view(name: str, store: RunStore) -> VersionView:
    """The store's version `name`, or its active one.

    Raises:
        NoVersionError: rejected; nothing was written to it yet.
    """
    view = store.view()
    if view is None or view.name != name:
        named = store.view_of(name) if name.startswith(store.ref.name + "_") else None
        view = named or view
    if view is None:
        raise NoVersionError(store.ref.name)
    return view


def register(database: Database, name: str, store: RunStore, view: VersionView | None = None) -> None:
    """Make the store's version `name` (or its active one) a table of the database, its rows in memory."""
    reader = store.reader(view or named_view(name, store))
    assert reader is not None
    database.register(name, reader.table(id_column=reader.id_name))


def select(session: Session, sql: str) -> Result:
    """The rows of a SELECT.

    Raises:
        NoVersionError: rejected; it names a table that has no version yet.
        SqlError: rejected; with PostgreSQL's message where there is one.
    """
    sql = rendered(session, sql)
    with open_database(session, sql) as database:
        table = database.query(sql)
    fields, table = typed(table)
    return Result(fields, iter([table]))


def typed(table: pa.Table) -> tuple[Mapping[str, FieldType], pa.Table]:
    """A query's result in the Common Model's types. Of columns with one name the last counts, as in a dict."""
    last = {name: at for at, name in enumerate(table.column_names)}
    if len(last) < table.num_columns:
        table = table.select(sorted(last.values()))
    fields = infer_arrow(table)
    return fields, conform_arrow(table, fields)


def execute(session: Session, sql: str) -> None:
    """Carry out a statement that changes one table, as part of the run."""
    from tailrace.node.changes import change

    change(session, rendered(session, sql))
