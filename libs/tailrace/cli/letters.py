"""`table dead-letters`: records that nodes could not handle, looked at, edited, given back, dropped."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import orjson
import typer
from typer.core import TyperGroup

from tailrace.cli.errors import EXIT_FAILED, EXIT_OK, UsageError
from tailrace.cli.options import App, Data, Json
from tailrace.cli.output import count, print_json, print_json_line, print_table, say, short

__all__ = ["dead_letters", "moment_ms"]

CELL_CHARACTERS_MAX = 80

Name = Annotated[str, typer.Argument(metavar="TABLE", help="The Table that the records came from.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="As the list shows them.")]
Node = Annotated[str | None, typer.Option("--node", help="Only those of this node: its id, title or file.")]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help='Only those from then on: "2026-01-31 12:00", local or with a zone.'),
]
All = Annotated[bool, typer.Option("--all", help="All of the Table's.")]


class _ListByDefault(TyperGroup):
    """`dead-letters TABLE` means `dead-letters list TABLE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


dead_letters = typer.Typer(
    cls=_ListByDefault,
    no_args_is_help=True,
    help="""Records that nodes could not handle: look, edit, give back, drop.

    \b
    tailrace table dead-letters orders
    tailrace table dead-letters show orders 01k3x9v2qd0000000000000000
    tailrace table dead-letters replay orders --node totals
    """,
)


@dead_letters.command("list")
def list_(
    name: Name,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, the newest.")] = 20,
    node: Node = None,
    since: Since = None,
    tracebacks: Annotated[bool, typer.Option("--tracebacks", help="Print each traceback.")] = False,
    app: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The newest dead letters of a Table, oldest first.

    \b
    tailrace table dead-letters list orders --since 2026-01-31
    tailrace table dead-letters list orders --json | jq '.[].record'
    """
    from tailrace.cli.client import Client

    found = Client(data).get(_path(name), limit=limit, node=node, since_ms=moment_ms(since), app=app)
    if as_json:
        print_json(found)
        return
    if not found:
        say(f"{name} has no dead letters")
        return
    rows = [(each["id"], each["at"], each["node"], each["error"], _cell(each["record"])) for each in found]
    print_table(("id", "at", "node", "error", "record"), rows)
    if tracebacks:
        for each in found:
            say(f"\n{each['traceback'] or each['error']}")


@dead_letters.command()
def show(
    name: Name,
    letter: Annotated[str, typer.Argument(metavar="ID", help="As the list shows it.")],
    app: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """One dead letter: its record, where it came from, and what its node met, with the traceback.

    \b
    tailrace table dead-letters show orders 01k3x9v2qd0000000000000000
    """
    from tailrace.cli.client import Client

    found = _one(Client(data), name, letter, app)
    if as_json:
        print_json(found)
        return
    for field in ("id", "at", "node", "run", "source_offset", "source_row", "error"):
        print(f"{field:14} {found[field]}", flush=True)
    print(orjson.dumps(found["record"], option=orjson.OPT_INDENT_2).decode(), flush=True)
    if found["traceback"]:
        say(f"\n{found['traceback']}")


@dead_letters.command()
def edit(
    name: Name,
    letter: Annotated[str, typer.Argument(metavar="ID", help="As the list shows it.")],
    record: Annotated[
        str | None, typer.Option("--record", metavar="JSON", help="The record as it should be; - reads standard input.")
    ] = None,
    app: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Correct the record of a dead letter, in $EDITOR or with --record. It stays a dead letter, under a new id.

    \b
    tailrace table dead-letters edit orders 01k3x9v2qd0000000000000000
    tailrace table dead-letters edit orders 01k3x9v2qd0000000000000000 --record '{"id": 3, "price": 4}'
    """
    from tailrace.cli.client import Client

    client = Client(data)
    old = _one(client, name, letter, app)
    if record is None and not sys.stdin.isatty():
        raise UsageError("there is no terminal to edit in", "give the record with --record JSON, or --record - < FILE")
    if record is None:
        text = _edited(orjson.dumps(old["record"], option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        text = sys.stdin.read() if record == "-" else record
    try:
        new = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"the record is no JSON: {error}", "nothing was changed") from None
    if new == old["record"]:
        say("nothing was changed")
        found = old
    else:
        found = client.post(f"{_path(name)}/edit", {"id": letter, "record": new, "app": app})
    if as_json:
        print_json(found)
    else:
        print(found["id"], flush=True)


@dead_letters.command()
def replay(
    name: Name,
    ids: Ids = None,
    every: All = False,
    node: Node = None,
    since: Since = None,
    app: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Give records back to the nodes that failed at them, each once; 1 if any of them stays a dead letter.

    \b
    tailrace table dead-letters replay orders 01k3x9v2qd0000000000000000
    tailrace table dead-letters replay orders --node totals --since "2026-01-31 12:00"
    tailrace table dead-letters replay orders --all --json
    """
    from tailrace.cli.client import Client

    body = _chosen(ids, every=every, node=node, since=since, app=app)
    counts = {"replayed": 0, "failed": 0, "kept": 0}
    for event in _with_progress(Client(data).post_lines(f"{_path(name)}/replay", body), as_json=as_json):
        if event["type"] not in counts:
            raise UsageError(f"the replay broke off: {event.get('detail')}", "what is still listed was not done")
        counts[event["type"]] += 1
        if as_json:
            print_json_line(event)
        elif event["type"] == "failed":
            say(f"{event['id']}: failed again: {event['error']}", style="red")
        elif event["type"] == "kept":
            say(f"{event['id']}: stays: {event['why']}", style="yellow")
    if not as_json:
        print(f"{count(counts['replayed'], 'record')} replayed, {counts['failed']} failed again, {counts['kept']} kept")
    raise typer.Exit(EXIT_FAILED if counts["failed"] or counts["kept"] else EXIT_OK)


@dead_letters.command()
def drop(
    name: Name,
    ids: Ids = None,
    every: All = False,
    node: Node = None,
    since: Since = None,
    app: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Delete dead letters.

    \b
    tailrace table dead-letters drop orders 01k3x9v2qd0000000000000000
    tailrace table dead-letters drop orders --all
    """
    from tailrace.cli.client import Client

    body = _chosen(ids, every=every, node=node, since=since, app=app)
    done = Client(data).post(f"{_path(name)}/drop", body, timeout_s=None)
    if as_json:
        print_json(done)
    else:
        print(f"{count(done['dropped'], 'dead letter')} dropped", flush=True)


def moment_ms(text: str | None) -> int | None:
    """Milliseconds since 1970 of a moment as people write it; without a zone it is local time."""
    from datetime import datetime

    if text is None:
        return None
    try:
        return int(datetime.fromisoformat(text.strip()).timestamp() * 1000)
    except ValueError:
        raise UsageError(
            f"{text!r} is no moment", 'write it as "2026-01-31 12:00", or with a zone: 2026-01-31T12:00:00+01:00'
        ) from None


def _path(name: str) -> str:
    return f"tables/{quote(name, safe='')}/dead-letters"


def _one(client: Any, name: str, letter: str, app: str | None) -> dict[str, Any]:
    found = client.get(_path(name), id=letter, limit=1, app=app)
    if not found:
        raise UsageError(f"{name} has no dead letter {letter}", f"`tailrace table dead-letters {name}` lists them")
    return dict(found[0])


def _chosen(
    ids: list[str] | None, *, every: bool, node: str | None, since: str | None, app: str | None
) -> dict[str, Any]:
    """What is asked for; somebody who names nothing must say that all are meant."""
    if ids and (every or node or since):
        raise UsageError(
            "ids and filters do not go together", "name letters, or choose them with --node, --since, --all"
        )
    if not (ids or every or node or since):
        raise UsageError("it is not said which ones", "name letters, or choose them with --node, --since or --all")
    return {"ids": ids or [], "node": node, "since_ms": moment_ms(since), "app": app}


def _edited(text: str) -> str:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="tailrace-letter-") as folder:
        file = Path(folder) / "record.json"
        file.write_text(text)
        try:
            done = subprocess.run([*shlex.split(editor), str(file)], check=False)
        except OSError as error:
            raise UsageError(
                f"the editor {editor!r} does not start: {error.strerror}", "set EDITOR, or use --record"
            ) from None
        if done.returncode != 0:
            raise UsageError(f"the editor {editor!r} ended with {done.returncode}", "nothing was changed")
        return file.read_text()


def _with_progress(events: Iterator[Any], *, as_json: bool) -> Iterator[Any]:
    """The events, with how many came on standard error if that is a terminal."""
    if as_json or not sys.stderr.isatty():
        yield from events
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from tailrace.cli.output import console

    columns = (SpinnerColumn(), TextColumn("{task.description}: {task.completed}"), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("records", total=None)
        for event in events:
            progress.advance(task)
            yield event


def _cell(value: object) -> str:
    return short(" ".join(orjson.dumps(value).decode().split()), CELL_CHARACTERS_MAX)
