"""`replay`: a run, run again on what it read, and how what it writes differs from what it wrote."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from tailrace.cli.errors import EXIT_DIFFERS, EXIT_OK, AnswerError, FileReadError, ReplayError, UsageError
from tailrace.cli.options import Data, Json
from tailrace.cli.output import console, count, duration, moment, print_json, printable, say, short

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["replay"]

VALUE_CHARACTERS_MAX = 60
"""Longest value in a printed row; --json prints all of it."""

STYLES = {"added": "green", "removed": "red", "changed": "yellow"}
SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def replay(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Its id, as `tailrace runs` lists it.")],
    code: Annotated[
        Path | None, typer.Option("--code", metavar="FILE", help="Run this file in place of the node's own.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="FIELD", help="A field whose values do not count.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, max=10_000, help="Most differing rows to show of each Table.")
    ] = 20,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before the node's code runs.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Run a node again on exactly what an earlier run of it read, and show which rows differ.

    It begins with the State and the places that the run began with, and reads Tables as they were then. What it
    writes goes into a scratch table version that is compared and then dropped: no Table, State or stream moves.
    Calls of its code to the outside (mail, HTTP, databases) are made again, so that it asks first.

    \b
    tailrace replay 'shop/totals01#17'
    tailrace replay 'shop/totals01#17' --code totals_new.py --yes
    tailrace replay 'shop/totals01#17' --yes --json | jq '.tables[].changed'

    Exit status: 0 the rows are the same; 1 they differ; 2 it could not be run again.
    """
    from tailrace.cli.client import Client

    text = _read(code) if code is not None else None
    client = Client(data)
    if not yes and _is_python(client, run):
        _confirm(run)
    body = {"run": run, "code": text, "ignore": ignore or [], "rows_max": limit}
    try:
        result = _result(client.post_lines("replay", body), show=not as_json)
    except AnswerError as error:
        raise ReplayError(run, error.detail) from error
    if as_json:
        print_json(result)
    else:
        _show(result)
    raise typer.Exit(EXIT_OK if result["equal"] else EXIT_DIFFERS)


def _read(code: Path) -> str:
    try:
        return code.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileReadError(code, cause) from error


def _is_python(client: Any, run: str) -> bool:
    """Whether it is a run of code that can reach the outside; SQL cannot."""
    node = run.rpartition("#")[0]
    kinds = {
        f"{app['app']}/{each['node']}": each["kind"] for app in client.get("status")["apps"] for each in app["nodes"]
    }
    return kinds.get(node) == "python"


def _confirm(run: str) -> None:
    warning = f"the code of {run.rpartition('#')[0]} runs again, and with it all its calls to the outside"
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(warning, "say --yes if that does no harm")
    say(warning, style="yellow")
    typer.confirm("run it?", abort=True, err=True)


def _result(events: Iterator[dict[str, Any]], *, show: bool) -> dict[str, Any]:
    """The result at the end of what is told; until then what the node prints, and how far it is."""
    from rich.progress import Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    shown = show and sys.stderr.isatty()
    with Progress(*columns, console=console(stderr=True), transient=True, disable=not shown) as progress:
        task = progress.add_task("running")
        for event in events:
            match event["type"]:
                case "result":
                    del event["type"]
                    return event
                case "error":
                    raise AnswerError(400, event["detail"])
                case "progress":
                    elapsed = duration(event["elapsed_ms"])
                    progress.update(task, description=f"{event['phase']}, {elapsed}, {event['messages']:,} messages")
                case "line" if show:
                    progress.console.print(f"  {printable(event['text'])}", style="dim")
    raise AnswerError(503, "`up` ended before the run was compared")


def _show(result: Mapping[str, Any]) -> None:
    was, now = result["was"], result["now"]
    for note in result["notes"]:
        say(f"note: {note}", style="yellow")
    print(f"{result['title']} ({result['run']}), begun {moment(was['started_ms'])}", flush=True)
    for name, each in (("was", was), ("now", now)):
        rows = f"{count(each['rows_in'], 'row')} in, {each['rows_out']:,} out, {duration(each['duration_ms'])}"
        print(f"  {name}  {each['kind']}: {rows}" + (f": {printable(each['error'])}" if each["error"] else ""))
    if now["traceback"] and was["kind"] == "ok":
        say(now["traceback"].rstrip())
    if now["dead_letters"]:
        print(f"  {count(len(now['dead_letters']), 'dead letter')}, not kept")
    if now["answers"]:
        print(f"  {count(len(now['answers']), 'answer')} to requests, not sent")
    if now["requested"]:
        print("  it asked for another run, which is not begun")
    for table in result["tables"]:
        _show_table(table)
    if not result["tables"]:
        print("neither wrote any rows")
    print("equal" if result["equal"] else "different", flush=True)


def _show_table(table: Mapping[str, Any]) -> None:
    key = f", by {', '.join(table['key'])}" if table["key"] else ""
    numbers = ", ".join(f"{table[name]:,} {name}" for name in ("added", "removed", "changed"))
    print(f"\n{table['table']}: {numbers}, {table['same']:,} the same{key}", flush=True)
    to = console()
    for row in table["rows"]:
        to.print(_line(row, table["key"]), soft_wrap=True)
    more = table["added"] + table["removed"] + table["changed"] - len(table["rows"])
    if more:
        print(f"  ... and {count(more, 'row')} more (--limit)")
    for name, (was, now) in table.get("types", {}).items():
        print(f"  field {name}: {was or 'not there'} -> {now or 'not there'}")
    if deleted := table.get("deleted"):
        print(
            f"  earlier rows deleted: {deleted['new']:,} more, {deleted['no_more']:,} no more, {deleted['same']:,} both"
        )
    if marks := table.get("marks"):
        was, now = (", ".join(marks[name]) or "nothing" for name in ("was", "now"))
        print(f"  done to the table: {was} -> {now}")
    sys.stdout.flush()


def _line(row: Mapping[str, Any], key: list[str]) -> Text:
    """One differing row; of a changed one its key, or what is the same, and then each field that differs."""
    from rich.text import Text

    style = STYLES[row["change"]]
    text = Text(f"  {SIGNS[row['change']]} ", style=style)
    shown = row["now"] or row["was"]
    differing = set(row["fields"])
    parts = []
    for name in dict.fromkeys([*key, *shown, *differing]):
        if name in differing:
            part = Text(f"{printable(name)}: ", style="bold")
            part.append(_value(row["was"].get(name)), style="red")
            part.append(" -> ")
            part.append(_value(row["now"].get(name)), style="green")
            parts.append(part)
        elif shown.get(name) is not None:
            parts.append(Text(f"{printable(name)}: {_value(shown[name])}", style="dim" if differing else style))
    return text + Text(", ").join(parts)


def _value(value: object) -> str:
    return short(printable(orjson.dumps(value).decode()), VALUE_CHARACTERS_MAX)
