"""The `tailrace` command: its commands, and how each of them ends.

Modules that take long to import (the services, rich, requests) are imported by the commands that need them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from tailrace.cli import backup, charts, create, lake, runs, tables, webhooks
from tailrace.cli import deploy as deploy_commands
from tailrace.cli import doctor as doctor_command
from tailrace.cli import replay as replay_command
from tailrace.cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, exit_status
from tailrace.cli.options import Json, log_option
from tailrace.cli.output import say
from tailrace.errors import TailraceError

__all__ = ["cli", "run"]

TRACEBACK_VARIABLE = "TAILRACE_TRACEBACK"
EXIT_PIPE = 141
"""What shells report for a program whose reader went away (128 + SIGPIPE)."""

cli = typer.Typer(
    name="tailrace",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""Tailrace runs apps of Tables, Python and SQL nodes, webhooks and charts over a message log.

    \b
    tailrace new app shop          make a small app that works
    tailrace up shop               run it until Ctrl-C
    tailrace check shop            what is wrong with its files
    tailrace tables                while it runs: its tables ...
    tailrace sql "select 1"        ... and any query over them

    Exit status: 0 done; 1 what was asked for failed; 2 wrong usage; 3 no running `up`, no log or no
    broker to be reached; 130 interrupted.
    """,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"tailrace {version('tailrace')}")
        raise typer.Exit


@cli.callback()
def _main(
    traceback: Annotated[
        bool, typer.Option("--traceback", help=f"Show our own traceback of an error ({TRACEBACK_VARIABLE}=1).")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if traceback:
        os.environ[TRACEBACK_VARIABLE] = "1"


@cli.command()
def up(
    apps: Annotated[
        list[Path] | None, typer.Argument(metavar="APP", help="Folders with a graph.yml; else this one.")
    ] = None,
    log: Annotated[str | None, log_option("sqlite:///path.db or kafka://host:9092.")] = None,
    lake_url: Annotated[
        str | None,
        typer.Option(
            "--lake",
            envvar="TAILRACE_LAKE",
            metavar="URL",
            help="A folder or s3://bucket/prefix (gs://, az://) for Delta tables; else `lake` in the data folder.",
        ),
    ] = None,
    data: Annotated[
        Path, typer.Option("--data", envvar="TAILRACE_DATA", metavar="DIR", help="Where everything is kept.")
    ] = Path(".tailrace"),
    host: Annotated[str, typer.Option("--host", envvar="TAILRACE_HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", envvar="TAILRACE_PORT", min=0, max=65535, help="Port to listen on; 0: a free one.")
    ] = 8700,
    ops_port: Annotated[
        int | None,
        typer.Option(
            "--ops-port", envvar="TAILRACE_OPS_PORT", min=0, max=65535, help="Port of 127.0.0.1 with /metrics."
        ),
    ] = None,
    retention: Annotated[
        str,
        typer.Option(
            "--retention",
            envvar="TAILRACE_RETENTION",
            metavar="TIME",
            help="How long superseded table versions stay, and records that are in the lake: 12h, 30d.",
        ),
    ] = "7d",
    watch: Annotated[bool, typer.Option("--watch", help="Deploy again after each edit.")] = False,
    as_json: Json = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show every run, and what the host does.")] = False,
) -> None:
    """Run apps on this machine until Ctrl-C.

    Opens the log, deploys the apps, takes webhooks, and prints each node as it fires. Everything is kept in the
    data folder: start it again, and it goes on where it was.

    \b
    tailrace up                                    the app in this folder
    tailrace up shop mails --watch                 two apps, deployed again after each edit
    tailrace up shop --log kafka://localhost:9092  the same app on Apache Kafka
    tailrace up shop --port 0 --json               any free port; one JSON object a line
    """
    from tailrace.cli.check import app_folders

    folders = app_folders(apps or [])
    from tailrace.cli.house import HouseSettings
    from tailrace.cli.up import serve
    from tailrace.durations import duration

    try:
        kept = duration(retention)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--retention") from None
    settings = HouseSettings(
        apps=folders,
        data_dir=data,
        log_url=log,
        lake_url=lake_url,
        retention=kept,
        host=host,
        port=port,
        ops_port=ops_port,
    )
    raise typer.Exit(serve(settings, watch=watch, as_json=as_json, verbose=verbose))


@cli.command()
def check(
    apps: Annotated[
        list[Path] | None, typer.Argument(metavar="APP", help="Folders with a graph.yml; else this one.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell what is wrong with apps, without running them.

    One line for each problem, as compilers print them: file:line: error: message.

    \b
    tailrace check shop
    tailrace check shop --json | jq '.[].problems'
    """
    from tailrace.cli.check import app_folders, check_apps

    raise typer.Exit(check_apps(app_folders(apps or []), as_json=as_json))


cli.add_typer(create.cli, name="new")
cli.command("deploy")(deploy_commands.deploy)
cli.command("undeploy")(deploy_commands.undeploy)
cli.command("deployments")(deploy_commands.deployments)
cli.command("rollback")(deploy_commands.rollback)
cli.command("status")(runs.status)
cli.command("webhooks")(webhooks.webhooks)
cli.add_typer(webhooks.webhook, name="webhook")
cli.command("tables")(tables.tables)
cli.add_typer(tables.table, name="table")
cli.command("charts")(charts.charts)
cli.command("chart")(charts.chart)
cli.command("sql")(tables.sql)
cli.command("lake")(lake.lake)
cli.command("gc")(lake.gc)
cli.command("rebuild")(lake.rebuild)
cli.command("nodes")(runs.nodes)
cli.add_typer(runs.cli, name="runs")
cli.command("doctor")(doctor_command.doctor)
cli.command("backup")(backup.backup)
cli.command("restore")(backup.restore)
cli.command("migrate")(backup.migrate)
cli.command("logs")(runs.logs)
cli.command("trigger")(runs.trigger)
cli.command("replay")(replay_command.replay)


@cli.command()
def kafka(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0: a free one.")] = 9092,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Keep its data here; else it goes at the end.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a real Apache Kafka until Ctrl-C, without Docker.

    One broker for first steps and tests; it needs Java 17 or later, or the extra `tailrace[kafka-local]`.

    \b
    tailrace kafka &
    tailrace up shop --log kafka://127.0.0.1:9092
    """
    from tailrace.cli.output import print_json_line
    from tailrace.testing.kafka import run_forever

    def announce(url: str) -> None:
        if as_json:
            print_json_line({"type": "ready", "url": url})
        else:
            print(f"Kafka is ready: {url}   (Ctrl-C stops)", flush=True)

    if not as_json:
        say("starting Kafka; the first time it is fetched from Maven Central", style="dim")
    run_forever(folder=data, port=port, announce=announce)


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, and end the process with its status."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    status = _status(arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = _pipe_closed()
    sys.exit(status)


def _status(arguments: Sequence[str] | None) -> int:
    try:
        cli(args=list(arguments) if arguments is not None else None, prog_name="tailrace")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except TailraceError as error:
        return _tell(error)
    except BrokenPipeError:
        return _pipe_closed()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        return _crash(error)
    return 0


def _pipe_closed() -> int:
    """Whoever read our output has gone (`| head`): nothing more can be said to them."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_PIPE


def _tell(error: TailraceError) -> int:
    if os.environ.get(TRACEBACK_VARIABLE):
        import traceback

        traceback.print_exception(error)
    status = exit_status(error)
    say(f"error: {error}", style="red")
    hint = getattr(error, "hint", "")
    if hint:
        say(f"hint: {hint}")
    elif status == EXIT_USAGE:
        say("hint: `tailrace --help` and `tailrace COMMAND --help` tell how it is meant")
    return status


def _crash(error: Exception) -> int:
    """Something that we did not foresee: one line here, the rest in a file that can be sent to us."""
    import tempfile
    import traceback

    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error)
    text = " ".join(str(error).split())
    say(f"error: unexpected {type(error).__name__}: {text}", style="red")
    with contextlib.suppress(OSError):
        with tempfile.NamedTemporaryFile("w", prefix="tailrace-crash-", suffix=".txt", delete=False) as report:
            report.write(f"arguments: {sys.argv[1:]}\npython: {sys.version}\n\n")
            report.writelines(traceback.format_exception(error))
        say(f"hint: this is a bug; its report is in {report.name}")
    return EXIT_FAILED
