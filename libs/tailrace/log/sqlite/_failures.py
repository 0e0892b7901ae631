"""What SQLite and the operating system report, as errors of the log."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

from tailrace.errors import TailraceError
from tailrace.log.errors import DiskFullError, LogFormatError, LogUnavailableError

__all__ = ["FORMAT_WANTED", "failure_of_os", "failure_of_sqlite", "nothing_was_committed"]

FORMAT_WANTED = "log format 1 of Tailrace"

_FREE_BYTES_MIN = 1 << 16
"""With less than this left, an I/O error is taken for a full disk: quotas and SQLite's shared memory report one so."""


def failure_of_sqlite(error: sqlite3.Error, url: str, path: Path) -> TailraceError:
    """The log's error for one of SQLite's that came before its transaction was committed."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL or (primary == sqlite3.SQLITE_IOERR and _is_full(path.parent)):
        return DiskFullError(url, str(path))
    if primary == sqlite3.SQLITE_NOTADB:
        return LogFormatError(str(path), "no SQLite log in it", f"{FORMAT_WANTED}: point the log's url at another file")
    if primary == sqlite3.SQLITE_CORRUPT:
        return LogFormatError(str(path), f"damage ({error})", f"{FORMAT_WANTED}: restore the file from a backup")
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return LogUnavailableError(url, f"another program keeps {path} locked ({name}); close it, then try again")
    if primary in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_CANTOPEN}:
        return LogUnavailableError(
            url, f"{path} cannot be opened for writing ({name}): check that the folder exists and its permissions"
        )
    return LogUnavailableError(url, f"{error} ({name})")


def failure_of_os(error: OSError, url: str, path: Path) -> TailraceError:
    """The log's error for one of the operating system's that came before anything was written."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFullError(url, str(path))
    return LogUnavailableError(url, f"{path}: {error.strerror or error}; check that the folder can be written to")


def nothing_was_committed(error: sqlite3.Error) -> bool:
    """Whether a failed COMMIT certainly left nothing.

    The last frame of a transaction is what commits it, and one that could not be written whole is no frame. A failed
    fsync is another matter: the frames may be on the disk and come back in a recovery.
    """
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY} or code == sqlite3.SQLITE_IOERR_WRITE


def _is_full(folder: Path) -> bool:
    try:
        free = os.statvfs(folder)
    except OSError:
        return False
    return free.f_bavail * free.f_frsize < _FREE_BYTES_MIN
