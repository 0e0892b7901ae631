"""A shard that is lost while something of it is being committed: each run's effects are there once, and whole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tailrace.control import place_files
from tailrace.engine import Event, RunEnded
from tailrace.graph import build_app
from tailrace.log import Commit, Log, OutcomeUnknownError, open_log
from tailrace.runner import Host, RunnerSettings, deploy
from tailrace.runtime import SYSTEM

GRAPH = """
slug: lost
functions:
  - {node_file: fill.py, id: lfill001}
stores:
  - {table: out, id: lout0001}
"""
FILL = """
import pandas as pd
from patterns import Table
Table("out", "w").append(pd.DataFrame({"n": range(ROWS), "name": [f"name {n}" for n in range(ROWS)]}))
"""
STAGED = 70_000
"""So many rows are not in messages but in files that these name."""

pytestmark = pytest.mark.timeout(120)


@contextlib.asynccontextmanager
async def hosting(log: Log, folder: Path) -> AsyncIterator[Host]:
    host = Host(log, data_dir=folder / "data", runtime=SYSTEM, settings=RunnerSettings())
    await host.start()
    try:
        yield host
    finally:
        await host.stop()


async def fill(host: Host, folder: Path, rows: int) -> None:
    app = build_app({"graph.yml": GRAPH.encode(), "fill.py": FILL.replace("ROWS", str(rows)).encode()})
    await host.deploy([deploy(app, place_files(app, folder / "apps"), RunnerSettings())])


async def count(host: Host) -> int:
    query = {"sql": "select count(*) as n, max(name) as m from out"}
    answer = orjson.loads(b"".join([piece async for piece in host.ask("lost", "query", query)]))
    return int(answer["rows"][0][0])


async def until_idle(host: Host) -> None:
    """Until the node has run and nothing of it waits to be committed."""
    async with asyncio.timeout(60):
        while host._engine.busy or not ((record := host._engine.record("lost/lfill001")) and record.ran):
            await asyncio.sleep(0.02)


@pytest.fixture
def log(tmp_path: Path) -> Any:
    with contextlib.closing(open_log(f"sqlite:///{tmp_path / 'log.db'}")) as log:
        yield log


async def test_a_commit_that_was_not_begun_when_the_shard_was_lost_writes_nothing(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would say of the run, whose rows are dropped by then, that it was: they would never come."""
    async with hosting(log, tmp_path) as host:
        post, lost = host._post, []

        def losing(event: Event) -> None:
            post(event)
            if isinstance(event, RunEnded) and not lost:
                lost.append(event)
                (shard,) = host._shards.openings
                host._lose(shard, "as the retention of removed nodes does")

        monkeypatch.setattr(host, "_post", losing)
        await fill(host, tmp_path, 3)
        await until_idle(host)
        assert lost and await count(host) == 3


async def test_files_that_a_commit_of_unknown_outcome_names_stay(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has it after all, and the run is not run again."""
    open_writer, unknown = log.open_writer, []

    def opening(name: str) -> Any:
        writer = open_writer(name)
        commit = writer.commit

        def losing_the_answer(*arguments: Any) -> Commit:
            done = commit(*arguments)
            if unknown or not any(append.partition.topic == "lost.lout0001" for append in arguments[0]):
                return done
            unknown.append(done)
            raise OutcomeUnknownError("this commit", "the connection broke")

        monkeypatch.setattr(writer, "commit", losing_the_answer)
        return writer

    monkeypatch.setattr(log, "open_writer", opening)
    async with hosting(log, tmp_path) as host:
        await fill(host, tmp_path, STAGED)
        await until_idle(host)
        assert unknown and await count(host) == STAGED
