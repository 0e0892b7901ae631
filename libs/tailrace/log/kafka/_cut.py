"""A moment of a whole cluster in which no writer is half way, found without disturbing any.

Kafka has no such moment of its own: ends of partitions are asked for one after the other, and a transaction becomes
visible in one partition some milliseconds before another. But each transaction of a named writer leaves its number in a
book-keeping topic, so these are looked at before and after (a seqlock): where none has moved, and none was open, no
transaction was decided between, and the ends that were taken hold all of each or nothing.
"""

from __future__ import annotations

from tailrace.log.contract import LogCut, Offset, OffsetRange, Partition, Place, TopicInfo
from tailrace.log.errors import NoQuietMomentError
from tailrace.log.kafka._clients import Clients
from tailrace.log.kafka._cluster import Cluster
from tailrace.log.kafka._reader import Reader
from tailrace.log.kafka._registry import REGISTRY_WRITER, Registry
from tailrace.log.kafka._writer import NUMBERS, last_number, numbers_topic

__all__ = ["take_cut"]


def take_cut(clients: Clients, cluster: Cluster, reader: Reader, registry: Registry) -> LogCut:
    """As `Log.cut`."""
    topics, partitions, numbers = _quiet_moment(clients, cluster, registry)
    places: dict[str, dict[Partition, Place]] = {}
    for group in cluster.groups():
        of_group = {
            partition: Place(min(place.offset, partitions[partition].stop), place.metadata)
            for partition, place in sorted(cluster.all_places(group).items())
            if partition in partitions
        }
        if of_group:
            places[group] = of_group
    writers = {}
    for partition, end in numbers.items():
        name, number = last_number(cluster, reader, partition, end)
        if number:
            writers[name] = number
    return LogCut(topics, partitions, places, writers)


def _quiet_moment(
    clients: Clients, cluster: Cluster, registry: Registry
) -> tuple[dict[str, TopicInfo], dict[Partition, OffsetRange], dict[Partition, Offset]]:
    deadline = cluster.deadline()
    moved = 0
    while True:
        before = _numbers(cluster)
        if before == cluster.edges(list(before), "end"):
            topics = registry.topics("")
            partitions = [Partition(name, number) for name, info in topics.items() for number in range(info.partitions)]
            stops = cluster.settled_ends(partitions)
            starts = cluster.edges(partitions, "start")
            if _numbers(cluster) == before:
                stands = {each: OffsetRange(starts[each], stops[each]) for each in partitions}
                return topics, stands, before
        moved += 1
        if deadline.passed:
            raise NoQuietMomentError(clients.url.shown, clients.timeout_s, moved)
        deadline.pause()


def _numbers(cluster: Cluster) -> dict[Partition, Offset]:
    own = numbers_topic(REGISTRY_WRITER)
    topics = [name for name in cluster.hello() if name.startswith(NUMBERS) and name != own]
    return cluster.edges([Partition(name) for name in sorted(topics)], "very-end")
