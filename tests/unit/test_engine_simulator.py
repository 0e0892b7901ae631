"""Thousands of seeded histories keep the engine's promises, and planted mistakes break them."""

from __future__ import annotations

import os
import statistics
from collections import Counter

from engine_simulator import play


def test_histories() -> None:
    total: Counter[str] = Counter()
    sizes = []
    only = os.environ.get("TAILRACE_SIM_SEED")
    for seed in [int(only)] if only else range(2_000):
        world = play(seed, say=print if only else None)
        total += world.counts
        sizes.append(world.handled)
    print(statistics.median(sizes), total)
