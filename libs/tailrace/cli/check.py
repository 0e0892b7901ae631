"""What `check` and `up` say about an app's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailrace.cli.errors import EXIT_FAILED, EXIT_OK, UsageError
from tailrace.cli.output import colours, print_json

if TYPE_CHECKING:
    from tailrace.graph import App, GraphError

__all__ = ["app_folders", "check_apps", "problem_json", "problem_line"]

ROOT_FILE = "graph.yml"


def app_folders(apps: Sequence[Path]) -> list[Path]:
    """The given apps, else the current folder when it is one.

    Raises:
        UsageError: rejected; none was given and none is here.
    """
    if apps:
        return list(apps)
    if Path(ROOT_FILE).is_file():
        return [Path()]
    raise UsageError(
        f"no app was named, and there is no {ROOT_FILE} here",
        "give the app's folder, or make one: tailrace new app NAME",
    )


def problem_json(app: str, error: GraphError) -> dict[str, Any]:
    """One thing that is wrong, for programs."""
    return {
        "app": app,
        "severity": error.severity,
        "file": error.file,
        "line": error.line,
        "node": error.node_id,
        "message": error.message,
        "hint": error.hint,
    }


def problem_line(error: GraphError, folder: str, *, colour: bool) -> str:
    """One thing that is wrong, `folder/file:line: error: message`, as compilers say it."""
    from tailrace.graph import format_error

    line = format_error(error, folder)
    code = "31" if error.severity == "error" else "33"
    head, mark, rest = line.partition(f": {error.severity}: ")
    return f"{head}: \x1b[{code};1m{error.severity}:\x1b[0m {rest}" if colour and mark else line


def check_apps(folders: Sequence[Path], *, as_json: bool) -> int:
    """Print what is wrong with the apps; returns the exit status."""
    import sys

    from tailrace.cli.apps import read_app
    from tailrace.graph import format_errors

    apps: list[tuple[Path, App]] = [(folder, read_app(folder)) for folder in folders]
    if as_json:
        print_json(
            [
                {
                    "app": app.slug,
                    "title": app.title,
                    "folder": str(folder),
                    "ok": app.ok,
                    "nodes": len(app.nodes),
                    "stores": len(app.stores),
                    "problems": [problem_json(app.slug, error) for error in app.errors],
                }
                for folder, app in apps
            ]
        )
    else:
        for folder, app in apps:
            place = "" if folder == Path() else str(folder.parent if folder.is_file() else folder)
            for error in app.errors:
                print(problem_line(error, place, colour=colours(sys.stdout)))
            print(format_errors(app).splitlines()[-1])
    return EXIT_OK if all(app.ok for _, app in apps) else EXIT_FAILED
