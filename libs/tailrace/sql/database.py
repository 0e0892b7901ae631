"""One in-memory DuckDB over the Tables of a run, locked down before the first statement of a user."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from tailrace.sql.errors import SqlError
from tailrace.sql.files import FileRows
from tailrace.sql.literals import quote_identifier, quote_text
from tailrace.sql.macros import MACROS
from tailrace.sql.query import QueryTranslator
from tailrace.sql.scope import Column, Relation, distinct_names
from tailrace.sql.statement import StatementKind, analyse
from tailrace.sql.value import Prober

if TYPE_CHECKING:
    from tailrace.sql.changes import Changes

__all__ = ["JSON_METADATA", "Database", "DatabaseLimits"]

JSON_METADATA = {b"tailrace.type": b"Json"}
"""Metadata of an Arrow text field that holds JSON, in and out."""

BATCH_ROWS_MAX = 65_536
"""Rows in one batch of a streamed result, unless the caller says less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseLimits:
    """Bounds of one database."""

    memory_bytes_max: int = 512 << 20
    """Most memory that DuckDB takes: beyond it a query spills to `temp_directory`, or fails without one."""

    threads: int = 2
    """Threads of one query, this process's own included."""

    temp_directory: Path | None = None
    """Where large queries spill to; None keeps everything in memory."""

    temp_bytes_max: int = 8 << 30
    """Most that spills: a runaway join must not fill the disk."""


class _Stream:
    """Batches of a running query."""

    def __init__(self, reader: pa.RecordBatchReader) -> None:
        self._reader: pa.RecordBatchReader | None = reader
        self._kept: deque[pa.RecordBatch] = deque()
        self._error: SqlError | None = None

    def settle(self) -> None:
        """Read to the end; an error comes when its place is reached."""
        while (batch := self._read()) is not None:
            self._kept.append(batch)

    def _read(self) -> pa.RecordBatch | None:
        if self._reader is None:
            return None
        try:
            batch: pa.RecordBatch = self._reader.read_next_batch()
        except StopIteration:
            self._reader = None
            return None
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            self._reader, self._error = None, SqlError(_message(error))
            return None
        return batch

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while True:
            batch = self._kept.popleft() if self._kept else self._read()
            if batch is None:
                if self._error is not None:
                    raise self._error
                return
            yield batch


class Database:
    """Tables in, PostgreSQL's SQL over them, Arrow out.

    SQL reaches the registered tables and nothing else: no file (but those of tables that lie in files), network, extension, setting or catalogue. Every name in a
    statement is resolved by us against the registered tables and an explicit list of functions; DuckDB is locked
    down as well, so that a mistake of ours there finds a closed door.

    Not thread-safe: one statement at a time. `interrupt` may be called from any thread.
    """

    def __init__(self, limits: DatabaseLimits | None = None, *, files: Sequence[Path] = ()) -> None:
        """`files` are the only ones on the disk that it can ever read (absolute paths), for `register_files`."""
        self._connection = _locked_connection(limits or DatabaseLimits(), files)
        self._relations: dict[str, Relation] = {}
        self._schemas: dict[str, pa.Schema] = {}
        self._prober = Prober(self._describe)
        self._stream: _Stream | None = None

    def close(self) -> None:
        """Free the memory; later calls fail."""
        self._connection.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def interrupt(self) -> None:
        """End the running statement with an error."""
        self._connection.interrupt()

    @property
    def tables(self) -> Mapping[str, pa.Schema]:
        """Schema of each registered table by its physical name."""
        return self._schemas

    def register(self, name: str, source: Any, *, hidden: tuple[str, ...] = ()) -> None:
        """Make `source` the table `name`, in its row order; an earlier one of the name is replaced. A column whose
        name is empty is left out of a pyarrow Table: SQL has no way to name it.

        Args:
            source: a pyarrow Table, RecordBatch, Dataset, or RecordBatchReader (which is read to its end now).
                Text fields with the metadata `tailrace.type: Json` are JSON columns.
            hidden: columns that `*` leaves out, but which can be named.

        Raises:
            SqlError: rejected; two columns of a dataset differ by case alone, or a type cannot be held.
        """
        if isinstance(source, pa.RecordBatchReader):
            source = source.read_all()
        elif isinstance(source, pa.RecordBatch):
            source = pa.Table.from_batches([source])
        if isinstance(source, pa.Table) and "" in source.column_names:
            source = source.drop_columns([""])
        schema: pa.Schema = source.schema
        names = list(schema.names)
        if isinstance(source, pa.Table):
            source = source.rename_columns(distinct_names(names))
        folded = [column.lower() for column in source.schema.names]
        if len(set(folded)) != len(folded):
            twice = sorted({column for column in names if folded.count(column.lower()) > 1})
            raise SqlError(f"columns {', '.join(twice)} of table {name} differ by case alone", hint="Rename one")
        self._settle()
        self.unregister(name)
        internal = f"arrow:{name}"
        items = []
        for field in source.schema:
            column = quote_identifier(field.name)
            as_json = (field.metadata or {}).get(b"tailrace.type") == b"Json"
            items.append(f"CAST({column} AS JSON) AS {column}" if as_json else column)
        try:
            self._connection.register(internal, source)
            if items:
                select = f"SELECT {', '.join(items)} FROM {quote_identifier(internal)}"  # noqa: S608 (quoted)
                self._connection.execute(f"CREATE OR REPLACE TEMP VIEW {quote_identifier(name)} AS {select}")
                described = self._connection.execute(f"DESCRIBE {quote_identifier(name)}").fetchall()
            else:
                described = []
        except duckdb.Error as error:
            raise SqlError(f"table {name} cannot be read: {_message(error)}") from error
        columns = tuple(
            Column(column, row[0], row[1], column in hidden) for column, row in zip(names, described, strict=True)
        )
        self._relations[name] = Relation(quote_identifier(name), columns)
        self._schemas[name] = schema

    def register_files(
        self,
        name: str,
        rows: FileRows,
        tail: pa.Table,
        *,
        deleted: pa.Table | None = None,
        superseding: pa.Table | None = None,
    ) -> None:
        """Make the rows of files, and after them those of `tail`, the table `name`. Nothing is read before a query asks.

        Args:
            tail: the columns of `rows` in the same order, in the types that the table shows.
            deleted: a column `id` with the ids of rows of the files that are left out.
            superseding: see `FileRows.key`.

        Raises:
            SqlError: rejected; a file is none of those that this database may read, or as for `register`.
        """
        self.register(name, tail)
        newer = f"newer:{name}"
        try:
            described = self._connection.execute(f"DESCRIBE SELECT * FROM {rows.source}").fetchall()  # noqa: S608
            there = {row[0] for row in described}
            for kind, table in (("deleted", deleted), ("superseding", superseding)):
                if table is not None:
                    self._connection.register(f"{kind}:{name}", table)
            older = rows.select(
                there,
                deleted=f"deleted:{name}" if deleted is not None else None,
                superseding=f"superseding:{name}" if superseding is not None else None,
            )
            self._connection.execute(f"ALTER VIEW {quote_identifier(name)} RENAME TO {quote_identifier(newer)}")
            union = f"{older} UNION ALL SELECT * FROM {quote_identifier(newer)}"  # noqa: S608
            self._connection.execute(f"CREATE TEMP VIEW {quote_identifier(name)} AS {union}")
            described = self._connection.execute(f"DESCRIBE {quote_identifier(name)}").fetchall()
        except duckdb.Error as error:
            raise SqlError(f"table {name} cannot be read: {_message(error)}") from error
        columns = tuple(Column(row[0], row[0], row[1]) for row in described)
        self._relations[name] = Relation(quote_identifier(name), columns)

    def register_union(self, name: str, parts: Sequence[str]) -> None:
        """Make the rows of the registered tables `parts`, which have the same columns, one after the other the table
        `name`.

        Raises:
            SqlError: rejected; their columns are not the same.
        """
        self.unregister(name)
        union = " UNION ALL ".join(f"SELECT * FROM {quote_identifier(part)}" for part in parts)  # noqa: S608 (quoted)
        try:
            self._connection.execute(f"CREATE TEMP VIEW {quote_identifier(name)} AS {union}")
        except duckdb.Error as error:
            raise SqlError(f"table {name} cannot be read: {_message(error)}") from error
        self._relations[name] = Relation(quote_identifier(name), self._relations[parts[0]].columns)
        self._schemas[name] = self._schemas[parts[0]]

    def unregister(self, name: str) -> None:
        """Forget the table `name`, if there is one."""
        if self._relations.pop(name, None) is not None:
            self._settle()
            del self._schemas[name]
            for view in (name, f"newer:{name}"):
                self._connection.execute(f"DROP VIEW IF EXISTS {quote_identifier(view)}")
            for kind in ("arrow", "deleted", "superseding"):
                self._connection.unregister(f"{kind}:{name}")

    def translate(self, sql: str, parameters: Mapping[str, object] | None = None) -> Relation:
        """The SELECT `sql` in DuckDB's SQL, with its columns as PostgreSQL names and types them.

        Raises:
            SqlError: rejected; not a SELECT over the registered tables.
        """
        statement = analyse(sql)
        if statement.kind is not StatementKind.SELECT:
            raise SqlError(
                f"a SELECT is expected, not {statement.kind}",
                hint="Changes go through execute_sql or a table in mode w",
            )
        translator = self.translator(parameters)
        try:
            return self.final(translator.query(statement.tree, translator.root()))
        except RecursionError as error:
            raise SqlError(
                "the statement is nested too deeply", hint="Split it into common table expressions"
            ) from error

    def translator(self, parameters: Mapping[str, object] | None = None) -> QueryTranslator:
        """Translates queries over the registered tables."""
        return QueryTranslator(self._prober, self._relations, parameters)

    def relation(self, name: str) -> Relation:
        """The registered table `name`.

        Raises:
            SqlError: rejected; there is none.
        """
        try:
            return self._relations[name]
        except KeyError:
            raise SqlError(f'relation "{name}" does not exist') from None

    def resolve(self, name: str) -> str | None:
        """The registered table that `name` means: itself, else the one that differs by case alone."""
        if name in self._relations:
            return name
        found = [known for known in self._relations if known.lower() == name.lower()]
        return found[0] if len(found) == 1 else None

    def changes(self, sql: str, id_column: str, parameters: Mapping[str, object] | None = None) -> Changes:
        """What the INSERT, UPDATE, DELETE, TRUNCATE or CREATE TABLE … AS `sql` would do; nothing is done.

        Args:
            id_column: the column that tells the target's rows apart; registered, often hidden.

        Raises:
            SqlError: rejected; see its message.
        """
        from tailrace.sql.changes import compute_changes

        return compute_changes(self, sql, id_column, parameters)

    def final(self, relation: Relation) -> Relation:
        """`relation` with types that can leave: no 128-bit or unsigned integers."""
        changed = {c.physical: _LEAVING[c.type] for c in relation.columns if c.type in _LEAVING}
        if not changed:
            return relation
        items = ", ".join(
            f"CAST({name} AS {changed[c.physical]}) AS {name}" if c.physical in changed else name
            for c in relation.columns
            for name in [quote_identifier(c.physical)]
        )
        columns = tuple(Column(c.name, c.physical, changed.get(c.physical, c.type), c.hidden) for c in relation.columns)
        return Relation(f"SELECT {items} FROM ({relation.sql})", columns)  # noqa: S608 (translated)

    def query(self, sql: str, parameters: Mapping[str, object] | None = None) -> pa.Table:
        """All rows of the SELECT `sql`, in its order; columns are named as PostgreSQL names them, twice if it does.

        Moments are `timestamp[us, UTC]` or `timestamp[us]`, numeric is decimal128, JSON is text with `JSON_METADATA`.

        Args:
            parameters: values of `:name` placeholders.

        Raises:
            SqlError: rejected; with PostgreSQL's message where we know it.
        """
        relation = self.translate(sql, parameters)
        return self.run(relation)

    def run(self, relation: Relation) -> pa.Table:
        """All rows of a translated query."""
        self._settle()
        reader = self._reader(relation, BATCH_ROWS_MAX)
        try:
            table = reader.read_all()
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise SqlError(_message(error)) from error
        return _leaving(table, relation)

    def query_batches(
        self, sql: str, *, rows_max: int = BATCH_ROWS_MAX, parameters: Mapping[str, object] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """As `query`, in batches of at most `rows_max` rows while the query runs; memory does not grow with the result.

        Another statement in between takes the rest of the rows into memory first.
        """
        relation = self.translate(sql, parameters)
        self._settle()
        stream = _Stream(self._reader(relation, rows_max))
        self._stream = stream
        for batch in stream:
            for start in range(0, batch.num_rows, rows_max):
                part = pa.Table.from_batches([batch.slice(start, rows_max)])
                yield from _leaving(part, relation).combine_chunks().to_batches()

    def _settle(self) -> None:
        """Take what is left of a streamed result into memory, for the next statement would end it."""
        if self._stream is not None:
            self._stream.settle()
            self._stream = None

    def _reader(self, relation: Relation, rows_max: int) -> pa.RecordBatchReader:
        try:
            reader: pa.RecordBatchReader = self._connection.sql(relation.sql).to_arrow_reader(rows_max)
            return reader
        except duckdb.Error as error:
            raise SqlError(_message(error)) from error

    def _describe(self, sql: str) -> str:
        self._settle()
        try:
            return str(self._connection.execute(f"DESCRIBE {sql}").fetchall()[0][1])
        except duckdb.Error as error:
            raise SqlError(_message(error)) from error


_LEAVING = {
    "HUGEINT": "DECIMAL(38,0)",
    "UHUGEINT": "DECIMAL(38,0)",
    "UBIGINT": "DECIMAL(20,0)",
    "UINTEGER": "BIGINT",
    "USMALLINT": "INTEGER",
    "UTINYINT": "SMALLINT",
    "TINYINT": "SMALLINT",
    "TIMESTAMP_NS": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP_S": "TIMESTAMP",
    '"NULL"': "VARCHAR",
    "UUID": "VARCHAR",
}
"""DuckDB's types that do not leave as they are."""


def _leaving(table: pa.Table, relation: Relation) -> pa.Table:
    """`table` with PostgreSQL's names, moments in UTC and JSON marked."""
    fields, arrays = [], []
    for column, field, array in zip(relation.columns, table.schema, table.columns, strict=True):
        kind = field.type
        if pa.types.is_timestamp(kind):
            kind = pa.timestamp("us", "UTC" if kind.tz else None)
        elif isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_list(kind):  # DuckDB names the items after the column
            kind = pa.list_(kind.value_type)
        fields.append(pa.field(column.name, kind, metadata=JSON_METADATA if column.type == "JSON" else None))
        arrays.append(array.cast(kind))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _message(error: BaseException) -> str:
    """What DuckDB says, without its own kind of error and without its translated SQL."""
    text = str(error).split("\n\nLINE ")[0]
    text = re.sub(r"^(\w+Exception|[A-Z][\w ]*? Error):\s*", "", text.strip())
    if "Division by zero" in text or "division by zero" in text:
        return "division by zero"
    if found := re.search(r"Could not convert string '(.*?)' to (\w+)", text):
        return f'invalid input syntax for type {found[2].lower()}: "{found[1]}"'
    if "Overflow" in text or "out of range" in text:
        return f"value out of range: {text}"
    return text.split("\nCandidate")[0].strip()


def _locked_connection(limits: DatabaseLimits, files: Sequence[Path]) -> duckdb.DuckDBPyConnection:
    """An empty in-memory database with our macros, which from here on can reach nothing but `files`."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "allow_persistent_secrets": "false",
            "python_enable_replacements": "false",
            "temp_directory": str(limits.temp_directory or ""),
        },
    )
    settings = {
        "TimeZone": "'UTC'",
        "default_null_order": "'Postgres'",
        "ieee_floating_point_ops": "false",
        "preserve_insertion_order": "true",
        "enable_progress_bar": "false",
        "max_expression_depth": "1000",
        "threads": str(limits.threads),
        "memory_limit": quote_text(f"{limits.memory_bytes_max // 1024}KiB"),
        "secret_directory": "''",
        "home_directory": "''",
    }
    for name, value in settings.items():
        connection.execute(f"SET {name} = {value}")
    if limits.temp_directory is not None:
        connection.execute(f"SET max_temp_directory_size = '{limits.temp_bytes_max // 1024}KiB'")
    for macro in MACROS:
        connection.execute(macro)
    if files:
        connection.execute(f"SET allowed_paths = [{', '.join(quote_text(str(path)) for path in files)}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection
