"""The embedded log: one SQLite file, shared by any number of processes of one machine."""

from __future__ import annotations

from tailrace.log.sqlite._log import SqliteLog
from tailrace.log.sqlite._restore import SqliteRestore

__all__ = ["SqliteLog", "SqliteRestore"]
