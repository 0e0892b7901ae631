"""The folds of topics, made again from the lake alone: for when indexes are gone and the log's beginning is trimmed."""

from __future__ import annotations

from tailrace.lake.delta import VersionTable
from tailrace.lake.limits import LakeLimits
from tailrace.lake.location import LakeLocation
from tailrace.tables import Snapshot, TableFold

__all__ = ["rebuild_fold"]


def rebuild_fold(
    location: LakeLocation,
    topic: str,
    lane: int | None = None,
    *,
    born_ms: int | None = None,
    limits: LakeLimits | None = None,
) -> tuple[TableFold, list[Snapshot]]:
    """The fold of a topic (with `lane`, of that one of its several partitions) at the last position that any of its Delta
    tables has, and the snapshots of its versions.

    To be advanced from there with what the log has. A fold at position 0, and no snapshots, where the lake knows nothing of
    the topic. `born_ms`: what belongs to a topic of that name that was deleted is passed over; None: the youngest counts.

    Raises:
        LakeUnavailableError: retriable; the lake cannot be reached.
        LakeDamagedError: rejected; a Delta table of the topic is not as we left it.
    """
    opened = (VersionTable.open(location, folder, limits=limits) for folder in location.folders(topic, lane))
    found = [table for table in opened if table is not None and table.position > 0]
    tables = [table for table in found if (table.meta.topic, table.meta.lane) == (topic, lane)]
    if born_ms is None:
        born_ms = max((table.meta.born_ms for table in tables), default=0)
    tables = [table for table in tables if table.meta.born_ms == born_ms]
    if not tables:
        return TableFold(topic), []
    # Each commit tells of all versions, so the newest one tells everything.
    newest = max(tables, key=lambda table: table.position)
    return newest.meta.fold(), [table.snapshot() for table in tables]
