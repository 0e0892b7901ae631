"""`read`: one aggregate in SQL over a table that lies in the lake, with a tail in the log."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from benchmarks.apps import READ, write_app
from benchmarks.result import Result
from tailrace.graph import load_app
from tailrace.lake import LakeLocation, SnapshotFiles, TopicSource, snapshot_version
from tailrace.log import Log, NewRecord, Offset, Partition, open_log, scan
from tailrace.runner import Deployment, Entry, Host, RunEntry, RunnerSettings, deploy
from tailrace.runtime import Runtime
from tailrace.tables import Messages, Snapshot, StagedFiles, TableFold, rows_message
from tailrace.tables.messages import file_message

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["one_run", "read"]

ROWS = 10_000_000
ROWS_QUICK = 1_000_000
TAIL_ROWS = 100_000
ROUNDS = 9
GROUP_ROWS = 65_536
FIELDS = {"number": "Integer", "city": "Text", "amount": "Integer", "value": "Float"}
QUERY = "select city, count(*) as n, sum(amount) as total, max(value) as highest from {} group by city order by city"


class _Messages:
    """The table's topic as a snapshot reads it."""

    def __init__(self, log: Log, partition: Partition) -> None:
        self._log, self._partition = log, partition

    def scan(self, start: int, stop: int) -> Iterator[Messages]:
        for batch in scan(self._log, self._partition, Offset(start), Offset(stop)):
            values = [record.value or b"" for record in batch.records]
            offsets = [record.offset for record in batch.records]
            times = [record.ts_ms for record in batch.records]
            yield Messages(offsets, times, [len(value) for value in values], b",".join(values))


def _rows(start: int, rows: int) -> pa.Table:
    import numpy as np
    import pyarrow as pa

    random = np.random.default_rng(start)
    cities = pa.array([f"city-{at:03}" for at in range(200)])
    columns: dict[str, Any] = {
        "number": np.arange(start, start + rows),
        "city": cities.take(pa.array(random.integers(0, 200, rows), pa.int64())),
        "amount": random.integers(0, 10_000, rows),
        "value": random.random(rows),
    }
    return pa.table(columns)


def _fill(log: Log, deployment: Deployment, folder: Path, rows: int) -> tuple[Snapshot, list[Path]]:
    """Rows in bulk, a snapshot of them, a log that was trimmed behind it, and a tail of JSON rows."""
    import pyarrow.parquet as pq

    (topic,) = (topic for topic, table in deployment.tables.items() if table.store.name == "measures")
    info = log.create_topics(deployment.topics())[topic]
    partition = Partition(topic)
    staged = folder / "data" / "staging" / "bench.0"
    staged.mkdir(parents=True)
    head = {"ts": 1_700_000_000_000, "fields": FIELDS}
    with pq.ParquetWriter(staged / "0.parquet", _rows(0, 1).schema, compression="snappy") as writer:
        for group, start in enumerate(range(0, rows, GROUP_ROWS)):
            count = min(GROUP_ROWS, rows - start)
            writer.write_table(_rows(start, count), row_group_size=count)
            log.append(partition, [NewRecord(file_message(head, "bench.0/0.parquet", group, count))])
    fold = TableFold("measures")
    end = log.ends([partition])[partition]
    for batch in scan(log, partition, Offset(0), end):
        fold.advance(((record.offset, record.ts_ms, record.value) for record in batch.records), batch.next)
    source = TopicSource(topic, info.born_ms, _Messages(log, partition), StagedFiles(folder / "data" / "staging"))
    location = LakeLocation.parse(str(folder / "data" / "lake"))
    assert fold.active is not None
    snapshot = snapshot_version(location, source, fold, fold.active.name).snapshot
    index = Partition(deployment.index_topic)
    born = {"born_ms": info.born_ms}
    log.append(index, [NewRecord(orjson.dumps({**fold.to_json(), **born}), topic.encode())])
    key = f"{topic}@{snapshot.version}".encode()
    log.append(index, [NewRecord(orjson.dumps({**snapshot.to_json(), **born}), key)])
    log.trim(partition, end)
    tail = _rows(rows, TAIL_ROWS).to_pylist()
    for start in range(0, TAIL_ROWS, 100):
        part = tail[start : start + 100]
        body = orjson.dumps(part)
        log.append(partition, [NewRecord(rows_message({"kind": "rows", **head, "n": len(part)}, body))])
    base = location.local_path(snapshot.folder)
    return snapshot, [base / file.path for file in snapshot.files]


def _by_hand(paths: list[Path]) -> tuple[float, Any]:
    """The same aggregate with DuckDB alone, over the files alone, connecting included."""
    import duckdb

    began_s = time.perf_counter()
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2")
        names = ", ".join(f"'{path}'" for path in paths)
        found = connection.sql(QUERY.format(f"read_parquet([{names}])")).to_arrow_table()
    return (time.perf_counter() - began_s) * 1e3, found


async def one_run(host: Host, graph: str, node: str) -> RunEntry:
    """Trigger a node, and wait for the end of its run."""
    told: asyncio.Future[RunEntry] = asyncio.get_running_loop().create_future()

    def tell(entry: Entry) -> None:
        if isinstance(entry, RunEntry) and not told.done():
            told.set_result(entry)

    stop = host.journal.listen(tell)
    await host.trigger(graph, node)
    async with asyncio.timeout(300):
        run = await told
    stop()
    return run


async def _measure(log: Log, deployment: Deployment, folder: Path, paths: list[Path], rounds: int) -> dict[str, Any]:
    location = LakeLocation.parse(str(folder / "data" / "lake"))
    files = SnapshotFiles(location, folder / "cache")
    host = Host(log, data_dir=folder / "data", runtime=Runtime(), fetch=files.fetch, lake_dir=files.root)
    found: dict[str, Any] = {"took_ms": [], "baselines_ms": [], "run_ms": [], "results": []}
    await host.start()
    try:
        await host.deploy([deployment])
        node = next(iter(deployment.nodes.values())).node.key
        for number in range(rounds + 1):
            took_ms, _ = await asyncio.to_thread(_by_hand, paths)
            run = await one_run(host, deployment.graph, node)
            assert run.kind == "ok", run.error
            lines = [line.text for line in host.journal.lines(run=run.run) if line.text.startswith("{")]
            answer = orjson.loads(lines[-1])
            if number:
                found["took_ms"].append(answer["took_ms"])
                found["run_ms"].append(run.duration_ms)
                found["baselines_ms"].append(took_ms)
            found["first_ms"] = found.get("first_ms", answer["took_ms"])
            found["results"].append(answer["rows"])
    finally:
        await host.stop()
    return found


def read(*, quick: bool) -> Result:
    """`read_sql` in a node against DuckDB on the same Parquet files."""
    rows = ROWS_QUICK if quick else ROWS
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        app = write_app(folder, READ)
        deployment = deploy(load_app(app), app, RunnerSettings())
        (folder / "data").mkdir()
        log = open_log(f"sqlite:///{folder / 'data' / 'tailrace.db'}")
        try:
            snapshot, paths = _fill(log, deployment, folder, rows)
            assert snapshot.rows == rows
            found = asyncio.run(_measure(log, deployment, folder, paths, 3 if quick else ROUNDS))
        finally:
            log.close()
        size_bytes = sum(path.stat().st_size for path in paths)
        _, wanted = _by_hand([*paths, _tail_file(folder, rows)])
    expected = [[each["city"], each["n"], int(each["total"]), each["highest"]] for each in wanted.to_pylist()]
    for result in found["results"]:
        assert result == expected, f"other results: {result[:2]} and {expected[:2]}"
    ratios = [a / b for a, b in zip(found["took_ms"], found["baselines_ms"], strict=True)]
    return Result(
        name="read",
        value=statistics.median(found["took_ms"]),
        unit="ms",
        baseline=statistics.median(found["baselines_ms"]),
        what=f"one aggregate by read_sql over {rows:,} rows in a snapshot and {TAIL_ROWS:,} in the log",
        against="DuckDB on the snapshot's Parquet files, without the tail",
        wanted="at most 1.5 times",
        met=statistics.median(ratios) <= 1.5,
        extra={
            "files": len(paths),
            "files_mb": round(size_bytes / 1e6),
            "run_ms": round(statistics.median(found["run_ms"])),
            "first_ms": round(found["first_ms"]),
            "took": [round(each) for each in found["took_ms"]],
            "baselines": [round(each) for each in found["baselines_ms"]],
        },
    )


def _tail_file(folder: Path, rows: int) -> Path:
    import pyarrow.parquet as pq

    pq.write_table(_rows(rows, TAIL_ROWS), folder / "tail.parquet")
    return folder / "tail.parquet"
