"""`live-embedded`, `live-kafka` and `fire`: how long one thing takes from its arrival to its effect."""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from benchmarks.apps import FIRE, STREAM, topics, write_app
from benchmarks.houses import RunningHouse, running_house
from benchmarks.orders import changed, order, rows_of
from benchmarks.readers import TopicReader
from benchmarks.result import Result, percentile
from tailrace.log import Log, NewRecord, Partition, TopicSpec, open_log
from tailrace.tables import rows_message

__all__ = ["embedded", "fire", "kafka"]

COUNT = 300
COUNT_QUICK = 40
WARM_UP = 20

FIRE_ROWS = 1_000
"""Rows of the upstream batch."""


def embedded(*, quick: bool) -> Result:
    """One post at a time through the stream sample, on the embedded log."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'data' / 'tailrace.db'}"
        return _live("live-embedded", None, url, folder, 15, COUNT_QUICK if quick else COUNT)


def kafka(*, quick: bool) -> Result:
    """The same on a real broker."""
    from tailrace.testing.kafka import LocalKafka

    with LocalKafka(short_lived=False) as broker, tempfile.TemporaryDirectory(prefix="bench-") as name:
        return _live("live-kafka", broker.url, broker.url, Path(name), 40, COUNT_QUICK if quick else COUNT)


def _live(name: str, house_url: str | None, url: str, folder: Path, wanted_ms: float, count: int) -> Result:
    app = write_app(folder, STREAM)
    tables = topics(app)
    with running_house([app], folder / "data", folder / "entries.jsonl", log_url=house_url) as house:
        log = open_log(url)
        try:
            times_ms, bare_ms = asyncio.run(_post_and_watch(log, house, tables["totals"], count))
        finally:
            log.close()
    median_ms = statistics.median(times_ms)
    return Result(
        name=name,
        value=median_ms,
        unit="ms",
        baseline=statistics.median(bare_ms),
        what="POST to its output's being visible, one at a time",
        against="the log alone: append to read by another handle",
        wanted=f"median at most {wanted_ms:g} ms",
        met=median_ms <= wanted_ms,
        extra={
            "p90": round(percentile(times_ms, 0.9), 2),
            "p99": round(percentile(times_ms, 0.99), 2),
            "min": round(min(times_ms), 2),
            "samples": len(times_ms),
        },
    )


async def _post_and_watch(log: Log, house: RunningHouse, topic: str, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each post, and of the bare log, taken by turns so that both see the same machine."""
    bare = Partition("bench-bare")
    log.create_topics([TopicSpec(bare.topic)])
    outputs, echo = TopicReader(log, topic), TopicReader(log, bare.topic)
    times_ms: list[float] = []
    bare_ms: list[float] = []
    async with aiohttp.ClientSession() as session:
        for number in range(WARM_UP + count):
            began_ns = time.monotonic_ns()
            async with session.post(f"{house.url}/webhooks/wh000001", json=order(number)) as response:
                assert response.status == 200, await response.text()
            await outputs.until(number + 1, 60)
            ended_ns = outputs.seen_ns[-1]
            await asyncio.sleep(0.002)
            bare_began_ns = time.monotonic_ns()
            value = rows_message({"kind": "rows", "n": 1}, b"[%d]" % number)
            await asyncio.to_thread(log.append, bare, [NewRecord(value)])
            await echo.until(number + 1, 60)
            if number >= WARM_UP:
                times_ms.append((ended_ns - began_ns) / 1e6)
                bare_ms.append((echo.seen_ns[-1] - bare_began_ns) / 1e6)
            await asyncio.sleep(0.002)
    outputs.close()
    echo.close()
    assert rows_of(outputs.values) == [changed(order(number)) for number in range(WARM_UP + count)]
    return times_ms, bare_ms


def fire(*, quick: bool) -> Result:
    """Commit of an upstream batch to the end of a run that reads the whole table."""
    count = COUNT_QUICK if quick else COUNT
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        app = write_app(folder, FIRE)
        topic = topics(app)["measures"]
        with running_house([app], folder / "data", folder / "entries.jsonl") as house:
            log = open_log(f"sqlite:///{folder / 'data' / 'tailrace.db'}")
            try:
                times_ms, bare_ms = _fire(log, house, topic, count)
            finally:
                log.close()
    median_ms = statistics.median(times_ms)
    return Result(
        name="fire",
        value=median_ms,
        unit="ms",
        baseline=statistics.median(bare_ms),
        what=f"commit of {FIRE_ROWS:,} rows to the end of a run that reads them",
        against="append, read and pandas.DataFrame in one process",
        wanted="median at most 60 ms",
        met=median_ms <= 60,
        extra={
            "p90": round(percentile(times_ms, 0.9), 1),
            "p99": round(percentile(times_ms, 0.99), 1),
            "samples": len(times_ms),
        },
    )


def _fire(log: Log, house: RunningHouse, topic: str, count: int) -> tuple[list[float], list[float]]:
    import pandas as pd

    rows = [order(number) for number in range(FIRE_ROWS)]
    fields = {
        "number": "Integer", "customer": "Text", "item": "Text", "price": "Float", "quantity": "Integer",
        "express": "Boolean", "note": "Text",
    }  # fmt: skip
    head = {"kind": "rows", "ts": time.time_ns() // 1_000_000, "node": "upstream", "n": 100, "fields": fields}
    batch = [
        NewRecord(rows_message(head, orjson.dumps(rows[start : start + 100]))) for start in range(0, FIRE_ROWS, 100)
    ]
    # A batch that takes the place of the last one, so that each run reads as much as the first.
    again = NewRecord(orjson.dumps({"kind": "truncate", "ts": head["ts"], "node": "upstream"}))
    partition = Partition(topic)
    log.create_topics([bare := TopicSpec("bench-bare")])
    times_ms: list[float] = []
    bare_ms: list[float] = []
    random.seed(1)
    for number in range(WARM_UP + count):
        known = len(house.entries("run"))
        log.append(partition, [again, *batch] if number else batch)
        committed_ns = time.monotonic_ns()
        ended = _next_run(house, known)
        assert ended["kind"] == "ok", ended
        began_ns = time.monotonic_ns()
        written = log.append(Partition(bare.name), batch)
        read = log.read(Partition(bare.name), written.start)
        frame = pd.DataFrame([row for record in read.records for row in orjson.loads(record.value or b"")["rows"]])
        bare_ns = time.monotonic_ns() - began_ns
        assert len(frame) == FIRE_ROWS
        if number >= WARM_UP:
            times_ms.append((ended["at_ns"] - committed_ns) / 1e6)
            bare_ms.append(bare_ns / 1e6)
        # The host rests after a run as long as it took: this is about one that is at rest.
        time.sleep(ended["duration_ms"] / 1_000 + random.uniform(0.005, 0.02))
    lines = [line["text"] for line in house.entries("line") if line["stream"] == "stdout"]
    assert set(lines) == {str(FIRE_ROWS)}, set(lines)
    return times_ms, bare_ms


def _next_run(house: RunningHouse, known: int) -> dict[str, Any]:
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        runs = house.entries("run")
        if len(runs) > known:
            return runs[known]
        time.sleep(0.001)
    raise TimeoutError("no run within 60 s")
