"""The embedded log: one SQLite file, shared by any number of processes of one machine."""

from __future__ import annotations

from tailrace.log.sqlite._log import SqliteLog

__all__ = ["SqliteLog"]
