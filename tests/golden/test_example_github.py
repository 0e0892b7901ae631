"""The GitHub example, from real posts to its last table, equals a plain loop over the payloads; on both logs."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from tailrace.testing.kafka import LocalKafka
from up_process import PATIENCE_S, UpProcess, environment, up

EXAMPLE = Path(__file__).parents[2] / "examples" / "github"
DELIVERIES = orjson.loads(gzip.decompress((EXAMPLE / "payloads.json.gz").read_bytes()))
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


Event = tuple[str, str, str, str | None, datetime | None]


def expected_events(posted: Sequence[dict[str, Any]]) -> list[Event]:
    """Repository, actor, kind, action and time of each post. The kind is what GitHub's header says; a time that the
    payload does not tell is None."""
    events: list[Event] = []
    for delivery in posted:
        kind, payload = delivery["event"], delivery["payload"]
        if kind == "push":
            time = payload["head_commit"] and payload["head_commit"]["timestamp"]
        elif kind in ("issue_comment", "pull_request_review_comment"):
            time = payload["comment"]["updated_at"]
        elif kind == "pull_request_review":
            time = payload["review"]["submitted_at"]
        elif kind == "release":
            time = payload["release"].get("updated_at") or payload["release"]["published_at"]
        elif kind == "fork":
            time = payload["forkee"]["updated_at"]
        elif kind == "star":
            time = payload["starred_at"]
        elif kind in ("create", "delete"):
            time = None
        else:
            time = payload[{"issues": "issue"}.get(kind, kind)]["updated_at"]
        events.append(
            (
                payload["repository"]["full_name"],
                payload["sender"]["login"],
                kind,
                payload.get("action"),
                moment(time) if time else None,
            )
        )
    return events


def expected_counts(events: Sequence[Event]) -> dict[tuple[str, str], tuple[int, int]]:
    """Events and different actors by kind and repository."""
    found: Counter[tuple[str, str]] = Counter()
    actors: dict[tuple[str, str], set[str]] = defaultdict(set)
    for repository, actor, kind, _, _ in events:
        found[kind, repository] += 1
        actors[kind, repository].add(actor)
    return {key: (count, len(actors[key])) for key, count in found.items()}


def moment(text: str) -> datetime:
    """A time in UTC; what has no zone is in UTC."""
    value = datetime.fromisoformat(text)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
