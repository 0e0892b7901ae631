"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["App", "At", "Data", "Json", "log_option"]


def log_option(text: str) -> Any:
    """The option `--log` of a command, whose help says what counts where it is not given."""
    return typer.Option("--log", envvar="TAILRACE_LOG", metavar="URL", help=text)


Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar="TAILRACE_DATA",
        metavar="DIR",
        help="Data folder of the running `up`; else the nearest .tailrace from here upward.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
At = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", help='As it was then: "2026-01-31 12:00", local time, or with a zone.'),
]
App = Annotated[str | None, typer.Option("--app", metavar="SLUG", help="The app, where several are up.")]
