"""Which topics hold Tables, and which of them have something that the lake has not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tailrace.log import Log, Offset, Partition, TopicInfo

__all__ = ["GROUP", "behind", "lake_is_gone", "table_topics"]

GROUP = "tailrace.snapshotter"
"""The group whose place in a topic says: at least so far all versions are in the lake."""


def table_topics(log: Log, graphs: Iterable[str]) -> dict[str, TopicInfo]:
    """The topics of the apps' Tables, dead letters too: what is internal begins with a `_` after the app's name.

    Tables with several partitions are not among them: they stay in the log (decision 10).
    """
    return {
        name: info
        for graph in graphs
        for name, info in log.topics(f"{graph}.").items()
        if not name.startswith("_", len(graph) + 1) and info.partitions == 1
    }


def behind(log: Log, topics: Iterable[str]) -> dict[str, tuple[Offset, Offset]]:
    """The topics whose end lies past the group's place: place and end of each."""
    partitions = [Partition(topic) for topic in topics]
    if not partitions:
        return {}
    places = log.places(GROUP, partitions)
    starts = log.starts(partitions)
    found: dict[str, tuple[Offset, Offset]] = {}
    for partition, end in log.ends(partitions).items():
        place = max(places[partition].offset if partition in places else Offset(0), starts[partition])
        if place < end:
            found[partition.topic] = place, end
    return found


def lake_is_gone(log: Log, lake_url: str, topics: Iterable[str]) -> bool:
    """Whether a lake on this machine was deleted, though something was in it: it is to be made again."""
    if "://" in lake_url or Path(lake_url).exists():
        return False
    return bool(log.places(GROUP, [Partition(topic) for topic in topics]))
