"""Where the rows of a version before a cut are: in the log, or in a snapshot and the log after it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from tailrace.errors import RejectedError
from tailrace.tables import IdMaker, Snapshot, VersionView

__all__ = ["Held", "PastGoneError", "hold", "oldest_cut"]


class PastGoneError(RejectedError):
    """A table cannot be read as of a moment: its log was trimmed, and no snapshot says what there was."""

    def __init__(self, table: str, cut: int, oldest: int, oldest_at: str = "") -> None:
        self.table, self.cut, self.oldest, self.oldest_at = table, cut, oldest, oldest_at
        moment = f"position {oldest}" + (f" ({oldest_at})" if oldest_at else "")
        wanted = f"position {cut}" if cut >= 0 else "that moment"
        super().__init__(
            f"table {table!r} cannot be read as of {wanted}: what lay there is gone. The oldest that can be read is "
            f"{moment}"
        )


class Held(NamedTuple):
    """Where rows are."""

    snapshot: Snapshot | None
    """Its rows come first; None: all that is wanted is in the log."""

    before: str | None
    """Of the snapshot's rows only those with a lesser id; None: all."""

    log_start: int
    """The first offset that was not trimmed."""


def hold(
    table: str,
    view: VersionView,
    cut: int,
    log_start: int,
    snapshots: Sequence[Snapshot],
    deletes: Sequence[int],
    ids: IdMaker,
) -> Held:
    """Where the rows of `view` (as of `cut`) are.

    Args:
        snapshots: those known of the version, by position.
        deletes: offsets of the version's `delete` messages, also of those at or after the cut.

    Raises:
        PastGoneError: rejected; neither the log nor a snapshot can tell.
    """

    def in_log(position: int) -> bool:
        """Whether the log has all of the version's messages from `position` on."""
        return all(max(start, position) >= log_start for start, stop in view.segments if stop > position)

    for snapshot in reversed(snapshots):
        if snapshot.position <= cut and in_log(snapshot.position):
            return Held(snapshot, None, log_start)
    if in_log(0):
        return Held(None, None, log_start)
    for snapshot in snapshots:
        # Rows of a later snapshot may be taken where nothing but appending made them.
        plain = not view.settings.unique_on and not snapshot.unique_on
        if plain and snapshot.position > cut and not any(cut <= at < snapshot.position for at in deletes):
            before = ids.id_at(cut, 0)
            files = tuple(file for file in snapshot.files if file.first_id < before)
            return Held(replace(snapshot, position=cut, files=files), before, log_start)
    raise PastGoneError(table, cut, oldest_cut(view, log_start, snapshots))


def oldest_cut(view: VersionView, log_start: int, snapshots: Sequence[Snapshot]) -> int:
    """The first position as of which the version can be read."""
    known = [snapshot.position for snapshot in snapshots if snapshot.position >= log_start]
    return min(known, default=max([log_start, *(stop for _, stop in view.segments)]))
