"""The files of snapshots on this machine: in the lake's own folder, or copied once from the object store."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from tailrace.lake.errors import lake_errors
from tailrace.lake.location import LakeLocation
from tailrace.runtime import SYSTEM, Clock
from tailrace.tables import Snapshot

__all__ = ["SnapshotFiles"]

KEPT_MS = 2 * 3_600_000
"""How long a copy stays that was not asked for: a run may read it for so long."""


class SnapshotFiles:
    """Gives the local folder that holds a snapshot's files.

    Args:
        cache_dir: where copies are kept; they can be deleted whenever nothing runs.
    """

    def __init__(self, location: LakeLocation, cache_dir: Path, clock: Clock = SYSTEM.clock) -> None:
        self._location = location
        self._cache_dir = cache_dir
        self._clock = clock
        self._lock = threading.Lock()

    @property
    def root(self) -> Path:
        """The folder below which all folders lie that `fetch` gives: the lake's own, or that of the copies."""
        return self._location.local_path("") if self._location.is_local else self._cache_dir

    def fetch(self, snapshot: Snapshot) -> Path:
        """The folder; all the snapshot's files are in it.

        Raises:
            LakeUnavailableError: retriable; the lake cannot be reached.
            LakeDamagedError: rejected; a file is gone.
        """
        if self._location.is_local:
            return self._location.local_path(snapshot.folder)
        folder = self._cache_dir / snapshot.folder
        now_s = self._clock.now_ms() / 1000
        with self._lock, lake_errors(snapshot.folder, "a copy of its files"):
            folder.mkdir(parents=True, exist_ok=True)
            for file in snapshot.files:
                copy = folder / file.path
                if not copy.exists():
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    self._location.fetch(snapshot.folder, file.path, copy)
                os.utime(copy, (now_s, now_s))
            self._clean(folder, now_s)
        return folder

    def _clean(self, folder: Path, now_s: float) -> None:
        """Delete copies of files that nobody asked for of late."""
        for copy in folder.rglob("*.parquet"):
            with contextlib.suppress(FileNotFoundError):
                if copy.stat().st_mtime < now_s - KEPT_MS / 1000:
                    copy.unlink()
