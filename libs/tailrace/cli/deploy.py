"""`deploy`, `undeploy`, `deployments`, `rollback`: which apps run on a log, and in which version.

They speak to the log itself, not to a running `up`: whatever follows it (runners, gateways, snapshotters, `up`) takes a
deployment over, now or when it starts next.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrace.cli.errors import EXIT_FAILED, UsageError
from tailrace.cli.options import Data, Json, log_option
from tailrace.cli.output import colours, count, moment, print_json, print_table, printable, say

if TYPE_CHECKING:
    from tailrace.control import Changes, ControlLog, Deployed, DeployedApp, Deployments
    from tailrace.graph import App

__all__ = ["deploy", "deployments", "rollback", "undeploy"]

LOG_FILE = "tailrace.db"
DATA_FOLDER = ".tailrace"

LogUrl = Annotated[str | None, log_option("sqlite:///path.db or kafka://host:9092; else the log in the data folder.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")]


def deploy(
    apps: Annotated[
        list[Path] | None, typer.Argument(metavar="APP", help="Folders with a graph.yml; else this one.")
    ] = None,
    log: LogUrl = None,
    dry_run: DryRun = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Have whatever runs on a log take over apps as they are here.

    They are checked first: with an error in one of them nothing is deployed, and what runs goes on.

    \b
    tailrace deploy shop --log kafka://localhost:9092
    tailrace deploy shop --dry-run
    """
    from tailrace.cli.apps import read_app
    from tailrace.cli.check import app_folders
    from tailrace.runner import check_parallelism

    read = [(folder, read_app(folder)) for folder in app_folders(apps or [])]
    if not _usable(read, as_json=as_json):
        raise typer.Exit(EXIT_FAILED)
    with _control(log, data) as control:
        _check_together(control, [app for _, app in read])
        for _, app in read:
            check_parallelism(control.log, app)
        _report([_deployed(control, app, dry_run=dry_run) for _, app in read], dry_run, as_json)


def undeploy(
    app: Annotated[str, typer.Argument(metavar="APP", help="Its slug.")],
    log: LogUrl = None,
    dry_run: DryRun = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Have nothing run under that slug any more. Its Tables and its versions stay: `rollback` brings it back.

    \b
    tailrace undeploy shop
    """
    from tailrace.cli.apps import whoami
    from tailrace.control import NoSuchDeploymentError, changes

    with _control(log, data) as control:
        now = control.read()
        running = now.running(app)
        if running is None:
            raise NoSuchDeploymentError(app, None, now.current)
        difference = changes(_app_of(control, now, app), None)
        if not dry_run:
            control.undeploy(app, whoami())
        _report([_Done(running.event, difference, is_new=True)], dry_run, as_json, word="undeployed")


def rollback(
    app: Annotated[str, typer.Argument(metavar="APP", help="Its slug.")],
    to: Annotated[
        int | None, typer.Option("--to", metavar="VERSION", min=1, help="Else the last that was another.")
    ] = None,
    log: LogUrl = None,
    dry_run: DryRun = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Deploy an older version of an app once more.

    Its nodes go on with the State and the places that they have now; Tables stay as they are.

    \b
    tailrace rollback shop
    tailrace rollback shop --to 3
    """
    from tailrace.cli.apps import whoami
    from tailrace.control import changes
    from tailrace.runner import check_parallelism

    with _control(log, data) as control:
        now = control.read()
        older = now.version(app, to)
        wanted = control.app_of(older).app
        check_parallelism(control.log, wanted)
        difference = changes(_app_of(control, now, app), wanted)
        event, is_new = older.event, True
        if not dry_run:
            event, is_new = control.roll_back(app, older.event.version, whoami())
        _report([_Done(event, difference, is_new=is_new)], dry_run, as_json)


def deployments(
    app: Annotated[str | None, typer.Argument(metavar="APP", help="Its slug: all its versions.")] = None,
    log: LogUrl = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """What is deployed on a log; of one app, all versions that it can be rolled back to, oldest first.

    \b
    tailrace deployments
    tailrace deployments shop --json | jq '.[].version'
    """
    from tailrace.control import NoSuchDeploymentError

    with _control(log, data) as control:
        known = control.read()
    if app is not None and app not in known.apps:
        raise NoSuchDeploymentError(app, None, known.apps)
    shown = [each for each in known.apps if app in (None, each)]
    found = [
        {**_json(each.event), "runs": running is not None and each.event.version == running.event.version}
        for slug in shown
        for running in [known.running(slug)]
        for each in (known.history(slug) if app is not None else known.history(slug)[-1:])
    ]
    if as_json:
        print_json(found)
        return
    if not found:
        say("nothing was deployed yet")
        return
    rows = [
        (
            each["app"],
            each["version"],
            "runs" if each["runs"] else "",
            moment(each["at_ms"]),
            each["by"],
            f"back to {each['back_to']}" if each["back_to"] else "",
            each["content"],
        )
        for each in found
    ]
    print_table(("app", "version", "", "deployed", "by", "note", "content"), rows, right=("version",))


class _Done:
    """What a deployment led to, or would."""

    def __init__(self, event: Deployed, changes: Changes, *, is_new: bool) -> None:
        self.event, self.changes, self.is_new = event, changes, is_new


@contextlib.contextmanager
def _control(url: str | None, data: Path | None) -> Iterator[ControlLog]:
    from tailrace.control import ControlLog
    from tailrace.log import open_log

    with contextlib.closing(open_log(log_url(url, data))) as log:
        yield ControlLog(log)


def log_url(url: str | None, data: Path | None) -> str:
    """The log that is meant: the one named, else that of the data folder, else of the nearest one upward.

    Raises:
        UsageError: rejected; there is none.
    """
    if url is not None:
        return url
    here = Path.cwd()
    folders = [data] if data is not None else [folder / DATA_FOLDER for folder in (here, *here.parents)]
    found = next((folder / LOG_FILE for folder in folders if (folder / LOG_FILE).is_file()), None)
    if found is None:
        where = f"in {data}" if data is not None else f"from {here} upward"
        raise UsageError(f"there is no log {where}", "name one with --log, such as --log kafka://localhost:9092")
    return f"sqlite:///{found.resolve()}"


def _usable(apps: Sequence[tuple[Path, App]], *, as_json: bool) -> bool:
    """Say what is wrong; whether nothing of it is an error."""
    from tailrace.cli.check import problem_json, problem_line

    problems = [(folder, app, error) for folder, app in apps for error in app.errors]
    usable = all(app.ok for _, app in apps)
    if as_json and not usable:
        print_json({"deployed": [], "problems": [problem_json(app.slug, error) for _, app, error in problems]})
        return False
    for folder, _, error in problems:
        place = "" if folder == Path() else str(folder.parent if folder.is_file() else folder)
        print(problem_line(error, place, colour=colours(sys.stderr)), file=sys.stderr, flush=True)
    if not usable:
        say("nothing was deployed: what runs goes on", style="red")
    return usable


def _check_together(control: ControlLog, apps: Sequence[App]) -> None:
    """Refuse apps that cannot run beside each other, or beside what runs.

    Raises:
        SameSlugError, DoubleWebhookError: rejected.
    """
    from tailrace.cli.apps import different
    from tailrace.gateway import webhook_routes

    different(apps)
    slugs = {app.slug for app in apps}
    now = control.read()
    others = [each.app for slug in now.current if slug not in slugs and (each := _version_of(control, now, slug))]
    webhook_routes([*others, *apps])


def _version_of(control: ControlLog, now: Deployments, slug: str) -> DeployedApp | None:
    """What runs under a slug; None where nothing does, or what does cannot be read."""
    from tailrace.control import BadArchiveError

    running = now.running(slug)
    with contextlib.suppress(BadArchiveError):
        return control.app_of(running) if running is not None else None
    return None


def _app_of(control: ControlLog, now: Deployments, slug: str) -> App | None:
    found = _version_of(control, now, slug)
    return found.app if found is not None else None


def _deployed(control: ControlLog, app: App, *, dry_run: bool) -> _Done:
    from tailrace.cli.apps import whoami
    from tailrace.control import changes

    difference = changes(_app_of(control, control.read(), app.slug), app)
    if dry_run:
        event, is_new = control.planned(app, whoami())
    else:
        event, is_new = control.deploy(app, whoami())
    return _Done(event, difference, is_new=is_new)


def _report(done: Sequence[_Done], dry_run: bool, as_json: bool, *, word: str = "deployed") -> None:
    if as_json:
        entries = [{**_json(each.event), "new": each.is_new, "changes": asdict(each.changes)} for each in done]
        print_json({word: entries, "dry_run": dry_run})
        return
    for each in done:
        name = f"{each.event.app} version {each.event.version}"
        if not each.is_new:
            print(f"{name} runs already", flush=True)
            continue
        print(f"{name} {'would be ' if dry_run else ''}{word}", flush=True)
        for line in _lines(each.changes):
            print(f"  {printable(line)}", flush=True)


def _lines(changes: Changes) -> Iterator[str]:
    for sign, what in (("+", changes.added), ("~", changes.changed), ("-", changes.removed)):
        for title in what:
            yield f"{sign} {title}"
    for sign, what in (("+", changes.tables_added), ("-", changes.tables_removed)):
        for name in what:
            yield f"{sign} table {name}"
    if changes.unchanged:
        yield f"  {count(changes.unchanged, 'node')} unchanged"


def _json(event: Deployed) -> dict[str, Any]:
    return {name: value for name, value in asdict(event).items() if name not in ("archive", "root_file")}
