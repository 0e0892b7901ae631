"""One way from a topic into a Delta table, in a process of its own: `python -m benchmarks.snapshot_main WAY SETTINGS`.

WAY is `ours` (the snapshotter, until it has nothing to do) or `bare` (consume, `pyarrow.json`, `write_deltalake`, by
hand). SETTINGS is the JSON of `SnapshotterSettings`. Prints `{took_s, peak_bytes}`; the time begins after the imports.
"""

from __future__ import annotations

import asyncio
import io
import resource
import sys
import time
from pathlib import Path
from typing import Any

import deltalake
import orjson
import pyarrow as pa
import pyarrow.json

from tailrace.lake import LakeLocation
from tailrace.log import Partition, open_log
from tailrace.runtime import Runtime
from tailrace.snapshotter import SnapshotterSettings, table_lanes
from tailrace.snapshotter.service import Snapshotter

BARE_RECORDS = 10_000
BARE_COMMIT_BYTES = 32 << 20
"""As much as the snapshotter takes into one commit."""


def ours(settings: SnapshotterSettings) -> None:
    """The snapshotter itself."""
    log = open_log(settings.log_url)
    snapshotter = Snapshotter(log, LakeLocation.parse(settings.lake_url), settings, Runtime(), print)
    asyncio.run(snapshotter.run())
    log.close()


def bare(settings: SnapshotterSettings) -> None:
    """What one would write by hand: no ids, no types of ours, no place that goes along."""
    from confluent_kafka import Consumer, TopicPartition

    log = open_log(settings.log_url)
    (topic,) = table_lanes(log, settings.graphs)
    end = log.ends([Partition(topic)])[Partition(topic)]
    log.close()
    consumer = Consumer(
        {
            "bootstrap.servers": settings.log_url.removeprefix("kafka://"),
            "group.id": "bare",
            "enable.auto.commit": False,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    target = str(Path(settings.lake_url) / "bare")
    position, waiting, waiting_bytes = 0, [], 0
    while position < end:
        for message in consumer.consume(BARE_RECORDS, 1.0):
            value = message.value()
            position = max(position, (message.offset() or 0) + 1)
            if value is not None:
                waiting.append(value)
                waiting_bytes += len(value)
        if waiting and (waiting_bytes >= BARE_COMMIT_BYTES or position >= end):
            table = pyarrow.json.read_json(io.BytesIO(b"\n".join(waiting)))
            deltalake.write_deltalake(target, table, mode="append")
            waiting, waiting_bytes = [], 0
    consumer.close()


def main(way: str, data: Any) -> None:
    settings = SnapshotterSettings.from_json(data)
    pa.array([1])
    began_s = time.perf_counter()
    (ours if way == "ours" else bare)(settings)
    took_s = time.perf_counter() - began_s
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(orjson.dumps({"took_s": took_s, "peak_bytes": peak_bytes}).decode())


if __name__ == "__main__":
    main(sys.argv[1], orjson.loads(sys.argv[2]))
