"""`bulk`: a node appends a frame of a million rows, until it can be read."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from benchmarks.apps import bulk_app, topics, write_app
from benchmarks.frame import frame_of
from benchmarks.houses import RunningHouse, running_house
from benchmarks.readers import TopicReader
from benchmarks.result import Result
from tailrace.log import open_log

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["bulk", "trigger"]

ROWS = 1_000_000
ROWS_QUICK = 100_000
ROUNDS = 5


async def trigger(house: RunningHouse, node: str) -> None:
    """Ask for a run of a node."""
    async with aiohttp.ClientSession(headers=house.headers) as session:
        url = f"{house.url}/api/local/trigger"
        async with session.post(url, json={"node": node}) as response:
            assert response.status == 200, await response.text()


def bulk(*, quick: bool) -> Result:
    """Append of a frame in a node against `pyarrow.parquet.write_table` of the same."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = ROWS_QUICK if quick else ROWS
    frame = frame_of(rows)
    took_ms: list[float] = []
    appended_ms: list[float] = []
    bare_ms: list[float] = []
    synced_ms: list[float] = []
    convert_ms: list[float] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        app = write_app(folder, bulk_app(rows))
        topic = topics(app)["measures"]
        with running_house([app], folder / "data", folder / "entries.jsonl") as house:
            log = open_log(f"sqlite:///{folder / 'data' / 'tailrace.db'}")
            reader = TopicReader(log, topic)
            for number in range(1 + (2 if quick else ROUNDS)):
                began_s = time.perf_counter()
                table = pa.Table.from_pandas(frame, preserve_index=False)
                converted_s = time.perf_counter()
                pq.write_table(table, folder / "bare.parquet")
                bare_s = time.perf_counter()
                with (folder / "bare.parquet").open("rb") as file:
                    os.fsync(file.fileno())
                synced_s = time.perf_counter()
                del table
                asyncio.run(_one(house, reader, rows * (number + 1)))
                began_ns, appended_ns = _stamps(house, number)
                if number:
                    took_ms.append((reader.seen_ns[-1] - began_ns) / 1e6)
                    appended_ms.append((appended_ns - began_ns) / 1e6)
                    bare_ms.append((bare_s - converted_s) * 1e3)
                    synced_ms.append((synced_s - converted_s) * 1e3)
                    convert_ms.append((converted_s - began_s) * 1e3)
            _compare(frame, reader.values, folder / "data" / "staging")
            reader.close()
            log.close()
    median_ms, base_ms = statistics.median(took_ms), statistics.median(bare_ms)
    return Result(
        name="bulk",
        value=median_ms,
        unit="ms",
        baseline=base_ms,
        what=f"append of a frame, {rows:,} rows by 10, until it can be read",
        against="pyarrow.parquet.write_table of the same, an Arrow table already, not synced",
        wanted="at most 3 times",
        met=statistics.median(a / b for a, b in zip(took_ms, bare_ms, strict=True)) <= 3,
        extra={
            "baseline_synced_ms": round(statistics.median(synced_ms)),
            "appended_ms": round(statistics.median(appended_ms)),
            "frame_to_arrow_ms": round(statistics.median(convert_ms)),
            "samples": len(took_ms),
            "took": [round(each) for each in took_ms],
            "baselines": [round(each) for each in bare_ms],
        },
    )


async def _one(house: RunningHouse, reader: TopicReader, rows: int) -> None:
    await trigger(house, "load.py")
    reading = asyncio.ensure_future(reader.until(rows))
    while not (await asyncio.wait({reading}, timeout=1))[0]:
        failed = next((run for run in house.entries("run") if run["kind"] != "ok"), None)
        if failed is not None:
            reading.cancel()
            raise RuntimeError(f"the node failed: {failed['error']}")
    reading.result()


def _stamps(house: RunningHouse, number: int) -> tuple[int, int]:
    found: list[int] = []

    def told() -> bool:
        lines = [line["text"].split() for line in house.entries("line") if line["stream"] == "stdout"]
        found[:] = [int(words[1]) for words in lines]
        return len(found) >= 2 * (number + 1)

    house.wait_for(told, "the node told when it began")
    return found[2 * number], found[2 * number + 1]


def _compare(frame: pd.DataFrame, values: list[bytes], staging: Path) -> None:
    """The newest version's staged rows are the frame's, value by value."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    newest: list[Any] = []
    for value in values:
        message = orjson.loads(value)
        if message["kind"] in ("reset", "version"):
            newest = []
        elif message["kind"] == "file":
            newest.append(message)
    tables = [pq.ParquetFile(staging / message["path"]).read_row_group(message["row_group"]) for message in newest]
    found = pa.concat_tables(tables).to_pandas()[list(frame.columns)]
    rows = len(frame)
    found = found.tail(rows).reset_index(drop=True)
    pd.testing.assert_frame_equal(found, frame, check_dtype=False)
