"""Positions of several Tables that belong together: where an app stood at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tailrace.log import Log, Offset, Partition

if TYPE_CHECKING:
    from tailrace.runner.journal import RunEntry

__all__ = ["first_after", "together"]


def first_after(log: Log, partition: Partition, start: Offset, end: Offset, at_ms: int) -> Offset:
    """The offset of the first record that the log took after a moment; `end` where there is none.

    Times of a log grow with its offsets; where they do not quite, any answer between is as good.
    """
    low, high = start, end
    while low < high:
        found = log.read(partition, Offset((low + high) // 2), stop=end, records_max=1).records
        if found and found[0].ts_ms <= at_ms:
            low = Offset(found[0].offset + 1)
        else:
            high = Offset((low + high) // 2)
    # Behind `low` there may be nothing but markers: those who read up to here before have passed them.
    found = log.read(partition, low, stop=end, records_max=1).records
    return found[0].offset if found else end


def together(cuts: Mapping[str, int], runs: Sequence[RunEntry]) -> dict[str, int]:
    """Cuts at or before `cuts` that no run is in part in, or without what it had read.

    Args:
        runs: those that may be: what they wrote lies around the cuts.
    """
    found = dict(cuts)
    moved = True
    while moved:
        moved = False
        for run in runs:
            inside = [table for table, (start, _) in run.wrote.items() if found.get(table, start) > start]
            whole = all(found.get(table, stop) >= stop for table, (_, stop) in run.wrote.items())
            knows_all = all(found.get(table, cut) >= cut for table, cut in run.read.items())
            if inside and not (whole and knows_all):
                moved = True
                for table in inside:
                    found[table] = run.wrote[table][0]
    return found
