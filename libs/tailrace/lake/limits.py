"""Bounds of what the lake writes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tailrace.errors import SettingError

__all__ = ["LakeLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeLimits:
    """Bounds of the files and of the Delta log of each table."""

    file_bytes_target: int = 128 << 20
    """Size at which a Parquet file is closed, and files are no longer joined. Smaller ones make readers open many;
    larger ones make a merge write more again for each row that it takes out."""

    row_group_rows_max: int = 131072
    """Most rows in a row group. A reader holds one in memory; small ones compress badly."""

    row_group_bytes_max: int = 32 << 20
    """Most bytes in a row group, as they are in memory: for wide rows, of which few are much."""

    files_joined_min: int = 8
    """Neighbouring files of like size that are joined to one. Fewer: rows are written again more often (each row about
    once for every factor of this in the size of the table). More: readers and commits meet more small files."""

    checkpoint_every: int = 50
    """Delta commits after which a Delta checkpoint is written. Opening a table reads the commits since the last one."""

    commits_kept: int = 200
    """Delta commits that stay in the Delta log though a checkpoint covers them, for readers that are opening the table,
    and for us to look back."""

    removed_kept: timedelta = timedelta(hours=25)
    """How long a file stays that no state of the table names any more: runs read it that pinned their cut before. It
    must be longer than the longest run limit and an hour."""

    conflicts_max: int = 5
    """Rivals' commits that one step survives before it gives up until the next round."""

    def __post_init__(self) -> None:
        for name in (
            "file_bytes_target",
            "row_group_rows_max",
            "row_group_bytes_max",
            "checkpoint_every",
            "conflicts_max",
        ):
            if getattr(self, name) < 1:
                raise SettingError(name, getattr(self, name), "must be at least 1")
        if self.files_joined_min < 2:
            raise SettingError("files_joined_min", self.files_joined_min, "must be at least 2")
        if self.commits_kept < 2 * self.checkpoint_every:
            raise SettingError("commits_kept", self.commits_kept, "must be at least twice checkpoint_every")
        if self.removed_kept < timedelta(0):
            raise SettingError("removed_kept", self.removed_kept, "must not be negative")
