"""`bulk-lake`: a node appends a frame of a million rows, until any Delta reader can read it."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa

from benchmarks.apps import bulk_app, write_app
from benchmarks.frame import frame_of
from benchmarks.read import one_run
from benchmarks.result import Result
from benchmarks.snapshot import settings_of, way
from tailrace.graph import load_app
from tailrace.log import Log, open_log
from tailrace.runner import Deployment, Host, RunnerSettings, deploy
from tailrace.runtime import Runtime
from tailrace.snapshotter import TableWish

__all__ = ["bulk_lake"]

ROWS = 1_000_000
ROWS_QUICK = 100_000
ROUNDS = 5


async def _append(log: Log, deployment: Deployment, folder: Path) -> float:
    """Milliseconds from the append in the node's code until its run is committed."""
    host = Host(log, data_dir=folder / "data", runtime=Runtime())
    await host.start()
    try:
        await host.deploy([deployment])
        run = await one_run(host, deployment.graph, next(iter(deployment.nodes.values())).node.key)
        ended_ns = time.monotonic_ns()
        assert run.kind == "ok", run.error
        began = next(line.text for line in host.journal.lines(run=run.run) if line.text.startswith("append "))
    finally:
        await host.stop()
    return (ended_ns - int(began.split()[1])) / 1e6


def bulk_lake(*, quick: bool) -> Result:
    """Append of a frame and its snapshot against `write_deltalake` of the same frame."""
    rows = ROWS_QUICK if quick else ROWS
    frame = frame_of(rows)
    append_ms: list[float] = []
    snapshot_ms: list[float] = []
    bare_ms: list[float] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        (folder / "data").mkdir()
        app = write_app(folder, bulk_app(rows))
        deployment = deploy(load_app(app), app, RunnerSettings())
        (topic,) = deployment.tables
        url = f"sqlite:///{folder / 'data' / 'tailrace.db'}"
        log = open_log(url)
        log.create_topics(deployment.topics())
        settings = replace(
            settings_of(folder / "data", url), graphs=("bulk",), tables={topic: TableWish(name="measures")}
        )
        for number in range(1 + (2 if quick else ROUNDS)):
            began_s = time.perf_counter()
            deltalake.write_deltalake(str(folder / "bare"), pa.Table.from_pandas(frame, preserve_index=False))
            took_ms = (time.perf_counter() - began_s) * 1e3
            shutil.rmtree(folder / "bare")
            appended_ms = asyncio.run(_append(log, deployment, folder))
            answer: Any = way("ours", settings)
            newest = max((folder / "data" / "lake").glob("bulk/*"), key=lambda each: each.name)
            found = deltalake.DeltaTable(str(newest)).to_pyarrow_dataset().count_rows()
            assert found == rows, f"{found} rows of {rows}"
            if number:
                bare_ms.append(took_ms)
                append_ms.append(appended_ms)
                snapshot_ms.append(answer["took_s"] * 1e3)
        _compare(newest, frame)
        log.close()
    both = [one + other for one, other in zip(append_ms, snapshot_ms, strict=True)]
    return Result(
        name="bulk-lake",
        value=statistics.median(both),
        unit="ms",
        baseline=statistics.median(bare_ms),
        what=f"append of a frame, {rows:,} rows by 10, and its snapshot to Delta",
        against="write_deltalake of the same frame",
        wanted="at most 4 times",
        met=statistics.median(a / b for a, b in zip(both, bare_ms, strict=True)) <= 4,
        extra={
            "append_ms": round(statistics.median(append_ms)),
            "snapshot_ms": round(statistics.median(snapshot_ms)),
            "samples": len(both),
            "took": [round(each) for each in both],
            "baselines": [round(each) for each in bare_ms],
        },
    )


def _compare(folder: Path, frame: Any) -> None:
    import pandas as pd

    found = deltalake.DeltaTable(str(folder)).to_pandas().sort_values("patterns_id")[list(frame.columns)]
    pd.testing.assert_frame_equal(found.reset_index(drop=True), frame, check_dtype=False)
