"""The `tailrace` command, to be forked by `forked.py`."""

from __future__ import annotations

from collections.abc import Sequence

import requests  # noqa: F401 - what the commands load when they run is loaded once
import rich.table
import rich.text  # noqa: F401

import tailrace.cli.client
import tailrace.cli.feed
import tailrace.cli.up  # noqa: F401
from tailrace.cli.app import run


def main(arguments: Sequence[str]) -> None:
    """One command; ends by SystemExit, with its status."""
    run(arguments)
