"""Planted faults: a fleet whose runners break a promise is found out by what `test_fleet` asks of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fleet import Fleet, broker_for
from kill_harness import PromiseBrokenError

ROUNDS_MAX = 4
SEED = int(os.environ.get("TAILRACE_SEED", "1"))

FAULTS = {
    "no fencing": ["pause_runner", "pause_runner"],
    "on after its shards were revoked": ["scale"],
    "place outside the transaction": ["kill_runner"] * 4,
}
"""What it takes to bring each to light."""


@pytest.mark.kafka
@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_planted_fault_is_found(tmp_path: Path, fault: str) -> None:
    """A siege that no fault can fail tests nothing."""
    with pytest.raises(PromiseBrokenError) as found:
        for number in range(ROUNDS_MAX):  # whether it does harm is for chance to say
            folder = tmp_path / str(number)
            folder.mkdir()
            with (
                broker_for(folder) as kafka,
                Fleet(folder, kafka, seed=SEED + number, fault=fault) as fleet,
            ):
                for deed in FAULTS[fault]:
                    getattr(fleet, deed)()
                fleet.end()
    print(f"{fault}: {str(found.value)[:400]}")
