"""An app in memory whose nodes are written in the tests themselves."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from tailrace.testing.app import TestApp, TestRun


class Nodes:
    """Runs node code over tables in memory."""

    def __init__(self, folder: Path, *stores: str) -> None:
        self.app = TestApp(folder, stores=stores, staging=folder / "staging")
        self.folder = folder

    def run(self, code: str, *, name: str = "node.py", **changes: Any) -> TestRun:
        """Run code as the node `name`."""
        prelude = "" if name.endswith(".sql") else "from patterns import *\n"
        (self.folder / name).write_text(prelude + textwrap.dedent(code))
        return self.app.run(name, **changes)

    def ok(self, code: str, **changes: Any) -> TestRun:
        """Run code that must end well."""
        run = self.run(code, **changes)
        assert run.ok, run.outcome.traceback
        return run

    def rows(self, table: str) -> list[dict[str, Any]]:
        """A table's rows, without ids."""
        return self.app.read(table)
