"""Whatever part of a fleet dies, stands still, comes or goes: the tables are those of a plain loop over the posts."""

from __future__ import annotations

import itertools
import os
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Fleet, Size, broker_for

from tailrace.testing.kafka import LocalKafka

SEED = int(os.environ.get("TAILRACE_SEED", "1"))

SHORT = [("kill_runner", "kill_gateway", "kill_snapshotter"), ("kill_worker", "pause_runner"), ("kill_broker",)]
"""Each of the kinds of death once, several at a time."""
SHORT_S = 90.0
AFTERWARDS = ("kill_gateway", "kill_runner", "kill_snapshotter", "kill_worker")
"""By turns, until a short siege has lasted so long."""
LONG = {
    "kill_runner": 34,
    "kill_worker": 26,
    "kill_gateway": 20,
    "kill_snapshotter": 20,
    "kill_broker": 3,
    "restart_broker": 2,
    "pause_runner": 12,
    "pause_gateway": 4,
    "pause_snapshotter": 4,
    "scale": 8,
}
"""A hundred kills of services, twenty pauses over the session time-out, five times without a broker."""

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[LocalKafka]:
    with broker_for(tmp_path) as broker:
        yield broker


def test_a_fleet_under_siege(tmp_path: Path, kafka: LocalKafka) -> None:
    """Nothing is lost, nothing is there twice, each key's rows are in order, and it is soon over."""
    until_s = time.monotonic() + SHORT_S
    with Fleet(tmp_path, kafka, seed=SEED, size=Size(pause_s=0.25)) as fleet:
        for deeds in SHORT:
            fleet.do(*deeds)
        for deed in itertools.cycle(AFTERWARDS):
            if time.monotonic() > until_s:
                break
            fleet.do(deed)
        posts = fleet.end()
    tell(fleet, posts)


@pytest.mark.chaos
@pytest.mark.timeout(5_400)
def test_a_fleet_under_a_long_siege(tmp_path: Path, kafka: LocalKafka) -> None:
    """The same, a hundred times; each time it is soon over."""
    with Fleet(tmp_path, kafka, seed=SEED) as fleet:
        for deed in in_any_order(LONG):
            fleet.do(deed)
        posts = fleet.end()
    kills_s = tell(fleet, posts)
    if len(kills_s) >= 20:  # of a few the median says how busy the machine was
        assert statistics.median(kills_s) < 10
        assert fleet.fencings() > 0, "no runner that stood still came back to find its shards with others"


def tell(fleet: Fleet, posts: int) -> list[float]:
    """Print how it went; returns how long each kill took to recover from."""
    print(f"seed {SEED}: {posts} posts, {fleet.clients.retries} retries, {fleet.fencings()} fencings")
    for deed, recovered_s in sorted(fleet.recovered_s.items()):
        print(f"{deed:18} {len(recovered_s):3}: back after {told(recovered_s)}")
    kills_s = [each for deed, found in fleet.recovered_s.items() if deed.startswith("kill") for each in found]
    print(f"all kills          {len(kills_s):3}: back after {told(kills_s)}; markers written {fleet.markers_written()}")
    print(f"ended by itself: {fleet.ended}")
    return kills_s


def in_any_order(deeds: dict[str, int]) -> list[str]:
    factor = float(os.environ.get("TAILRACE_SIEGE", "1"))  # a part of the long form
    found = [deed for deed, count in deeds.items() for _ in range(max(1, round(count * factor)))]
    random.Random(SEED).shuffle(found)
    return found


def told(recovered_s: list[float]) -> str:
    return f"{statistics.median(recovered_s):.1f} s (median), {max(recovered_s):.1f} s (longest)"
