"""Tables: the data ports of a node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tailrace.node.dummy import Unconnected
from tailrace.node.reads import check_format, read_chunks, read_table
from tailrace.node.schemas import as_schema
from tailrace.node.session import current_session
from tailrace.node.stream import Stream
from tailrace.tables import PATTERNS_ID, VersionView
from tailrace.tables.schema import FieldType, Schema, parse_type

if TYPE_CHECKING:
    from tailrace.node.session import Session
    from tailrace.node.store import RunStore

__all__ = ["Table", "TableVersion"]

_DEFAULT: Any = object()


class TableVersion:
    """One generation of a table's rows. At most one version of a table is active: the one that readers see."""

    def __init__(self, store: RunStore, view: VersionView | None, name: str, schema: Schema | None = None) -> None:
        self._store, self._view, self._name, self._schema = store, view, name, schema

    @property
    def name(self) -> str:
        """The physical name: the store's name and a suffix that grows with time."""
        return self._name

    @property
    def storage(self) -> str:
        """Where the table lives."""
        return "tailrace"

    @property
    def schema(self) -> Schema | None:
        """The version's schema; before the first write the declared one, or None."""
        view = self._current()
        return self._store.schema_of(view) if view else self._schema

    @property
    def record_count(self) -> int | None:
        """Number of rows, None where the version does not exist yet."""
        view = self._current()
        return self._store.count(view) if view else None

    @property
    def exists(self) -> bool:
        """Whether anything has been written to it."""
        return self._current() is not None

    def _current(self) -> VersionView | None:
        now = self._store.view()
        return now if now is not None and now.name == self._name else self._view

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TableVersion) and (self._store.ref.key, self._name) == (
            other._store.ref.key,
            other._name,
        )

    def __hash__(self) -> int:
        return hash((self._store.ref.key, self._name))

    def __repr__(self) -> str:
        return f"<TableVersion {self._name}>"


class Table:
    """A port through which a node reads or writes a table of its app.

    The name is looked up in the node's `inputs` (or `outputs`, for `mode="w"`) in graph.yml, and where it is not
    there, among the stores themselves. A port that leads nowhere does nothing: its methods can be called, give empty
    things, and the run's log says so once. A table in write mode can be read as well, which sees the rows that the
    run has written so far; it does not make the node fire when the table changes.

    Args:
        name: the port's name.
        mode: "r" to read, "w" to write.
        description: for people.
        schema: name of a schema of the graph; without one it is inferred at the first write, or given to `init`.
        required: False marks a port that may be left unconnected.
    """

    def __init__(
        self,
        name: str,
        mode: str = "r",
        description: str | None = None,
        schema: Any = None,
        required: bool = True,
    ) -> None:
        self._session: Session = current_session("Table()")
        self._name = name
        self.mode = mode
        self.description = description
        self.required = required
        ref = self._session.ref(name, mode)
        self._store: RunStore | None = self._session.store(ref) if ref is not None else None
        if self._store is None:
            if required:
                self._session.warn_once(
                    f"Table({name!r}, {mode!r}) is not connected to a store: reads are empty and writes are dropped. "
                    "Add the store to graph.yml, or map the port under the node's inputs or outputs"
                )
            return
        self._session.ports[name] = self
        if schema is not None:
            known = as_schema(schema, self._session.order.schemas, name)
            if known is None:
                self._session.warn_once(f"Table({name!r}): the graph has no schema {schema!r}: it is inferred instead")
            else:
                self._store.writer.declare(schema=known)

    # -- what it is

    @property
    def port_name(self) -> str:
        """The name given in the code."""
        return self._name

    @property
    def is_connected(self) -> bool:
        """Whether the port leads to a store."""
        return self._store is not None

    @property
    def exists(self) -> bool:
        """Whether there is an active version, with what this run has written."""
        return self._store is not None and self._going_on().view() is not None

    @property
    def sql_name(self) -> str | None:
        """The quoted physical name of the current version, for SQL. None in read mode where there is no version; in
        write mode it may name a version that does not exist yet, for `create table`."""
        if self._store is None:
            return None
        store = self._going_on()
        view = store.view()
        if view is not None:
            return _quoted(view.name)
        return _quoted(store.name_to_come()) if self.mode == "w" else None

    @property
    def schema(self) -> Schema | None:
        """The schema of the active version, None where there is none."""
        if self._store is None:
            return None
        view = self._going_on().view()
        return self._store.schema_of(view) if view else None

    @property
    def record_count(self) -> int | None:
        """The number of rows, None where there is no active version."""
        if self._store is None:
            return None
        store = self._going_on()
        view = store.view()
        return store.count(view) if view else None

    def __str__(self) -> str:
        return self.sql_name or ""

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __repr__(self) -> str:
        return f"Table({self._name!r}, {self.mode!r})"

    # -- reading

    def read(self, as_format: str = "records", chunksize: int | None = None, at: Any = None) -> Any:
        """All rows in the order in which they were written.

        Args:
            as_format: "records" for a list of dicts (Json as JSON text, NULL as None), "dataframe" for a DataFrame of
                pandas, "polars" for one of polars, "arrow" for a pyarrow Table.
            chunksize: give an iterator of lists, frames or tables of so many rows instead; the whole is never in memory.
            at: the rows as they were at a moment (a datetime, or ISO text; without a time zone, in UTC), but no later than
                this run's cut, and without what the run has written. All tables that are read at one moment show what
                belongs together: no run's output without its input.

        Raises:
            HostRefusedError: rejected; what lay there at the moment is not kept any more.
            MomentError: rejected; `at` is no moment.
        """
        check_format(as_format)
        return read_table(self._store and self._going_on(), as_format, chunksize, at)

    def read_dataframe(self, chunksize: int | None = None, at: Any = None) -> Any:
        """All rows as a DataFrame, or with `chunksize` as an iterator of DataFrames; `at` as in `read`."""
        return self.read("dataframe", chunksize, at)

    def read_sql(self, sql: str, as_format: str = "records", chunksize: int | None = None) -> Any:
        """The result of a SELECT, in PostgreSQL's dialect, over this table and others of the app.

        Name tables by interpolation (`f"select * from {table}"`), or as a template with the node's ports
        (`"select * from {{ my_table }}"`). The run's own rows are seen too.

        Args:
            as_format: as in `read`.
            chunksize: give an iterator of so many rows instead.

        Raises:
            NoVersionError: rejected; it names a table that nothing was written to yet.
        """
        check_format(as_format)
        if self._store is None:
            return read_table(None, as_format, chunksize)
        from tailrace.node.queries import select

        self._going_on()
        return read_chunks(select(self._session, sql), as_format, chunksize)

    def as_stream(self, order_by: str | None = None, starting_value: Any = None) -> Stream:
        """The rows as a `Stream`: each is handed to this node once, over all its runs.

        Args:
            order_by: field to order by; rows without a value are left out. Without it the order is that of writing
                (`patterns_id`), or that of the field with the role `strictly_monotonic_ordering`, if one was given;
                a table without ids goes by the role `created_ordering`.
            starting_value: where the very first run begins: records whose ordering value is greater than this.

        Raises:
            OrderingError: rejected; without `order_by` nothing orders the rows.
        """
        if self._store is None:
            return Unconnected()  # type: ignore[return-value]
        store = self._going_on()
        cursor = store.cursor(order_by if order_by is not None else store.default_order())
        if starting_value is not None and not cursor.taken and cursor.value is None and cursor.at_beginning:
            cursor.seek(starting_value)
        return Stream(cursor)

    def get_active_version(self) -> TableVersion | None:
        """The active version. Where there is none: None, or in write mode one that does not exist yet, whose schema is
        the declared one."""
        if self._store is None:
            return Unconnected()  # type: ignore[return-value]
        store = self._going_on()
        view = store.view()
        if view is not None:
            return TableVersion(store, view, view.name)
        if self.mode == "w":
            return TableVersion(store, None, store.name_to_come(), store.writer.declared.schema)
        return None

    def has_active_version(self) -> bool:
        """Whether there is an active version."""
        return self.exists

    # -- writing

    def init(
        self,
        schema: Any = None,
        schema_hints: Mapping[str, str] | None = None,
        unique_on: str | list[str] | None = None,
        add_created: str | None = None,
        add_monotonic_id: str | None = _DEFAULT,
        auto_indexes: bool = True,
        **roles: Any,
    ) -> None:
        """Say how versions of this table look; call it before the first write. It holds for versions begun from now on
        (`unique_on` also for upserts into the one that is there).

        Args:
            schema: a Schema, the name of one of the graph, or `{field: type}`.
            schema_hints: `{field: type}`; overrides what would be inferred for these fields.
            unique_on: field or fields of the unique key, for `upsert`.
            add_created: name of a column that is filled with the time of writing (UTC).
            add_monotonic_id: name of the column with the row's id, a text that grows with each row; None: no such
                column, so that streams need an `order_by` or a role that orders. The default is "patterns_id".
            auto_indexes: accepted for compatibility; nothing needs an index here.
            roles: fields by role, such as `strictly_monotonic_ordering="seq"`; what is no role is passed over.
        """
        if self._store is None:
            return
        store = self._going_on()
        changes: dict[str, Any] = {}
        if schema is not None:
            known = as_schema(schema, self._session.order.schemas, self._name)
            if known is None:
                self._session.warn_once(f"Table({self._name!r}): the graph has no schema {schema!r}")
            changes["schema"] = known or store.writer.declared.schema
        if schema_hints:
            changes["hints"] = {**store.writer.declared.hints, **_types(schema_hints)}
        if unique_on is not None:
            changes["unique_on"] = (unique_on,) if isinstance(unique_on, str) else tuple(unique_on)
        if add_created is not None:
            changes["created"] = add_created
        if add_monotonic_id is not _DEFAULT:
            changes["monotonic_id"] = add_monotonic_id
            changes["ordered"] = add_monotonic_id is not None
        given = {role: (names,) if isinstance(names, str) else names for role, names in roles.items()}
        given = {role: tuple(names) for role, names in given.items() if names and isinstance(names, list | tuple)}
        if given:
            changes["roles"] = {**store.writer.declared.roles, **given}
        store.writer.declare(**changes)

    def append(self, records: Any) -> None:
        """Add rows: a dict, a list of dicts, a DataFrame, or an Arrow table.

        Rows may have different keys: what is missing is NULL, what is new becomes a column. Types are inferred where
        none are declared, and columns widen when a value needs it. A record's `patterns_id` is not kept: each row that
        is written gets its own. Nothing happens for empty input.

        Raises:
            RecordsError: rejected; it is nothing that holds records.
            MissingValueError: rejected; a field declared NotNull has no value.
        """
        if self._store is not None:
            if self._session.over:
                self._session.ensure_going_on()
            self._store.writer.append(records)

    def write(self, records: Any, replace: bool = False) -> None:
        """As `append`, or with `replace=True` as `replace`."""
        if replace:
            self.replace(records)
        else:
            self.append(records)

    def upsert(self, records: Any) -> None:
        """Add rows, or take the place of those with the same unique key (`init(unique_on=...)`): the row as a whole, so
        what a record does not name is NULL. A key with NULL in it is like no other.

        Raises:
            AssertionError: no unique key is known.
        """
        if self._store is None:
            return
        writer = self._going_on().writer
        key = writer.key
        if not key:
            raise AssertionError(f"table {self._name!r} has no unique key: call init(unique_on=...) before upsert()")
        writer.append(records, key=key)

    def replace(self, records: Any) -> None:
        """Make a new version of the table with these rows. Readers see the old one until the run is committed, and
        then the new one as a whole."""
        if self._store is None:
            return
        writer = self._going_on().writer
        writer.reset()
        writer.append(records)
        if not writer.resetting:
            writer.finish_version()

    def reset(self) -> None:
        """Leave the active version: the next write begins a new one, which becomes active when the run ends well. A
        run that writes nothing more leaves the table without an active version. Nothing is deleted."""
        if self._store is not None:
            self._going_on().writer.reset()

    def truncate(self) -> None:
        """Delete all rows; the version and its schema stay. This cannot be undone."""
        if self._store is not None:
            self._going_on().writer.mark("truncate")

    def flush(self) -> None:
        """Commit what the run has written so far. While a streamed record is in hand, or a version is not finished,
        nothing is committed; the run itself sees its rows in either case."""
        if self._store is not None:
            self._going_on()
            self._session.flush()

    def execute_sql(self, sql: str) -> None:
        """Run SQL that changes this table: `insert`, `update`, `delete`, `create table ... as`, in PostgreSQL's dialect.
        Changes are committed with the run."""
        if self._store is None:
            return
        from tailrace.node.queries import execute

        self._going_on()
        execute(self._session, sql)

    # -- versions

    def create_new_version(self) -> TableVersion:
        """Begin a version by hand: the run's rows go to it from here on. It becomes the active one by
        `set_active_version`, or when the run ends well."""
        if self._store is None:
            return Unconnected()  # type: ignore[return-value]
        store = self._going_on()
        begun_ms = store.writer.begin()
        return TableVersion(store, None, store.next_version_name(begun_ms), store.writer.declared.schema)

    def set_active_version(self, version: TableVersion) -> None:
        """Make `version` the one that readers see."""
        if self._store is None:
            return
        store = self._going_on()
        view = store.view()
        if view is not None and view.name == version.name:
            store.writer.finish_version()
        else:
            store.activate(version.name)

    def signal_create(self) -> None:
        """Tell readers that the table was created, by code that writes to it in other ways."""
        self._signal("create")

    def signal_update(self) -> None:
        """Tell readers that the table has changed."""
        self._signal("update")

    def signal_reset(self) -> None:
        """Tell readers that the table was reset."""
        self._signal("reset")

    def _signal(self, event: str) -> None:
        if self._store is not None:
            self._going_on().writer.mark("signal", event=event)

    # -- the rest

    def _get_db_api(self) -> Any:
        if self._store is None:
            return Unconnected()
        from tailrace.node.engine import DatabaseApi

        return DatabaseApi(self._session)

    def _going_on(self) -> RunStore:
        self._session.ensure_going_on()
        assert self._store is not None
        return self._store

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows, as `read()` gives them."""
        for chunk in self.read(chunksize=1_000):
            yield from chunk


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _types(hints: Mapping[str, Any]) -> dict[str, FieldType]:
    return {name: kind if isinstance(kind, FieldType) else parse_type(str(kind)) for name, kind in hints.items()}


assert PATTERNS_ID == "patterns_id", "what init() documents as its default"
