"""A deployment as a stream: out of a log and its files into an archive, out of an archive or a log into a log."""

from __future__ import annotations

from tailrace.backup.archive import Archive, ArchiveReader
from tailrace.backup.copying import Copied, Progress, check_archive, copy_log, restore_archive, write_archive
from tailrace.backup.errors import ArchiveDamagedError, ArchiveFormatError, CopyDiffersError, SourceChangedError
from tailrace.backup.files import Files, Folder

__all__ = [
    "Archive",
    "ArchiveDamagedError",
    "ArchiveFormatError",
    "ArchiveReader",
    "Copied",
    "CopyDiffersError",
    "Files",
    "Folder",
    "Progress",
    "SourceChangedError",
    "check_archive",
    "copy_log",
    "restore_archive",
    "write_archive",
]
