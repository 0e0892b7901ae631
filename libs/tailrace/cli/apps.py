"""The apps that a command is given: folders with a `graph.yml`, or graph files of another name."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tailrace.errors import RejectedError
from tailrace.graph import App, GraphError, load_app

__all__ = ["NoGraphError", "SameSlugError", "different", "read_app", "usable_app", "whoami"]


class NoGraphError(RejectedError):
    """What was named holds no graph that could run, not even in part."""

    def __init__(self, folder: Path, errors: tuple[GraphError, ...]) -> None:
        self.folder, self.errors = folder, errors
        first = next((error for error in errors if error.severity == "error"), None)
        why = f": {first.file}:{first.line}: {first.message}" if first else ""
        self.hint = (first.hint if first else "") or f"`tailrace check {folder}` tells all that is wrong"
        super().__init__(f"{folder} holds no graph that can run{why}")


class SameSlugError(RejectedError):
    """Two deployed apps have the same slug, so they would share topics."""

    def __init__(self, slug: str) -> None:
        self.slug = slug
        super().__init__(f"two apps have the slug {slug!r}: give one of them another `slug:` in its graph.yml")


def read_app(place: Path) -> App:
    """The app in a folder, or of a graph file; what is wrong with it is in its `errors`."""
    app = load_app(place.resolve().parent, place.name) if place.is_file() else load_app(place)
    if not any(webhook.extra or webhook.parameter_values for webhook in app.webhooks):
        return app
    from tailrace.gateway import webhook_problems

    errors = sorted((*app.errors, *webhook_problems(app)), key=lambda error: (error.file, error.line, error.message))
    return replace(app, errors=tuple(errors))


def usable_app(place: Path) -> App:
    """The app, if at least a part of it can run.

    Raises:
        NoGraphError: rejected; there is nothing to run.
    """
    app = read_app(place)
    if not app.ok and not app.nodes and not app.stores:
        raise NoGraphError(place, app.errors)
    return app


def different(apps: Iterable[App]) -> None:
    """Refuse apps that have the same name.

    Raises:
        SameSlugError: rejected; two have.
    """
    seen: set[str] = set()
    for app in apps:
        if app.slug in seen:
            raise SameSlugError(app.slug)
        seen.add(app.slug)


def whoami() -> str:
    """Who deploys, for the history: `user@machine`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in containers there are users without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
