"""Planted faults: a fleet whose runners break a promise is found out by what `test_fleet` asks of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fleet import Fleet, Size, broker_for
from kill_harness import PromiseBrokenError

SEED = int(os.environ.get("TAILRACE_SEED", "1"))
SMALL = Size(runners=2, gateways=1, snapshotters=1, pause_s=0.2)

TWICE = r"(dealt|line): .* twice \[\d"
"""In the table that the struck runner was about to write."""

FAULTS = {
    "no fencing": (["pause_a_commit"], TWICE),
    "on after its shards were revoked": (["scale"], "have two runners"),
    "place outside the transaction": (["kill_in_a_commit"], TWICE),
}
"""What brings each to light, and as what."""

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(600)]


def siege(folder: Path, fault: str, deeds: list[str]) -> int:
    with broker_for(folder) as kafka, Fleet(folder, kafka, seed=SEED, size=SMALL, fault=fault) as fleet:
        for deed in deeds:
            fleet.do(deed)
        fleet.end()
        return fleet.fencings()


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_planted_fault_is_found(tmp_path: Path, fault: str) -> None:
    """A siege that no fault can fail tests nothing."""
    deeds, found = FAULTS[fault]
    with pytest.raises(PromiseBrokenError, match=found) as told:
        siege(tmp_path, fault, deeds)
    print(f"{fault}: {str(told.value)[:400]}")


def test_a_runner_that_stood_still_before_a_commit_is_fenced(tmp_path: Path) -> None:
    """The same without the fault: what it was about to commit is another's by then, and is there once."""
    assert siege(tmp_path, "none", ["pause_a_commit"]) > 0
