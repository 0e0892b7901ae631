"""The `tailrace` command, with hosts whose streams hand out for longer at a time.

The golden apps tell what streams hand out. How much of it comes in one run is a matter of time (60 ms of loops), which a
busy machine uses up amid thirty rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import tailrace.cli.up
import tailrace.runner.host
from tailrace.cli.app import run
from tailrace.engine import EngineLimits

SHARE_MS = 10_000


def main(arguments: Sequence[str]) -> None:
    """One command; ends by SystemExit, with its status."""
    tailrace.runner.host.EngineLimits = partial(EngineLimits, share_ms=SHARE_MS)  # type: ignore[assignment, misc]
    run(arguments)
