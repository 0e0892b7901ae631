"""The folds of topics, made again from the lake alone: for when indexes are gone and the log's beginning is trimmed."""

from __future__ import annotations

from collections.abc import Callable

from tailrace.lake.delta import VersionTable
from tailrace.lake.errors import LakeDamagedError, LakeUnavailableError
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
    on_unread: Callable[[LakeDamagedError | LakeUnavailableError], None] | None = None,
) -> tuple[TableFold, list[Snapshot]]:
    """The fold of a topic (with `lane`, of that one of its several partitions) at the last position that any of its Delta
    tables has, and the snapshots of its versions.

    To be advanced from there with what the log has. A fold at position 0, and no snapshots, where the lake knows nothing of
    the topic. `born_ms`: what belongs to a topic of that name that was deleted is passed over; None: the youngest counts.
    `on_unread` is told of each Delta table that is not as we left it, or cannot be read (rights are missing), and the
    others count; None: it is raised.

    Raises:
        LakeUnavailableError: retriable; the lake cannot be reached.
        LakeDamagedError: rejected; a Delta table of the topic is not as we left it.
    """
    found: list[tuple[VersionTable, Snapshot]] = []
    for folder in location.folders(topic, lane):
        try:
            table = VersionTable.open(location, folder, limits=limits)
            if table is not None and table.position > 0 and (table.meta.topic, table.meta.lane) == (topic, lane):
                found.append((table, table.snapshot()))
        except (LakeDamagedError, LakeUnavailableError) as error:
            if on_unread is None:
                raise
            on_unread(error)
    if born_ms is None:
        born_ms = max((table.meta.born_ms for table, _ in found), default=0)
    found = [each for each in found if each[0].meta.born_ms == born_ms]
    if not found:
        return TableFold(topic), []
    # Each commit tells of all versions, so the newest one tells everything.
    newest, _ = max(found, key=lambda each: each[0].position)
    return newest.meta.fold(), [snapshot for _, snapshot in found]
