"""Orders that are answered with SQL or a read: SQL nodes, ad hoc queries, a table's rows for people."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tailrace.errors import RejectedError
from tailrace.node.errors import NoVersionError
from tailrace.node.parameter import REQUIRED, Connection, Parameter
from tailrace.node.queries import Tables, open_database, typed
from tailrace.node.staging import batches
from tailrace.node.table import Table
from tailrace.tables.schema import DECIMAL, FLOAT, TEXT, FieldType, RowEncoder, arrow_to_records

if TYPE_CHECKING:
    import pyarrow as pa

    from tailrace.node.session import Session

__all__ = ["ReadOrderError", "json_rows", "run_query", "run_read", "run_sql_node"]

OUTPUT_PORT = "output_table"
"""The port that the result of a SELECT goes to."""

_CHUNK_ROWS = 5_000
_TYPES: dict[str, Any] = {"str": str, "int": int, "float": float, "bool": bool, "list": list}


class ReadOrderError(RejectedError):
    """A read asks for something that is not there."""


# -- SQL nodes


def run_sql_node(session: Session) -> None:
    """Run a SQL file: a SELECT makes a new version of the store behind `output_table`; any other statement changes the
    table that it names in write mode."""
    from tailrace.node.changes import change, write_version
    from tailrace.sql import SqlError, StatementKind, analyse, render

    order = session.order
    source = (Path(order.app_dir) / order.file).read_text(encoding="utf-8")
    written: list[Table] = []

    def table(name: str, mode: str = "r", *args: Any, **options: Any) -> str:
        port = Table(name, mode, *args, **options)
        if mode == "w":
            written.append(port)
        if port._store is None:
            raise SqlError(
                f"table {name!r} is not connected to a store",
                hint="Declare it under stores in graph.yml, or map it under the node's inputs or outputs",
            )
        view = port._store.view()
        if view is not None:
            return view.name
        if mode != "w":
            raise NoVersionError(name)
        return port._store.name_to_come()

    def parameter(name: str, description: str | None = None, type: Any = "str", default: Any = REQUIRED) -> Any:
        return Parameter(name, description, _python_type(type), default)

    output = session.ref(OUTPUT_PORT, "w")
    statement = render(source, table=table, parameter=parameter, path=order.file)
    kind = analyse(statement).kind
    if written and kind is not StatementKind.SELECT:
        change(session, statement)
        return
    if kind is not StatementKind.SELECT:
        raise SqlError(
            f"a SELECT is expected, not {kind}", hint='Name the table to change as {{ Table("name", mode="w") }}'
        )
    if output is None:
        session.warn_once(f"{order.file}: no store is connected to {OUTPUT_PORT}: the result goes nowhere")
        return
    with open_database(session, statement) as database:
        result = database.query(statement)
    write_version(session.store(output), result)


def _python_type(wanted: Any) -> Any:
    """The Python type that a template's type name stands for."""
    from datetime import date, datetime

    name = str(wanted)
    known = {**_TYPES, "datetime": datetime, "date": date}
    if name in known:
        return known[name]
    return Connection(name) if type(wanted).__name__ == "Connection" else wanted


# -- ad hoc


def run_query(session: Session) -> None:
    """Answer a SELECT over all stores, which it names by their names: one JSON document in pieces,
    `{"columns": [{"name": ..., "type": ...}, ...], "rows": [[...], ...]}`."""
    from tailrace.sql import render_adhoc

    sql = str(session.order.arguments["sql"])
    if "{" in sql:
        sql = render_adhoc(sql, {ref.name: ref.name for ref in session.refs})
    with open_database(session, sql) as database:
        raw = database.query(sql)
    names = raw.column_names
    renamed = raw.rename_columns([f"{at}" for at in range(len(names))])  # a result may have a name twice
    fields, table = typed(renamed)
    columns = [{"name": name, "type": str(kind)} for name, kind in zip(names, fields.values(), strict=True)]
    _send(session, orjson.dumps({"columns": columns})[:-1] + b',"rows":[')
    first = True
    for part in batches(table, _CHUNK_ROWS):
        rows = [list(row.values()) for row in json_rows(part, fields)]
        body = orjson.dumps(rows)[1:-1]
        _send(session, body if first else b"," + body)
        first = False
    _send(session, b"]}")


def json_rows(table: pa.Table, fields: Mapping[str, FieldType]) -> list[dict[str, Any]]:
    """The rows with their values as JSON has them."""
    records = arrow_to_records(table, fields, for_stream=True)
    rows: list[dict[str, Any]] = orjson.loads(RowEncoder(fields, grows=False, scalars=True).encode(records))
    return rows


def run_read(session: Session) -> None:
    """Answer with a table's rows in pieces: `table`, and where wanted `version`, `limit`, `offset` and `format` (json,
    ndjson, csv, parquet; chart: JSON for a picture)."""
    arguments = session.order.arguments
    store = Tables(session).find(str(arguments["table"]))
    if store is None:
        raise ReadOrderError(f"there is no table {arguments['table']!r}")
    version = arguments.get("version")
    view = store.view_of(str(version)) if version else store.view()
    if version and view is None:
        raise ReadOrderError(f"table {store.ref.name!r} has no version {version!r}")
    fields: dict[str, FieldType] = {}
    tables: Iterator[pa.Table] = iter(())
    if view is not None:
        reader = store.reader(view)
        assert reader is not None
        fields = dict(reader.fields)
        if reader.id_name:
            fields[reader.id_name] = TEXT
        skip, rows_max = int(arguments.get("offset") or 0), arguments.get("limit")
        tables = _cut(reader.tables(_CHUNK_ROWS, id_column=reader.id_name), skip, rows_max)
    form = str(arguments.get("format") or "json")
    write = _FORMATS.get(form)
    if write is None:
        raise ReadOrderError(f"format is {form!r}: use {', '.join(_FORMATS)}")
    write(session, fields, tables)


def _cut(tables: Iterator[pa.Table], skip: int, rows_max: Any) -> Iterator[pa.Table]:
    left = int(rows_max) if rows_max is not None else None
    for table in tables:
        passed = min(skip, table.num_rows)
        skip -= passed
        part = table.slice(passed, left)
        if part.num_rows:
            yield part
        if left is not None:
            left -= part.num_rows
            if left <= 0:
                return


def _send(session: Session, piece: bytes) -> None:
    session.link.tell({"op": "result"}, piece)


def _write_json(session: Session, fields: Mapping[str, FieldType], tables: Iterator[pa.Table]) -> None:
    encoder = RowEncoder(fields, grows=False, scalars=True)
    start = b"["
    for table in tables:
        _send(session, start + encoder.encode(arrow_to_records(table, fields, for_stream=True))[1:-1])
        start = b","
    _send(session, b"]" if start == b"," else b"[]")


def _write_chart(session: Session, fields: Mapping[str, FieldType], tables: Iterator[pa.Table]) -> None:
    """As JSON, with decimals as numbers, which Vega-Lite adds up; not all their digits count in a picture."""
    decimals = [name for name, kind in fields.items() if kind.name == DECIMAL.name]

    def drawn(table: pa.Table) -> pa.Table:
        for name in decimals:
            table = table.set_column(table.column_names.index(name), name, table.column(name).cast("double"))
        return table

    _write_json(session, {**fields, **dict.fromkeys(decimals, FLOAT)}, map(drawn, tables))


def _write_ndjson(session: Session, fields: Mapping[str, FieldType], tables: Iterator[pa.Table]) -> None:
    encoder = RowEncoder(fields, grows=False, scalars=True)
    for table in tables:
        lines = encoder.encode_each(arrow_to_records(table, fields, for_stream=True))
        _send(session, b"\n".join(lines) + b"\n")


def _write_csv(session: Session, fields: Mapping[str, FieldType], tables: Iterator[pa.Table]) -> None:
    """NULL is an empty field; other values are texts as JSON has them."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(list(fields))
    for table in tables:
        for row in json_rows(table, fields):
            rows.writerow([_cell(row.get(name)) for name in fields])
        _send(session, text.getvalue().encode())
        text.seek(0)
        text.truncate()
    if text.tell():
        _send(session, text.getvalue().encode())


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return orjson.dumps(value).decode() if isinstance(value, dict | list) else value


def _write_parquet(session: Session, fields: Mapping[str, FieldType], tables: Iterator[pa.Table]) -> None:
    import pyarrow.parquet as pq

    from tailrace.tables.schema import arrow_schema

    with tempfile.TemporaryFile() as file:
        with pq.ParquetWriter(file, arrow_schema(fields), compression="snappy") as writer:
            for table in tables:
                writer.write_table(table)
        file.seek(0)
        while piece := file.read(1 << 20):
            _send(session, piece)


_FORMATS: dict[str, Callable[[Session, Mapping[str, FieldType], Iterator[pa.Table]], None]] = {
    "json": _write_json,
    "ndjson": _write_ndjson,
    "csv": _write_csv,
    "parquet": _write_parquet,
    "chart": _write_chart,
}
