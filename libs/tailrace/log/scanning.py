"""Reading a whole range of a partition, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

from tailrace.log.contract import Batch, Log, Offset, Partition

__all__ = ["scan"]


def scan(log: Log, partition: Partition, start: Offset, stop: Offset) -> Iterator[Batch]:
    """Committed records with `start <= offset < stop`, in batches of the log's ordinary size.

    Ends early where the log's end comes first. Raises as `Log.read`.
    """
    while start < stop:
        batch = log.read(partition, start, stop=stop)
        yield batch
        if batch.next <= start:
            return
        start = batch.next
