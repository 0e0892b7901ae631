"""Snapshots as a reader opens them: whole, or cut where an earlier moment is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tailrace.tables import Snapshot

__all__ = ["open_snapshot"]


def open_snapshot(snapshot: Snapshot, folder: Path, before: str | None) -> Any:
    """The reader of a snapshot's files; with `before`, of the rows with a lesser id only."""
    from tailrace.tables.snapshot import SnapshotReader  # type: ignore[attr-defined]

    return SnapshotReader(snapshot, folder)
