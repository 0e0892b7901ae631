"""Errors of backups, restores and migrations."""

from __future__ import annotations

from pathlib import Path

from tailrace.errors import FatalError, RejectedError, RetriableError

__all__ = ["ArchiveDamagedError", "ArchiveFormatError", "CopyDiffersError", "SourceChangedError"]


class ArchiveDamagedError(RejectedError):
    """A backup is not what was written: cut off, or changed."""

    def __init__(self, path: Path, cause: str) -> None:
        self.path, self.cause = path, cause
        self.hint = "take another copy of it, or an older backup; nothing of it counts as restored"
        super().__init__(f"{path} is damaged: {cause}")


class ArchiveFormatError(RejectedError):
    """A file is no backup of ours, or of a newer format."""

    def __init__(self, path: Path, found: str) -> None:
        self.path, self.found = path, found
        super().__init__(f"{path} holds {found}; this program reads backups of Tailrace of format 1")


class SourceChangedError(RetriableError):
    """What was copied changed in a way that leaves no whole copy."""

    def __init__(self, what: str, hint: str) -> None:
        self.what, self.hint = what, hint
        super().__init__(f"{what} while it was copied; the copy does not count")


class CopyDiffersError(FatalError):
    """A copy was read back, and is not what was written."""

    def __init__(self, where: str, differing: list[str]) -> None:
        self.where, self.differing = where, differing
        self.hint = "keep the source; delete the copy and begin again, with nothing else writing to it"
        super().__init__(f"{where} differs from its source in {', '.join(differing[:5])}")
