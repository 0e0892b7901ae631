"""Rows that fit no type of their Table go to its dead letters, an ordinary Table beside it."""

from __future__ import annotations

from collections.abc import Sequence

from tailrace.log import Log, NewRecord, Partition, TopicSpec
from tailrace.snapshotter.topics import TableLane
from tailrace.tables import BadRow, dead_letters_message, dead_letters_topic

__all__ = ["bury"]

_ROWS_MAX = 100


def bury(log: Log, lane: TableLane, dead: Sequence[BadRow], now_ms: int) -> None:
    """Append rows of the lane to the dead letters of its Table; durable on return."""
    topic, number = lane.topic, lane.number
    if topic.endswith("-dead"):  # there is nowhere further to go
        return
    log.create_topics([TopicSpec(dead_letters_topic(topic))])
    for start in range(0, len(dead), _ROWS_MAX):
        rows = [(each.offset, each.row, each.value, str(each.error), "") for each in dead[start : start + _ROWS_MAX]]
        log.append(
            Partition(dead_letters_topic(topic)), [NewRecord(dead_letters_message(rows, now_ms, partition=number))]
        )
