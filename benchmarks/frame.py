"""The frame that `bulk` and `bulk-lake` write; also a file of their apps: a node sees no other file than those."""

from __future__ import annotations

import numpy as np
import pandas as pd

__all__ = ["frame_of"]


def frame_of(rows: int) -> pd.DataFrame:
    """Ten columns: integers, floats, texts, times, booleans."""
    random = np.random.default_rng(1)
    numbers = np.arange(rows, dtype="int64")
    names = np.array([f"name-{at:04}" for at in range(5_000)], dtype=object)
    return pd.DataFrame(
        {
            "number": numbers,
            "group": random.integers(0, 1_000, rows),
            "amount": random.integers(0, 10_000_000, rows),
            "value": random.random(rows),
            "price": random.integers(1, 100_000, rows) / 100,
            "share": random.random(rows),
            "name": names[random.integers(0, 5_000, rows)],
            "city": names[random.integers(0, 200, rows)],
            "at": pd.Timestamp("2024-01-01") + pd.to_timedelta(numbers, unit="s"),
            "good": random.random(rows) < 0.5,
        }
    )
