"""The snapshotter: folds the topics of Tables into Delta tables, keeps those in shape, and lets go of what is old.

What is exported here imports no Delta: whoever starts the process only needs its settings.
"""

from __future__ import annotations

from tailrace.snapshotter.index import IndexEntry, read_index
from tailrace.snapshotter.settings import SnapshotterSettings, TableWish
from tailrace.snapshotter.topics import GROUP, TableLane, behind, lake_is_gone, lanes_by_key, table_lanes
from tailrace.snapshotter.wishes import following, table_wishes

__all__ = [
    "GROUP",
    "IndexEntry",
    "SnapshotterSettings",
    "TableLane",
    "TableWish",
    "behind",
    "following",
    "lake_is_gone",
    "lanes_by_key",
    "read_index",
    "table_lanes",
    "table_wishes",
]
