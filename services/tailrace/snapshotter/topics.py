"""Which topics hold Tables, and which of their partitions have something that the lake has not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tailrace.log import Log, Offset, Partition, TopicInfo
from tailrace.tables import IdMaker, TableFold, lane_of

__all__ = ["GROUP", "TableLane", "behind", "lake_is_gone", "lanes_by_key", "table_lanes"]

GROUP = "tailrace.snapshotter"
"""The group whose place in a topic says: at least so far all versions are in the lake."""


class TableLane(NamedTuple):
    """One partition of a Table, and what of its topic concerns it: the snapshotter handles it as a Table."""

    topic: str
    number: int
    partitions: int
    """Of the topic."""
    born_ms: int
    """When the topic was born."""

    @property
    def key(self) -> str:
        """What it is called in the index and everywhere else; the topic's name where that has no other partition."""
        return lane_of(self.topic, self.number)

    @property
    def partition(self) -> Partition:
        """Where its records are."""
        return Partition(self.topic, self.number)

    @property
    def of_many(self) -> int | None:
        """Its number; None where the topic has no other partition."""
        return self.number if self.partitions > 1 else None

    @property
    def ids(self) -> IdMaker:
        """Makes the ids of its rows."""
        return IdMaker(self.topic, self.born_ms, self.number)

    def new_fold(self, table: str) -> TableFold:
        """A fold of the Table called `table`, from the lane's start."""
        return TableFold(table, self.born_ms if self.partitions > 1 else None)


def lanes_by_key(infos: Iterable[TopicInfo]) -> dict[str, TableLane]:
    """The lanes of topics, by their keys."""
    lanes = [
        TableLane(info.name, each, info.partitions, info.born_ms) for info in infos for each in range(info.partitions)
    ]
    return {lane.key: lane for lane in lanes}


def table_lanes(log: Log, graphs: Iterable[str]) -> dict[str, TableLane]:
    """The lanes of the apps' Tables, dead letters too, by their keys: what is internal begins with a `_` after the app's
    name."""
    return lanes_by_key(
        info
        for graph in graphs
        for name, info in log.topics(f"{graph}.").items()
        if not name.startswith("_", len(graph) + 1)
    )


def behind(log: Log, partitions: Iterable[Partition]) -> dict[Partition, tuple[Offset, Offset]]:
    """The partitions whose end lies past the group's place: place and end of each."""
    wanted = list(partitions)
    if not wanted:
        return {}
    places = log.places(GROUP, wanted)
    starts = log.starts(wanted)
    found: dict[Partition, tuple[Offset, Offset]] = {}
    for partition, end in log.ends(wanted).items():
        place = max(places[partition].offset if partition in places else Offset(0), starts[partition])
        if place < end:
            found[partition] = place, end
    return found


def lake_is_gone(log: Log, lake_url: str, partitions: Iterable[Partition]) -> bool:
    """Whether a lake on this machine was deleted, though something was in it: it is to be made again."""
    if "://" in lake_url or Path(lake_url).exists():
        return False
    return bool(log.places(GROUP, list(partitions)))
