"""Seeded histories keep the engine's promises, and each planted mistake breaks one.

`TAILRACE_SIM_SEED=n` plays that history alone and prints all that happens in it.
"""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Iterable

import pytest
from engine_sim_faults import ENGINE_FAULTS, FOCUS
from engine_sim_lake import LAKE_FAULTS
from engine_simulator import FAULTS, play

HISTORIES = 2_000
MANY = 2_500
"""Histories of one of the long tests: `make chaos ARGS="-n 2"` shares them among processes, and each counts for itself."""
EVENTS = (
    *("Deploy", "Own", "ShardOpened", "News", "Triggered", "Tick", "RunEnded", "CheckpointWanted"),
    *("Committed", "CommitRefused", "WriterLost", "Drain"),
)
POINTS = [
    "host crashes: opening",
    "host crashes: fenced",
    "host crashes: restored",
    "host crashes: run going",
    "host crashes: run ended",
    "host crashes: sending",
    "host crashes: sending, checkpoint",
    "host crashes: durable",
    "worker killed: before its first step",
    "worker killed: amid its rows",
    "worker killed: at a checkpoint",
    "writer: cannot open",
    "writer: fenced",
    "writer: refused",
    "writer: lost before a commit",
    "writer: unknown, committed",
    "writer: unknown, not committed",
    "gateway: before durable",
    "gateway: before answer",
    "node raises",
    "node kills its worker",
    "event twice",
    "event out of order",
    "late opener",
    "take-over",
    "rebalance",
    "redeploy",
    "time jump",
    "clean stop",
    "log trimmed",
    "snapshot: append",
    "snapshot: note",
    "snapshot: nothing",
    "snapshot: rewrite",
    "snapshotter dies: idle",
    "snapshotter dies: topic-read",
    "snapshotter dies: lake-read",
    "snapshotter dies: lake-committed",
    "snapshotter dies: lake-written",
    "snapshotter dies: place-committed",
    "snapshotter: rival was faster",
]


def play_all(seeds: Iterable[int]) -> None:
    """Play the histories; then see that they were long and varied enough to mean something."""
    counts: Counter[str] = Counter()
    sizes = []
    for seed in seeds:
        world = play(seed)
        counts += world.counts
        sizes.append(world.handled)
    print(f"\n{len(sizes)} histories, median of {statistics.median(sizes)} events")
    for name in [*EVENTS, *POINTS]:
        print(f"{counts[name]:8} {name}")
    assert statistics.median(sizes) >= 50
    rare = {name: counts[name] for name in [*EVENTS, *POINTS] if counts[name] < 100}
    assert not rare, f"too rare to be called tested: {rare}"


@pytest.mark.timeout(300)
def test_histories_keep_every_promise() -> None:
    """Whatever crashes, comes twice, late or in another order: each effect once, nobody forgotten, rest at the end."""
    seed = os.environ.get("TAILRACE_SIM_SEED")
    if seed is None:
        play_all(range(HISTORIES))
    else:
        play(int(seed), say=print)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("start", range(0, 100_000, MANY))
def test_many_histories_keep_every_promise(start: int) -> None:
    """A hundred thousand, on other seeds."""
    play_all(range(HISTORIES + start, HISTORIES + start + MANY))


def find(fault: str = "", *, only: str = "") -> int:
    """The seed of the first history that breaks a promise."""
    for seed in range(HISTORIES):
        try:
            play(seed, fault=fault, only=only)
        except AssertionError as found:
            print(f"\nfound in history {seed + 1}: {str(found).splitlines()[0]}")
            return seed
    raise AssertionError(f"{HISTORIES} histories did not find it")


@pytest.mark.parametrize("fault", [*FAULTS, *LAKE_FAULTS])
def test_a_mistake_of_the_host_is_found(fault: str) -> None:
    """The simulator would see it if the host, the gateway or the snapshotter did this wrong."""
    find(fault)


@pytest.mark.parametrize("fault", sorted(ENGINE_FAULTS))
def test_a_mistake_of_the_engine_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator would see it if the engine did this wrong."""
    ENGINE_FAULTS[fault](monkeypatch)
    find(only=FOCUS.get(fault, ""))
