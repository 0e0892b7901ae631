"""Whatever part of a fleet dies, stands still, comes or goes: the tables are those of a plain loop over the posts."""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Fleet, broker_for

from tailrace.testing.kafka import LocalKafka

SEED = int(os.environ.get("TAILRACE_SEED", "1"))

SHORT = {
    "kill_runner": 1,
    "kill_worker": 1,
    "kill_gateway": 1,
    "kill_snapshotter": 1,
    "pause_runner": 1,
    "kill_broker": 1,
}
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


@pytest.mark.parametrize(
    "deeds",
    [
        # Some three minutes on two cores, which is more than all tests together have to spare.
        pytest.param(SHORT, id="short", marks=pytest.mark.chaos),
        pytest.param(LONG, id="long", marks=[pytest.mark.chaos, pytest.mark.timeout(5_400)]),
    ],
)
def test_a_fleet_under_siege(tmp_path: Path, kafka: LocalKafka, deeds: dict[str, int]) -> None:
    """Nothing is lost, nothing is there twice, each key's rows are in order, and it is soon over."""
    with Fleet(tmp_path, kafka, seed=SEED) as fleet:
        for deed in in_any_order(deeds):
            getattr(fleet, deed)()
        posts = fleet.end()
    print(f"seed {SEED}: {posts} posts, {fleet.clients.retries} retries, {fleet.fencings()} fencings")
    for deed, recovered_s in sorted(fleet.recovered_s.items()):
        print(f"{deed:18} {len(recovered_s):3}: back after {told(recovered_s)}")
    kills_s = [each for deed, found in fleet.recovered_s.items() if deed.startswith("kill") for each in found]
    print(f"all kills          {len(kills_s):3}: back after {told(kills_s)}; markers written {fleet.markers_written()}")
    print(f"ended by itself: {fleet.ended}")
    if len(kills_s) >= 20:  # of a few the median says how busy the machine was
        assert statistics.median(kills_s) < 10
        assert fleet.fencings() > 0, "no runner that stood still came back to find its shards with others"


def in_any_order(deeds: dict[str, int]) -> list[str]:
    factor = float(os.environ.get("TAILRACE_SIEGE", "1"))  # a part of the long form
    found = [deed for deed, count in deeds.items() for _ in range(max(1, round(count * factor)))]
    random.Random(SEED).shuffle(found)
    return found


def told(recovered_s: list[float]) -> str:
    return f"{statistics.median(recovered_s):.1f} s (median), {max(recovered_s):.1f} s (longest)"
