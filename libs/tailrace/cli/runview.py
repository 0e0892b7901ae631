"""`runs show`: one run, and its place between the runs around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrace.cli.history import LogUrl, history_of
from tailrace.cli.options import Data, Json
from tailrace.cli.output import console, count, duration, moment, print_json, printable

if TYPE_CHECKING:
    from rich.tree import Tree

__all__ = ["show"]


def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Its id, quoted: `tailrace runs` lists them.")],
    log: LogUrl = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """All of one run: what it read and wrote, and which runs come before and after it.

    \b
    tailrace runs show 'shop/totalspy#12'
    tailrace runs show 'shop/totalspy#12' --json | jq .up
    """
    found = history_of(log, data).get("run", run=run)
    if as_json:
        print_json(found)
        return
    for name, value in _facts(found):
        print(f"{name:<9} {printable(value)}", flush=True)
    if found["traceback"]:
        print("\n" + "\n".join(map(printable, found["traceback"].rstrip().splitlines())), flush=True)
    print(flush=True)
    to = console()
    to.print(_picture(found), soft_wrap=True)
    to.file.flush()


def _facts(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is said of the run itself, line by line."""
    several = f" (the last of {run['runs']:,} within a second)" if run["runs"] > 1 else ""
    facts = [
        ("run", run["run"] + several),
        ("node", f"{run['title']} ({run['node']})"),
        ("status", run["kind"] + (f", try {run['try_number']}" if run["try_number"] > 1 else "")),
        ("why", ", ".join(run["reasons"]) + (f", covers {count(run['covers'], 'commit')}" if run["covers"] else "")),
        *([("asked", f"{moment(run['asked']['at_ms'])}, {run['asked']['type']}")] if run["asked"] else []),
        *([("due", moment(run["fire_ms"]))] if run["fire_ms"] is not None else []),
        ("began", moment(run["started_ms"])),
        ("took", duration(run["duration_ms"])),
    ]
    if run["cpu_ms"] is not None:
        memory = f", {run['memory_bytes'] / (1 << 20):,.0f} MiB" if run["memory_bytes"] else ""
        facts.append(("used", f"{duration(run['cpu_ms'])} CPU time{memory}"))
    facts.append(("rows", f"{run['rows_in']:,} in, {run['rows_out']:,} out"))
    facts += [("host", run["host"])] if run["host"] else []
    facts.append(("version", f"{run['version']} of {run['code']}"))
    return [*facts, ("error", run["error"])] if run["error"] else facts


def _picture(run: Mapping[str, Any]) -> Tree:
    """Tables that were read above, those that were written below, each with the runs behind it."""
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(printable(run["run"]), style="bold"), guide_style="dim")
    for word, tables, runs, nobody in (
        ("read", run["read"], run["up"], "no run wrote it: posts did, or runs that are not kept"),
        ("wrote", run["wrote"], run["down"], "no run has read it yet"),
    ):
        for topic in sorted(tables, key=lambda topic: str(run["tables"][topic])):
            label = Text(f"{word} ", style="dim")
            label.append(printable(run["tables"][topic]), style="cyan")
            label.append(f"  {_range(run, topic, word)}", style="dim")
            branch = tree.add(label)
            others = runs.get(topic, [])
            for other in others:
                branch.add(Text(("← " if word == "read" else "→ ") + printable(other)))
            if not others:
                branch.add(Text(nobody, style="dim"))
    if run["partial"]:
        tree.add(Text("there are more runs than these", style="dim"))
    return tree


def _range(run: Mapping[str, Any], topic: str, word: str) -> str:
    """Positions, half-open, as people read them."""
    if word == "wrote":
        start, stop = run["wrote"][topic]
        return f"{start}..{stop - 1}"
    place = run["places"].get(topic)
    cut = run["read"][topic]
    return f"before {cut}" if place is None else f"{place[0]}..{max(cut - 1, place[0])}"
