"""`memory`: what host and worker hold while a node consumes millions of records, and reads a large table in chunks."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from benchmarks.apps import MEMORY, topics, write_app
from benchmarks.bulk import trigger
from benchmarks.frame import frame_of
from benchmarks.houses import RunningHouse, process_tree, rss_peak_bytes, running_house, snapshotters
from benchmarks.orders import changed, messages, rows_of
from benchmarks.readers import TopicReader, fill
from benchmarks.result import Result
from tailrace.log import NewRecord, Partition, TopicSpec, open_log
from tailrace.tables import file_message
from tailrace.tables.schema import fields_to_json, infer_frame

__all__ = ["memory"]

RECORDS, RECORDS_QUICK = 2_000_000, 100_000
ROWS, ROWS_QUICK = 1_000_000, 200_000
BYTES_MAX = 500 * 1_000_000


def memory(*, quick: bool) -> Result:
    """Highest resident memory of the host and of any worker, shared pages included."""
    records, rows = (RECORDS_QUICK, ROWS_QUICK) if quick else (RECORDS, ROWS)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        app = write_app(folder, MEMORY)
        tables = topics(app)
        log = open_log(f"sqlite:///{folder / 'data' / 'tailrace.db'}")
        _fill_orders(log, tables["orders"], records)
        total = _fill_measures(log, tables["measures"], folder / "data" / "staging", rows)
        log.create_topics([TopicSpec(tables["totals"])])
        reader = TopicReader(log, tables["totals"])
        with running_house([app], folder / "data", folder / "entries.jsonl") as house, _peaks(house) as (peaks, lake):
            began_s = time.monotonic()
            seen = asyncio.run(_consume(reader, records, house))
            took_s = time.monotonic() - began_s
            asyncio.run(trigger(house, "chunks.py"))
            told = f"rows {rows} total {total:.3f}"
            house.wait_for(lambda: told in [line["text"] for line in house.entries("line")], told)
            stats = {"host": max(peaks.get(house.process.pid, 0), rss_peak_bytes(house.process.pid))}
            others = peaks.keys() - lake - {house.process.pid}
            stats["worker"] = max((peaks[pid] for pid in others), default=0)
        reader.close()
        log.close()
    assert seen == records
    worst = max(stats.values())
    return Result(
        name="memory",
        value=worst / 1e6,
        unit="MB",
        baseline=BYTES_MAX / 1e6,
        what=f"most memory of one process: {records:,} records streamed, {rows:,} rows read in chunks",
        against="the bound",
        wanted="host and worker under 500 MB each",
        met=worst < BYTES_MAX,
        extra={
            "host_MB": round(stats["host"] / 1e6),
            "worker_MB": round(stats["worker"] / 1e6),
            "snapshotter_MB": round(max((peaks.get(pid, 0) for pid in lake), default=0) / 1e6),
            "records_per_s": round(records / took_s),
        },
    )


async def _consume(reader: TopicReader, records: int, house: RunningHouse) -> int:
    """Check each output as it comes and forget it: this process is not what is measured."""
    expected = (changed(row) for record in messages(records) for row in rows_of([record.value or b""]))
    seen = 0
    while seen < records:
        await reader.until(reader.rows + 1, 60)
        if house.process.poll() is not None:
            raise RuntimeError("the house ended")
        for row in rows_of(reader.values):
            assert row == next(expected), f"output {seen} differs"
            seen += 1
        reader.values.clear()
        reader.seen_ns.clear()
    return seen


def _fill_orders(log: object, topic: str, count: int) -> None:
    some: list[NewRecord] = []
    for record in messages(count):
        some.append(record)
        if len(some) == 20_000:
            fill(log, topic, some)  # type: ignore[arg-type]
            some = []
    fill(log, topic, some)  # type: ignore[arg-type]


def _fill_measures(log: object, topic: str, staging: Path, rows: int) -> float:
    """A table of one staged file, as a bulk append leaves it; returns the sum of its `value` column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    frame = frame_of(rows)
    path = "bench/0.0/0.parquet"
    (staging / path).parent.mkdir(parents=True)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.set_column(8, "at", table.column("at").cast(pa.timestamp("us")))
    pq.write_table(table, staging / path, row_group_size=65_536)
    groups = pq.ParquetFile(staging / path).metadata
    head = {
        "ts": time.time_ns() // 1_000_000,
        "node": "upstream",
        "fields": fields_to_json(infer_frame(frame)),
        "settings": {},
    }
    out = [
        NewRecord(file_message(head, path, group, groups.row_group(group).num_rows))
        for group in range(groups.num_row_groups)
    ]
    log.create_topics([TopicSpec(topic)])  # type: ignore[attr-defined]
    log.append(Partition(topic), out)  # type: ignore[attr-defined]
    assert orjson.loads(out[0].value or b"")["kind"] == "file"
    return float(frame["value"].sum())


@contextlib.contextmanager
def _peaks(house: RunningHouse) -> Iterator[tuple[dict[int, int], set[int]]]:
    """The highest resident memory of each process of the house, looked at all the while; and which of them were
    snapshotters, whose bound is that of `snapshot-memory`."""
    peaks: dict[int, int] = {}
    lake: set[int] = set()
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            lake.update(snapshotters(house.process.pid))
            for pid in process_tree(house.process.pid):
                peaks[pid] = max(peaks.get(pid, 0), rss_peak_bytes(pid))

    thread = threading.Thread(target=look, name="peaks", daemon=True)
    thread.start()
    try:
        yield peaks, lake
    finally:
        done.set()
        thread.join()
