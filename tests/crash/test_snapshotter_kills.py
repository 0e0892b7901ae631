"""Snapshotters that are killed at any moment, and two that fight: every row is in the lake once; and the check can fail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lake_siege import TOPICS, LakeSiege, PromiseBrokenError

from tailrace.testing.kafka import LocalKafka

SNAPSHOT_POINTS = ["topic-read", "lake-opened", "lake-read", "lake-columns", "lake-committed", "lake-written"]
UPKEEP_POINTS = ["compact-read", "compact-committed", "tidy-checkpoint", "tidy-log", "tidy-files"]
RETENTION_POINTS = [
    "retention-decided",
    "retention-noted",
    "retention-dropped",
    "retention-folders-gone",
    "retention-trimmed",
    "retention-files-gone",
    "retention-closed",
]
SEED = int(os.environ.get("TAILRACE_SEED", "1"))

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def siege(tmp_path: Path) -> Iterator[LakeSiege]:
    siege = LakeSiege(tmp_path, f"sqlite:///{tmp_path / 'siege.db'}", SEED)
    yield siege
    siege.close()


@pytest.fixture
def kafka_siege(tmp_path: Path) -> Iterator[LakeSiege]:
    """On a broker of its own, because topics and groups have fixed names."""
    with LocalKafka(folder=tmp_path / "kafka") as kafka:
        siege = LakeSiege(tmp_path, kafka.url, SEED)
        yield siege
        siege.close()


def test_a_death_at_each_step(siege: LakeSiege) -> None:
    """Of a snapshot, and of keeping its files in shape."""
    for point in [*SNAPSHOT_POINTS, "place-committed", *UPKEEP_POINTS]:
        siege.die_at(point)
    for point in ("lake-read:5", "lake-committed:4", "lake-written:4"):
        siege.die_at(point)
    siege.settle()
    assert siege.check() > 30


def test_it_does_without_pandas(siege: LakeSiege) -> None:
    """pyarrow loads it on the slightest occasion; see `_NoPandas`."""
    siege.begin_load()
    process = siege.start()
    siege.wait_for_commits(2)
    libraries = Path(f"/proc/{process.pid}/maps").read_text()
    assert "/pyarrow/" in libraries
    assert "/pandas/" not in libraries


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.chaos)])
def test_kills_at_random(siege: LakeSiege, kills: int) -> None:
    siege.kill_under_load(kills)
    assert siege.check() > 30


@pytest.mark.kafka
@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.chaos)])
def test_kills_at_random_on_kafka(kafka_siege: LakeSiege, kills: int) -> None:
    kafka_siege.kill_under_load(kills)
    assert kafka_siege.check() > 30


def test_two_that_both_take_a_table_for_theirs(siege: LakeSiege) -> None:
    """Each thinks that it is alone; one of them is killed now and then."""
    fight(siege, rounds=2)
    siege.settle()
    assert siege.check() > 30


def fight(siege: LakeSiege, *faults: str, rounds: int, patience_s: float = 60) -> None:
    siege.begin_load()
    first = siege.start(*faults, instance="first")
    for _ in range(rounds):
        second = siege.start(*faults, instance="second")
        siege.wait_for_commits(12, patience_s=patience_s)
        first.kill()
        first = second
    first.kill()


def test_a_share_moves_when_its_owner_dies(siege: LakeSiege) -> None:
    """Where several may run, each table has one owner, and another one when that is dead."""
    siege.begin_load()
    sharing = {"shared": True, "share_timeout_s": 2.0}
    first, second = (siege.start(instance=name, **sharing) for name in ("first", "second"))
    siege.wait_for_commits(12)
    first.kill()
    for topic in TOPICS:
        siege.wait_for_commits(2, topic)
    second.kill()
    siege.settle()
    assert siege.check() > 30


LONGER = [pytest.param(fault, marks=pytest.mark.chaos) for fault in ("group position as truth", "no overlap cut")]


@pytest.mark.parametrize("fault", ["place before the lake", *LONGER])
def test_a_planted_fault_is_found(siege: LakeSiege, fault: str) -> None:
    """A check that no fault can fail checks nothing. A death does harm only to the table that is being written, and a
    table that goes by a key takes none: so they die at another commit each time."""
    point = "place-too-early" if fault == "place before the lake" else "lake-committed"
    with pytest.raises(PromiseBrokenError):
        for nth in (3, 2, 4, 1) * 3:
            siege.die_at(f"{point}:{nth}", fault)
            siege.settle(fault, patience_s=8)
            siege.check()


@pytest.mark.chaos
def test_a_rival_that_is_not_looked_at_is_found(siege: LakeSiege) -> None:
    """Writing through another handle than the one that was looked at puts rows there twice."""
    with contextlib.suppress(AssertionError):  # it may well come to a stop
        fight(siege, "fresh handle for the write", rounds=2, patience_s=15)
    with pytest.raises(PromiseBrokenError):
        siege.settle(patience_s=8)
        siege.check()


def test_a_death_at_each_step_of_retention(siege: LakeSiege) -> None:
    """What stays can be read; what goes is gone from index, lake and log in the end."""
    for _ in range(3):
        for _ in range(40):
            siege.write()
        siege.settle()
    active = siege.active_rows()
    young = {"retention_s": 0, "grace_s": 0}
    for point in RETENTION_POINTS:
        siege.write()
        siege.task("gc", kill_at=point, **young)
    siege.settle()
    active = siege.active_rows()
    for _ in range(4):  # the markers that say what was hidden or dropped come into the lake, and go
        siege.task("gc", **young)
        siege.settle()
    assert siege.task("gc", **young) == []
    siege.check_after_retention(active)
