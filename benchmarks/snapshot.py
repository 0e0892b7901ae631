"""`snapshot`, `snapshot-memory`, `freshness`: how fast, in how much memory and how soon Tables get into the lake."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import deltalake
import orjson
import pyarrow as pa
import requests

from benchmarks.apps import write_app
from benchmarks.houses import running_house
from benchmarks.orders import MESSAGE_BYTES, messages
from benchmarks.result import Result, percentile
from tailrace.cli.keeper import SPARING
from tailrace.log import Log, NewRecord, Partition, TopicSpec, open_log
from tailrace.snapshotter import SnapshotterSettings, TableWish
from tailrace.testing.kafka import LocalKafka

__all__ = ["freshness", "settings_of", "snapshot", "snapshot_memory", "way"]

RECORDS = 2_000_000
RECORDS_QUICK = 200_000
MEMORY_TABLES = 500
MEMORY_RECORDS = 10_000_000
MEMORY_QUICK = (20, 400_000)
POSTS_S = 60.0
POSTS_S_QUICK = 20.0
APPEND_RECORDS = 10_000


def _fill(log: Log, topic: str, records: Iterator[NewRecord]) -> None:
    while some := list(islice(records, APPEND_RECORDS)):
        log.append(Partition(topic), some)


def settings_of(folder: Path, url: str) -> SnapshotterSettings:
    """A snapshotter that makes snapshots at once, of the app `bench`, and then ends."""
    return SnapshotterSettings(
        log_url=url,
        lake_url=str(folder / "lake"),
        staging_dir=str(folder / "staging"),
        graphs=("bench",),
        tables={"bench.orders": TableWish(name="orders")},
        freshness=timedelta(milliseconds=1),
        idle_exit=timedelta(0),
    )


def way(name: str, settings: SnapshotterSettings) -> dict[str, Any]:
    """Bring what is in the log into the lake, in a process of its own: `snapshot_main`, which tells of the names."""
    command = [sys.executable, "-m", "benchmarks.snapshot_main", name, orjson.dumps(settings.to_json()).decode()]
    environment = {**SPARING, **os.environ} if name == "ours" else None  # as `up` starts it
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    found: dict[str, Any] = orjson.loads(done.stdout.splitlines()[-1])
    return found


def _rows(folder: Path) -> int:
    return sum(
        deltalake.DeltaTable(str(log.parent)).to_pyarrow_dataset().count_rows()
        for log in (folder / "lake" / "bench").glob("*/_delta_log")
    )


def snapshot(*, quick: bool) -> Result:
    """A topic of posts on a real broker into a Delta table, against the same by hand."""
    count = RECORDS_QUICK if quick else RECORDS
    with tempfile.TemporaryDirectory(prefix="bench-") as name, LocalKafka(short_lived=False) as kafka:
        folder = Path(name)
        log = open_log(kafka.url)
        log.create_topics([TopicSpec("bench._index", compacted=True), TopicSpec("bench.orders")])
        _fill(log, "bench.orders", messages(count))
        log.close()
        settings = settings_of(folder, kafka.url)
        bare = way("bare", settings)
        own = way("ours", settings)
        assert _rows(folder) == count, "not every record is in the lake"
    rate, bare_rate = count / own["took_s"], count / bare["took_s"]
    return Result(
        name="snapshot",
        value=rate,
        unit="records/s",
        baseline=bare_rate,
        what=f"{count:,} JSON records of {MESSAGE_BYTES} bytes from a topic into Delta",
        against="consume, pyarrow.json, write_deltalake by hand",
        wanted="at least 0.6",
        met=rate / bare_rate >= 0.6,
        extra={"peak_mb": round(own["peak_bytes"] / 1e6), "baseline_peak_mb": round(bare["peak_bytes"] / 1e6)},
    )


def snapshot_memory(*, quick: bool) -> Result:
    """Most resident memory while many tables get into the lake."""
    tables, count = MEMORY_QUICK if quick else (MEMORY_TABLES, MEMORY_RECORDS)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'log.db'}"
        log = open_log(url)
        topics = [f"bench.t{number}" for number in range(tables)]
        log.create_topics([TopicSpec("bench._index", compacted=True), *map(TopicSpec, topics)])
        for number, topic in enumerate(topics):
            _fill(log, topic, messages(count // tables))
            if number % 50 == 49:
                print(f"{number + 1} of {tables} tables are filled", file=sys.stderr, flush=True)
        log.close()
        found = way("ours", settings_of(folder, url))
        assert _rows(folder) == count // tables * tables, "not every record is in the lake"
    peak_mb = found["peak_bytes"] / 1e6
    return Result(
        name="snapshot-memory",
        value=peak_mb,
        unit="MB",
        baseline=600,
        what=f"most resident memory: {count:,} records over {tables} tables into Delta",
        against="the bound",
        wanted="at most 600 MB",
        met=peak_mb <= 600,
        extra={"took_s": round(found["took_s"], 1)},
    )


def freshness(*, quick: bool) -> Result:
    """How old posts are when any Delta reader sees them, for a table by default and for one that asks for a second."""
    posts_s = POSTS_S_QUICK if quick else POSTS_S
    graph = "title: Bench\nslug: bench\nfunctions:\n"
    graph += "  - {webhook: plain, id: w1}\n  - {webhook: fast, id: w2}\nstores:\n"
    graph += "  - {table: plain, id: t1}\n  - {table: fast, id: t2, freshness: 1s}\n"
    posted: dict[str, list[float]] = {"t1": [], "t2": []}
    ages: dict[str, list[float]] = {"t1": [], "t2": []}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        app = write_app(folder, {"graph.yml": graph})
        with running_house([app], folder / "data", folder / "out") as house:
            until_s = time.monotonic() + posts_s
            while time.monotonic() < until_s or any(len(ages[each]) < len(posted[each]) for each in ages):
                if time.monotonic() < until_s:
                    for webhook, store in (("w1", "t1"), ("w2", "t2")):
                        requests.post(f"{house.url}/webhooks/{webhook}", json={"n": 1}, timeout=10).raise_for_status()
                        posted[store].append(time.monotonic())
                time.sleep(0.05)
                for store in ages:
                    visible = _visible(folder / "data" / "lake" / "bench", store)
                    now_s = time.monotonic()
                    ages[store] += [now_s - at_s for at_s in posted[store][len(ages[store]) : visible]]
                if time.monotonic() > until_s + 60:
                    raise TimeoutError("posts do not get into the lake")
    first_s = ages["t2"][0]  # the snapshotter's process was still starting
    fast = [age for age, at in zip(ages["t2"], posted["t2"], strict=True) if at > posted["t2"][0] + first_s]
    plain_s, fast_s = max(ages["t1"]), max(fast)
    return Result(
        name="freshness",
        value=plain_s,
        unit="s",
        baseline=10,
        what="oldest post that was not yet in the lake, default cadence",
        against="the bound",
        wanted="at most 10 s; 2 s with freshness: 1s",
        met=plain_s <= 10 and fast_s <= 2,
        extra={
            "fast_s": round(fast_s, 2),
            "fast_s_p50": round(percentile(fast, 0.5), 2),
            "first_s": round(first_s, 2),
            "plain_s_p50": round(percentile(ages["t1"], 0.5), 2),
        },
    )


def _visible(lake: Path, store: str) -> int:
    """Rows that a Delta reader sees."""
    found = 0
    for log in lake.glob(f"{store}_*/_delta_log"):
        if any(log.glob("*.json")):
            actions = pa.table(deltalake.DeltaTable(str(log.parent)).get_add_actions(flatten=True))
            found += sum(int(value or 0) for value in actions.column("num_records").to_pylist())
    return found
