"""Planted faults: a house that breaks a promise when it is killed is found out by the check of `test_kills`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from kill_harness import PromiseBrokenError, Siege, wait_for

ROUNDS_MAX = 4
POSTS_PER_S = 100
"""Enough for each fault to do harm; what comes in has to be worked off before the check."""
SEED = int(os.environ.get("TAILRACE_SEED", "1"))

pytestmark = pytest.mark.timeout(600)


FAULTS = {
    "place outside the transaction": ("host", 6),
    "State not restored": ("host", 2),
    "no fencing": ("rival", 2),
    "read before open": ("rival", 2),
    "commit number ignored": ("none", 0),
    "marker after rows": ("none", 0),
    "ack before durable": ("host", 4),
    "dead letter committed apart": ("host", 6),
}
"""What it takes to bring each to light: kills of the host, hosts that take over, or no more than running."""


SHORT = ("State not restored", "commit number ignored", "marker after rows")
"""Found soon; the others take half a minute each."""


@pytest.mark.parametrize(
    "fault", [fault if fault in SHORT else pytest.param(fault, marks=pytest.mark.chaos) for fault in FAULTS]
)
def test_a_planted_fault_is_found(tmp_path: Path, fault: str) -> None:
    """A check that no fault can fail checks nothing."""
    kind, count = FAULTS[fault]
    with pytest.raises(PromiseBrokenError):
        for number in range(ROUNDS_MAX):  # whether a kill does harm is for chance to say
            folder = tmp_path / str(number)
            folder.mkdir()
            url = f"sqlite:///{folder / 'kills.db'}"
            with Siege(folder, url, seed=SEED + number, fault=fault, posts_per_s=POSTS_PER_S) as siege:
                for _ in range(count):
                    siege.pause(0.3)
                    siege.kill_host() if kind == "host" else siege.rival()
                house = siege.house
                wait_for(lambda house=house: house.committed_runs >= 60, "sixty runs were committed", 60)  # type: ignore[misc]
                siege.end(stall_s=5)
