"""`trigger`, `runs`, `logs`, `status`: what a running `up` does and did."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tailrace.cli.errors import EXIT_FAILED, EXIT_OK, UsageError
from tailrace.cli.history import LogUrl, history_of
from tailrace.cli.options import App, Data, Json
from tailrace.cli.output import clock_time, duration, moment, print_json, print_table, say
from tailrace.cli.runview import show

__all__ = ["cli", "logs", "nodes", "runs", "status", "trigger"]

_STYLES = {"failed": "red", "stopped": "red", "paused": "yellow", "retrying": "yellow", "running": "green"}


def trigger(
    node: Annotated[str, typer.Argument(metavar="NODE", help="Its id, title or file.")],
    app: App = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until a run of it ends; 1 if that failed.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Run a node now, whatever its trigger.

    \b
    tailrace trigger import_orders
    tailrace trigger report.sql --app shop --wait
    """
    from tailrace.cli.client import Client

    client = Client(data)
    if wait:
        from tailrace.cli.feed import entry_printer
        from tailrace.cli.follow import triggered_run

        run = triggered_run(client, node, app)
        if as_json:
            print_json(run)
        else:
            entry_printer(as_json=False)([run])
        raise typer.Exit(EXIT_OK if run["kind"] == "ok" else EXIT_FAILED)
    answer = client.post("trigger", {"node": node, "app": app})
    if as_json:
        print_json(answer)
    else:
        say(f"asked for a run of {node}")


def nodes(app: App = None, data: Data = None, as_json: Json = False) -> None:
    """Each node that runs: how it stands, its last run and error, and how far it is behind.

    \b
    tailrace nodes
    tailrace nodes --json | jq '.[] | select(.error) | {title, state, error}'
    """
    from rich.text import Text

    from tailrace.cli.client import Client

    found = Client(data).get("nodes", app=app)
    if as_json:
        print_json(found)
    elif not found:
        say("no nodes that run")
    else:
        rows = [
            (
                each["app"],
                each["title"],
                Text(each["state"], style=_STYLES.get(each["state"], "")),
                moment(each["last_run_ms"]) if each["last_run_ms"] else None,
                moment(each["next_ms"]) if each["next_ms"] else None,
                f"{each['behind']:,}",
                each["error"] or "",
            )
            for each in found
        ]
        print_table(("app", "node", "state", "last run", "goes on at", "behind", "error"), rows, right=("behind",))


cli = typer.Typer(no_args_is_help=False, invoke_without_command=True)


@cli.callback()
def runs(
    context: typer.Context,
    node: Annotated[str | None, typer.Option("--node", help="Only runs of this node: its id or title.")] = None,
    status: Annotated[
        str | None, typer.Option("--status", metavar="STATUS", help="Only ok, failed, timed_out or died.")
    ] = None,
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="How many, the newest.")] = 20,
    log: LogUrl = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """The newest runs, oldest first; `runs show RUN` tells all of one.

    \b
    tailrace runs --node normalise --last 5
    tailrace runs --status failed --json | jq '.[].error'
    tailrace runs --log kafka://localhost:9092
    """
    if context.invoked_subcommand is not None:
        return
    if status is not None and status not in ("ok", "failed", "timed_out", "died"):
        raise UsageError(f"there is no status {status!r}", "choose ok, failed, timed_out or died")
    found = history_of(log, data).get("runs", node=node, status=status, last=last)
    if as_json:
        print_json(found)
        return
    if not found:
        say("no runs yet")
        return
    rows = [
        (
            moment(run["started_ms"]),
            run["title"],
            run["run"],
            run["kind"],
            ", ".join(run["reasons"]),
            f"{run['rows_in']:,}",
            f"{run['rows_out']:,}",
            duration(run["duration_ms"]),
            run["error"] or "",
        )
        for run in found
    ]
    print_table(
        ("started", "node", "run", "status", "why", "rows in", "rows out", "took", "error"),
        rows,
        right=("rows in", "rows out", "took"),
    )


cli.command("show")(show)


def logs(
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines and runs come.")] = False,
    node: Annotated[str | None, typer.Option("--node", help="Only this node: its id or title.")] = None,
    run: Annotated[str | None, typer.Option("--run", help="Only this run.")] = None,
    last: Annotated[int, typer.Option("--last", "-n", min=0, help="How many lines, the newest.")] = 100,
    log: LogUrl = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """What nodes printed; with -f also each run as it ends. Ctrl-C stops it.

    \b
    tailrace logs --node normalise
    tailrace logs -f --json
    tailrace logs -f --log kafka://localhost:9092
    """
    from tailrace.cli.feed import entry_printer

    client = history_of(log, data)
    if follow:
        show = entry_printer(as_json=as_json)
        for entry in client.lines("logs", node=node, run=run, last=last, follow="1"):
            show([entry])
        return
    found = client.get("logs", node=node, run=run, last=last)
    if as_json:
        print_json(found)
    else:
        width = max((len(entry["title"]) for entry in found), default=12)
        entry_printer(as_json=False, title_width=width)(found)


def status(data: Data = None, as_json: Json = False) -> None:
    """Apps, nodes with their last run, and what is wrong.

    \b
    tailrace status
    tailrace status --json | jq '.apps[].problems'
    """
    from tailrace.cli.client import Client

    client = Client(data)
    found = client.get("status")
    newest: dict[tuple[str, str], Any] = {(run["graph"], run["node"]): run for run in client.get("runs", last=2000)}
    if as_json:
        for app in found["apps"]:
            for node in app["nodes"]:
                node["last_run"] = newest.get((app["app"], node["node"]))
        print_json(found)
        return
    print(f"url   {found['url']}\nlog   {found['log']}\ndata  {found['data']}\npid   {found['pid']}", flush=True)
    for app in found["apps"]:
        print(f"\n{app['title']} ({app['app']})", flush=True)
        rows = []
        for node in app["nodes"]:
            run = newest.get((app["app"], node["node"]))
            last = f"{run['kind']} at {clock_time(run['started_ms'])}, {duration(run['duration_ms'])}" if run else None
            runs_at_all = node["kind"] in ("python", "sql")
            rows.append((node["node"], node["title"], node["kind"], node["trigger"] if runs_at_all else None, last))
        print_table(("id", "node", "kind", "trigger", "last run"), rows)
        for problem in app["problems"]:
            style = "red" if problem["severity"] == "error" else "yellow"
            say(f"{problem['file']}:{problem['line']}: {problem['severity']}: {problem['message']}", style=style)
