"""`tables`, `table ...` and `sql`: what is in the Tables of a running `up`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import orjson
import typer

from tailrace.cli.errors import UsageError
from tailrace.cli.files import check_free, write_file
from tailrace.cli.letters import dead_letters, moment_ms
from tailrace.cli.options import App, At, Data, Json
from tailrace.cli.output import count, moment, print_json, print_table, say, short

__all__ = ["sql", "table", "tables"]

CELL_CHARACTERS_MAX = 80
"""Longest value in a printed table; --json prints all of it."""

FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "ndjson", ".ndjson": "ndjson", ".parquet": "parquet"}

Name = Annotated[str, typer.Argument(metavar="TABLE", help="Its name in graph.yml.")]
Run = Annotated[str | None, typer.Option("--run", metavar="RUN", help="As a run read it; `tailrace runs` lists them.")]
Version = Annotated[str | None, typer.Option("--version", help="A table version by name; else the active one.")]

table = typer.Typer(
    no_args_is_help=True,
    help="""One Table: rows, table versions, export, dead letters.

    \b
    tailrace table head orders
    tailrace table versions orders
    tailrace table export orders -o orders.csv
    tailrace table dead-letters orders
    """,
)
table.add_typer(dead_letters, name="dead-letters")


def tables(app: App = None, data: Data = None, as_json: Json = False) -> None:
    """All Tables with their active table version, rows and fields.

    \b
    tailrace tables
    tailrace tables --json | jq '.[] | {table, rows}'
    """
    from tailrace.cli.client import Client

    found = Client(data).get("tables", app=app)
    if as_json:
        print_json(found)
    elif not found:
        say("no tables; a graph lists them under `stores:`")
    else:
        rows = [
            (
                each["app"],
                each["table"],
                f"{each['rows']:,}" if each["rows"] is not None else "?",
                each["version"],
                short(", ".join(f"{name} {kind}" for name, kind in each["fields"].items()), CELL_CHARACTERS_MAX),
            )
            for each in found
        ]
        print_table(("app", "table", "rows", "version", "fields"), rows, right=("rows",))


@table.command()
def head(
    name: Name,
    last: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many rows.")] = 10,
    version: Version = None,
    at: At = None,
    run: Run = None,
    app: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The first rows of a Table, as it is or as it was.

    \b
    tailrace table head orders -n 3
    tailrace table head orders --at "2026-01-31 12:00"
    tailrace table head orders --json | jq '.[0]'
    """
    from tailrace.cli.client import Client

    rows = _rows(Client(data), name, limit=last, version=version, app=app, at_ms=moment_ms(at), run=run)
    _print_rows(rows, as_json=as_json)


@table.command()
def versions(name: Name, app: App = None, data: Data = None, as_json: Json = False) -> None:
    """The table versions of a Table, oldest first, and where each lies.

    \b
    tailrace table versions totals
    tailrace table versions totals --json | jq '.[] | select(.active)'
    """
    from tailrace.cli.client import Client

    found = Client(data).get(f"tables/{quote(name, safe='')}/versions", app=app)
    if as_json:
        print_json(found)
    elif not found:
        say(f"{name} was never written to")
    else:
        rows = [
            (
                each["version"],
                "active" if each["active"] else "",
                moment(each["begun_ms"]),
                f"{each['rows']:,}" if each["rows"] is not None else "?",
                f"{each['lake']['bytes']:,}" if each["lake"] is not None else "",
                _where(each),
                short(", ".join(f"{field} {kind}" for field, kind in each["fields"].items()), CELL_CHARACTERS_MAX),
            )
            for each in found
        ]
        print_table(("version", "", "begun", "rows", "bytes", "where", "fields"), rows, right=("rows", "bytes"))


def _where(version: dict[str, Any]) -> str:
    places = [name for name, there in (("lake", version["lake"] is not None), ("log", version["in_log"])) if there]
    return " and ".join(places) or "gone"


@table.command()
def restore(
    name: Name,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="As `tailrace table versions` names it.")],
    app: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make an earlier table version the active one again. Nodes that read the Table run.

    \b
    tailrace table versions totals
    tailrace table restore totals totals_01k3x9v2qd
    """
    from tailrace.cli.client import Client

    done = Client(data).post(f"tables/{quote(name, safe='')}/restore", {"version": version, "app": app})
    if as_json:
        print_json(done)
    else:
        say(f"{version} is the active version of {name}")


@table.command()
def export(
    name: Name,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write; else standard output.")
    ] = None,
    format: Annotated[
        str | None, typer.Option("--format", help="csv, json, ndjson or parquet; else as FILE's ending says.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    version: Version = None,
    app: App = None,
    data: Data = None,
) -> None:
    """Write a whole Table to a file, with a progress bar, or to standard output.

    \b
    tailrace table export orders -o orders.parquet
    tailrace table export orders --format ndjson | wc -l
    """
    from tailrace.cli.client import Client

    chosen = format or (FORMATS.get(output.suffix.lower()) if output else "ndjson")
    if chosen not in FORMATS.values():
        raise UsageError(
            f"there is no format {chosen or output!s}", "choose with --format: csv, json, ndjson or parquet"
        )
    if output is None and chosen == "parquet" and sys.stdout.isatty():
        raise UsageError("Parquet is nothing for a terminal", "give a file: -o FILE")
    if output is not None:
        check_free(output, force=force)
    client = Client(data)
    pieces = client.pieces(f"tables/{quote(name, safe='')}/rows", format=chosen, version=version, app=app)
    if output is None:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    written_bytes = write_file(output, _with_progress(pieces, name))
    say(f"{output}: {count(written_bytes, 'byte')}")


def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One SELECT; - reads it from standard input.")],
    at: At = None,
    run: Run = None,
    app: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Ask the Tables of an app with SQL, in PostgreSQL's dialect; with --at all of them as of one moment.

    \b
    tailrace sql "select count(*) from orders" --at 2026-01-31T12:00Z
    tailrace sql "select kind, count(*) from events group by 1 order by 2 desc"
    tailrace sql - --json < report.sql
    """
    from tailrace.cli.client import Client

    text = sys.stdin.read() if query == "-" else query
    if not text.strip():
        raise UsageError("the query is empty", 'for example: tailrace sql "select 1"')
    answer = Client(data).post("sql", {"sql": text, "app": app, "at_ms": moment_ms(at), "run": run})
    names = _different([column["name"] for column in answer["columns"]])
    rows = [dict(zip(names, values, strict=True)) for values in answer["rows"]]
    _print_rows(rows, as_json=as_json, columns=names)


def _rows(client: Any, name: str, **query: Any) -> list[dict[str, Any]]:
    found = orjson.loads(b"".join(client.pieces(f"tables/{quote(name, safe='')}/rows", format="json", **query)))
    assert isinstance(found, list), "the local interface answers with an array"
    return found


def _different(names: list[str]) -> list[str]:
    """The names, each once: a result may have one twice, a row of JSON not."""
    found: list[str] = []
    for name in names:
        candidate, number = name, 0
        while candidate in found:
            number += 1
            candidate = f"{name}_{number}"
        found.append(candidate)
    return found


def _print_rows(rows: list[dict[str, Any]], *, as_json: bool, columns: list[str] | None = None) -> None:
    if as_json:
        print_json(rows)
        return
    if not rows:
        say("no rows")
        return
    columns = columns or list(dict.fromkeys(name for row in rows for name in row))
    numbers = [name for name in columns if all(_is_number(row.get(name)) for row in rows)]
    print_table(columns, [[_cell(row.get(name)) for name in columns] for row in rows], right=numbers)


def _is_number(value: object) -> bool:
    """Whether `value` is set to the right; decimals come as text, so that no digit is lost."""
    if isinstance(value, str):
        return value.lstrip("-").replace(".", "", 1).isdecimal()
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: object) -> object:
    if value is None:
        return None
    text = orjson.dumps(value).decode() if isinstance(value, dict | list | bool) else str(value)
    return short(" ".join(text.split()), CELL_CHARACTERS_MAX)


def _with_progress(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    """The pieces, with how far it has come on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield from pieces
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn, TransferSpeedColumn

    from tailrace.cli.output import console

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None)
        for piece in pieces:
            progress.advance(task, len(piece))
            yield piece
