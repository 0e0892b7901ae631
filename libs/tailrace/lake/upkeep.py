"""Keeping a Delta table quick: small files joined, the Delta log short, files away that nobody can ask for any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tailrace.lake.delta import VersionTable
from tailrace.lake.limits import LakeLimits
from tailrace.runtime import SYSTEM, Runtime
from tailrace.tables import SnapshotFile

__all__ = ["Tidied", "compact", "files_to_join", "tidy"]


@dataclass(frozen=True, slots=True)
class Tidied:
    """What `tidy` did."""

    checkpoint: bool = False
    """Whether a Delta checkpoint was written."""
    commits_deleted: int = 0
    files_deleted: int = 0


def files_to_join(files: Sequence[SnapshotFile], limits: LakeLimits) -> list[Sequence[SnapshotFile]]:
    """Runs of neighbours to be joined, one file each: files of like size, so that no row is written again too often."""
    raise NotImplementedError


def compact(table: VersionTable, *, limits: LakeLimits | None = None, runtime: Runtime = SYSTEM) -> int:
    """Join neighbouring small files; the number of files that went. The rows and their order stay.

    Raises:
        LakeUnavailableError: retriable; the lake cannot be reached or written.
        LakeDamagedError: rejected; a file is not as we left it.
    """
    raise NotImplementedError


def tidy(table: VersionTable, *, limits: LakeLimits | None = None, runtime: Runtime = SYSTEM) -> Tidied:
    """Write a Delta checkpoint where it is time, shorten the Delta log, and delete what no state names any more.

    Files that were removed less than `limits.removed_kept` ago stay: runs read them.
    """
    raise NotImplementedError
