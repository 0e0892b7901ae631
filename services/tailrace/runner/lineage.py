"""Where what a run read came from, and where what it wrote went. Pure, over the runs that the journal has.

A run read what lies before its cut; what was new to it lies from where its stream went on, or for a Table that it reads
whole anywhere before. It is a cause of a later run that took what it wrote for the first time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tailrace.runner.journal import RunEntry

__all__ = ["Lineage", "lineage_of"]

NEIGHBOURS_MAX = 20
"""Most runs that are named for one Table: the newest of those that wrote, the first of those that read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Runs next to one, by Table."""

    up: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Who wrote what it read; a Table that only webhooks wrote has none."""
    down: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Who read what it wrote."""
    partial: bool = False
    """Whether there are more than are named."""


def lineage_of(entry: RunEntry, runs: Iterable[RunEntry]) -> Lineage:
    """The neighbours of `entry` among `runs`, which are all that are known, oldest first."""
    up: dict[str, list[str]] = {table: [] for table in entry.read}
    down: dict[str, list[str]] = {table: [] for table in entry.wrote}
    done: set[tuple[str, str]] = set()
    for run in runs:
        if run.run == entry.run:
            continue
        for table, cut in entry.read.items():
            start, stop = run.wrote.get(table, (cut, cut))
            if start < cut and stop > _begin(entry, table):
                up[table].append(run.run)
        for table, (start, stop) in entry.wrote.items():
            if run.read.get(table, 0) <= start or _begin(run, table) >= stop:
                continue
            # A reader of the whole Table reads it again and again: the first time is what this run led to.
            if table in run.places or (table, run.node) not in done:
                done.add((table, run.node))
                down[table].append(run.run)
    many = any(len(found) > NEIGHBOURS_MAX for found in (*up.values(), *down.values()))
    return Lineage(
        up={table: found[-NEIGHBOURS_MAX:] for table, found in up.items()},
        down={table: found[:NEIGHBOURS_MAX] for table, found in down.items()},
        partial=many,
    )


def _begin(run: RunEntry, table: str) -> int:
    """From where on a run read a Table."""
    return run.places.get(table, (0, 0))[0]
