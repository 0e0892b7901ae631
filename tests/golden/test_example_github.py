"""The GitHub example, from real posts to its last table, equals a plain loop over the payloads; on both logs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from github_loop import DELIVERIES, EXAMPLE, expected_counts, expected_events, moment

from tailrace.testing.kafka import LocalKafka
from up_process import PATIENCE_S, UpProcess, environment, up

POSTED = 2 * len(DELIVERIES) + 7
"""Every payload at least twice: what comes again is an event of its own."""


@pytest.fixture
def sqlite_up(tmp_path: Path) -> Iterator[UpProcess]:
    with up(tmp_path / "data", EXAMPLE) as process:
        yield process


@pytest.fixture
def kafka_up(tmp_path: Path, kafka_broker: LocalKafka) -> Iterator[UpProcess]:
    with up(tmp_path / "data", EXAMPLE, log=kafka_broker.url) as process:
        yield process


def test_on_sqlite(sqlite_up: UpProcess) -> None:
    send_and_compare(sqlite_up)


@pytest.mark.kafka
def test_on_kafka(kafka_up: UpProcess) -> None:
    send_and_compare(kafka_up)


def send_and_compare(process: UpProcess) -> None:
    """Post with the example's own `send.py`; then all three tables hold what the loop says, each row once."""
    sent = subprocess.run(
        [sys.executable, EXAMPLE / "send.py", "--data", process.data_dir, "--count", str(POSTED)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert sent.returncode == 0, sent.stderr
    posted = [DELIVERIES[number % len(DELIVERIES)] for number in range(POSTED)]
    wanted = expected_events(posted)
    counts = expected_counts(wanted)
    process.until(
        lambda: process.rows("by_kind"), wanted=lambda rows: sum(row["events"] for row in rows) >= len(posted)
    )
    raw = process.rows("github")
    assert [row["record"] for row in raw] == [delivery["payload"] for delivery in posted]
    events = process.rows("events")
    received = [moment(row["timestamp"]) for row in raw]
    assert [(row["repository"], row["actor"], row["kind"], row["action"], moment(row["time"])) for row in events] == [
        (*event[:4], event[4] or at) for event, at in zip(wanted, received, strict=True)
    ]
    assert {
        (row["kind"], row["repository"]): (row["events"], row["actors"]) for row in process.rows("by_kind")
    } == counts
    latest = {(row["kind"], row["repository"]): moment(row["latest"]) for row in process.rows("by_kind")}
    assert latest == {
        key: max(moment(row["time"]) for row in events if (row["kind"], row["repository"]) == key) for key in counts
    }
