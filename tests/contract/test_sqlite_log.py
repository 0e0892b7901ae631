"""The log's contract on SQLite, and what SQLite alone has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from log_contract import LogContract, MakeLog

from tailrace.log import Log, LogLimits, open_log
from tailrace.runtime import SYSTEM, Runtime


class TestSqliteLog(LogContract):
    """On a new file each."""

    @pytest.fixture
    def log_url(self, tmp_path: Path) -> str:
        return f"sqlite://{tmp_path}/data/tailrace.db"

    @pytest.fixture
    def commit_points(self) -> tuple[str, str]:
        return "sqlite-commit-before", "sqlite-commit-after"

    @pytest.fixture
    def make_log(self, log_url: str) -> Iterator[MakeLog]:
        handles: list[Log] = []

        def make(*, limits: LogLimits | None = None, runtime: Runtime = SYSTEM) -> Log:
            handles.append(open_log(log_url, limits=limits, runtime=runtime))
            return handles[-1]

        yield make
        for handle in handles:
            handle.close()
