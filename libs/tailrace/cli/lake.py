"""`lake`, `gc`, `rebuild`: the Delta tables of a running `up`, what of them may go, and their index."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tailrace.cli.errors import EXIT_FAILED
from tailrace.cli.options import App, Data, Json
from tailrace.cli.output import count, print_json, print_table, say, size

__all__ = ["gc", "lake", "rebuild"]


def lake(app: App = None, data: Data = None, as_json: Json = False) -> None:
    """The lake: how far each Table is in it, its files, and what is wrong.

    \b
    tailrace lake
    tailrace lake --json | jq '.tables[] | select(.error)'
    """
    from tailrace.cli.client import Client

    found = Client(data).get("lake", app=app)
    if as_json:
        print_json(found)
        return
    say(f"{found['lake']}: the snapshotter {'runs' if found['pid'] else 'has nothing to do'}", style="dim")
    if found["trouble"]:
        say(f"error: {found['trouble']}", style="red")
    rows = [
        (
            each["app"],
            each["table"],
            each["version"],
            f"{each['rows']:,}",
            f"{each['files']:,}",
            size(each["bytes"]),
            f"{each['position']:,}",
            f"{each['lag_offsets']:,}",
        )
        for each in found["tables"]
    ]
    print_table(
        ("app", "table", "version", "rows", "files", "size", "position", "lag"),
        rows,
        right=("rows", "files", "size", "position", "lag"),
    )
    for each in found["tables"]:
        if each["error"]:
            say(f"{each['table']}: {each['error']}", style="red")
        if each["lost"]:
            say(f"{each['table']} has lost rows: {each['lost']}", style="red")


def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, and why.")] = False,
    app: App = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Let go of what is old: superseded table versions, and records of the log that are in the lake.

    The same happens by itself once an hour while Tables have news.

    \b
    tailrace gc --dry-run
    tailrace gc --json | jq '.[].versions[].name'
    """
    from tailrace.cli.client import Client

    plans = Client(data).post("lake/gc", {"app": app, "dry_run": dry_run}, timeout_s=None)
    if as_json:
        print_json(plans)
        return
    if not plans:
        say("nothing is old enough to go")
        return
    print_table(("table", "what", "size", "why"), [row for plan in plans for row in _going(plan)], right=("size",))
    if dry_run:
        say("nothing was deleted: --dry-run")


def rebuild(app: App = None, data: Data = None, as_json: Json = False) -> None:
    """Make the index of all Tables again, from the lake and the log alone.

    For when the index is damaged, or a lake was brought back from a copy. A Delta table that is damaged or cannot be read
    is told of, and the others go on; the exit status is 1 then.

    \b
    tailrace rebuild
    tailrace rebuild --json | jq '.[] | select(.lost)'
    """
    from tailrace.cli.client import Client

    found = Client(data).post("lake/rebuild", {"app": app}, timeout_s=None)
    if as_json:
        print_json(found)
        return
    rows = [(each["table"], each["versions"], each["in_lake"], f"{each['position']:,}") for each in found]
    print_table(("table", "versions", "in the lake", "position"), rows, right=("versions", "in the lake", "position"))
    for each in found:
        if each["lost"]:
            say(f"{each['table']}: {each['lost']}", style="red")
        for text in each["damaged"]:
            say(f"error: {each['table']}: {text}; then run `tailrace rebuild` again", style="red")
    if any(each["damaged"] for each in found):
        raise typer.Exit(EXIT_FAILED)


def _going(plan: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = [
        (plan["topic"], f"version {each['name']}, {count(each['rows'], 'row')}", size(each["size_bytes"]), each["why"])
        for each in plan["versions"]
    ]
    rows += [
        (plan["topic"], f"version {each['name']} cannot be restored any more, and goes later", "", each["why"])
        for each in plan["hidden"]
    ]
    for number, lane in enumerate(plan["lanes"]):
        partition = f"{plan['topic']}/{number}" if number else plan["topic"]
        if lane["trim_before"] > lane["log_start"]:
            what = f"records {lane['log_start']:,} to {lane['trim_before']:,} of the log"
            rows.append((partition, what, "", lane["why_trim"]))
        rows += [(partition, f"staged file {path}", "", "its records go") for path in lane["files"]]
    return rows
