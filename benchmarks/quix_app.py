"""The stream sample on Quix Streams, exactly once: run by `benchmarks.quix` in a virtual environment of its own,
where nothing of ours can be imported.

    quix_app.py SERVERS SOURCE TARGET COUNT COMMIT_INTERVAL_S
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from quixstreams import Application  # type: ignore[import-not-found,unused-ignore]

began = False


def change(value: dict[str, Any]) -> dict[str, Any]:
    global began
    if not began:  # joining the group takes seconds, and is not what is compared
        began = True
        print("began", time.monotonic_ns(), flush=True)
    row: dict[str, Any] = value["rows"][0]
    row["total"] = row["price"] * row["quantity"]
    return row


def main() -> None:
    servers, source, target, count, interval_s = sys.argv[1:]
    app = Application(
        broker_address=servers,
        consumer_group=f"{target}-quix",
        processing_guarantee="exactly-once",
        commit_interval=float(interval_s),
        auto_offset_reset="earliest",
        auto_create_topics=False,
        producer_extra_config={"retry.backoff.ms": 1, "retry.backoff.max.ms": 20},
        loglevel="WARNING",
        state_dir=str(Path(tempfile.gettempdir()) / f"{target}-quix"),
    )
    orders = app.topic(source, value_deserializer="json")
    totals = app.topic(target, value_serializer="json")
    frame = app.dataframe(orders)
    frame = frame.apply(change)
    frame = frame.to_topic(totals)
    app.run(count=int(count), timeout=60)


main()
