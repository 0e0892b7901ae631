"""A house that is killed under load keeps its promises, on both logs; `test_kill_faults` shows that the check can fail.

Accepted is a part of the rows, they of what was sent, each once; every output once; State agrees with the outputs;
dead letters once. At least half of the kills hit an unfinished run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_harness import Siege

from tailrace.testing.kafka import LocalKafka

POINTS = ["webhook-parsed", "webhook-durable", "run-begun", "run-ended", "committed", "run-committed"]
SEED = int(os.environ.get("TAILRACE_SEED", "1"))

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'kills.db'}"


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[LocalKafka]:
    """A broker of its own, because it is killed too."""
    with LocalKafka(folder=tmp_path / "kafka") as kafka:
        yield kafka


def lay_siege(siege: Siege, kills: int, kafka: LocalKafka | None = None) -> None:
    """`kills` kills of all kinds, with a while of work between them."""
    deeds = [siege.kill_host, siege.kill_worker, siege.kill_host, siege.kill_worker, siege.rival]
    for number in range(kills):
        siege.pause(siege.random.uniform(0.1, 0.6))
        if kafka is not None and number % 5 == 3:
            kafka.kill()
            siege.kills["broker"] += 1
            siege.hits += siege.house.unfinished_runs > 0
            kafka.restart()
        else:
            deeds[number % len(deeds)]()


def report(siege: Siege, found: dict[str, object]) -> None:
    print(f"seed {SEED}: {found}")
    struck = sum(siege.kills.values()) - siege.kills["rival"]
    assert siege.hits * 2 >= struck, f"only {siege.hits} of {struck} kills hit an unfinished run"
    if struck >= 20:  # of a few, how long a broker takes to come back decides: nobody can post meanwhile
        assert siege.client.rate >= 200, f"only {siege.client.rate:.0f} posts/s"


@pytest.mark.parametrize("kills", [10, pytest.param(50, marks=[pytest.mark.chaos, pytest.mark.timeout(1_800)])])
def test_kills_on_sqlite(tmp_path: Path, sqlite_url: str, kills: int) -> None:
    """`kill -9` of host and workers, and hosts that take over from living ones."""
    with Siege(tmp_path, sqlite_url, seed=SEED) as siege:
        lay_siege(siege, kills)
        report(siege, siege.end())


@pytest.mark.kafka
@pytest.mark.parametrize("kills", [10, pytest.param(50, marks=[pytest.mark.chaos, pytest.mark.timeout(1_800)])])
def test_kills_on_kafka(tmp_path: Path, own_kafka: LocalKafka, kills: int) -> None:
    """The same, and `kill -9` of the broker."""
    with Siege(tmp_path, own_kafka.url, seed=SEED) as siege:
        lay_siege(siege, kills, own_kafka)
        report(siege, siege.end())


def test_a_death_at_each_named_point(tmp_path: Path, sqlite_url: str) -> None:
    """Each step of a post and of a run, as the docstrings of gateway and host number them."""
    with Siege(tmp_path, sqlite_url, seed=SEED) as siege:
        for point in POINTS:
            siege.pause(0.2)
            siege.kill_at(point)
        print(siege.end())


def test_an_unknown_outcome_is_found_out(tmp_path: Path, sqlite_url: str) -> None:
    """A commit that happened, and whose answer was lost: the writer is opened again, and nothing is done twice."""
    with Siege(tmp_path, sqlite_url, seed=SEED, fault="outcome unknown") as siege:
        siege.pause(3)
        print(siege.end())
