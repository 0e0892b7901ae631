"""The file: opening it, short read transactions on pooled connections, write transactions in turn."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from tailrace.log.contract import LogLimits
from tailrace.log.errors import LogUnavailableError, LogUrlError, OutcomeUnknownError
from tailrace.log.sqlite._failures import failure_of_os, failure_of_sqlite, nothing_was_committed
from tailrace.log.sqlite._schema import check_format, make_tables
from tailrace.log.sqlite._turns import Turns
from tailrace.runtime import Runtime

__all__ = ["Closeable", "Database", "path_of"]

_READERS_IDLE_MAX = 8
"""Connections that wait for the next read. More than this many threads reading at once open and close their own."""

_CHECKPOINT_PAGES = 2_000
"""Size of the WAL (8 MB) at which it is copied into the file: smaller costs more fsyncs, larger slows readers."""

_WAL_BYTES_MAX = 64 << 20
"""What a large transaction may leave of the WAL's file."""


class Closeable(Protocol):
    """What ends with the handle."""

    def close(self) -> None: ...


def path_of(url: str) -> Path:
    """The file that a `sqlite://` url names, always an absolute path: `sqlite:///folder/tailrace.db`.

    A fourth slash, as SQLAlchemy writes it, is taken as well.
    """
    scheme, separator, rest = url.partition("://")
    if scheme != "sqlite" or not separator:
        raise LogUrlError(url, "it must begin with sqlite:///")
    path = Path("/" + rest.lstrip("/"))
    if not rest.startswith("/") or len(path.parts) < 3 or "\0" in rest:
        raise LogUrlError(url, "give the file's whole path, as in sqlite:///folder/tailrace.db")
    return path


class Database:
    """One handle on the log's file. Thread-safe; no transaction outlives the call that made it."""

    def __init__(self, url: str, limits: LogLimits, runtime: Runtime) -> None:
        self.url = url
        self.path = path_of(url)
        self._runtime = runtime
        self._wait_s = limits.request_timeout.total_seconds()
        self._readers: list[sqlite3.Connection] = []
        self._writer: sqlite3.Connection | None = None
        self.closed = False
        self.watches: set[Closeable] = set()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path = self.path.resolve()
            if self.path.is_dir():
                raise LogUnavailableError(url, f"{self.path} is a folder: name a file in it")
            self._turns = Turns(self.path.with_name(self.path.name + "-lock"), url, self._wait_s)
        except OSError as error:
            raise failure_of_os(error, url, self.path) from error
        try:
            self._make()
        except BaseException:
            self._turns.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection inside a read transaction: everything is read as of one moment. Keep it short."""
        if self.closed:
            raise LogUnavailableError(self.url, "it is closed")
        try:
            connection = self._readers.pop()
        except IndexError:
            connection = self.connect()
        try:
            connection.execute("BEGIN")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            connection.close()
            raise failure_of_sqlite(error, self.url, self.path) from error
        except BaseException:
            self._give_back(connection)
            raise
        self._give_back(connection)

    @contextmanager
    def writing(self, what: str) -> Iterator[sqlite3.Connection]:
        """A connection inside a write transaction, which is committed at the end and durable then.

        1. `sqlite-commit-before`  everything is written, nothing is committed. A crash leaves nothing.
        2. `sqlite-commit-after`   committed and durable. A crash loses only the answer.

        Any error inside takes everything back. What goes wrong between the two points without SQLite's telling what
        became of it is an `OutcomeUnknownError` that names `what`.
        """
        try:
            self._turns.take()
        except OSError as error:
            raise failure_of_os(error, self.url, self.path) from error
        try:
            if self.closed:
                raise LogUnavailableError(self.url, "it is closed")
            if self._writer is None:
                self._writer = self.connect()
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield self._writer
            except sqlite3.Error as error:
                self._drop_writer()
                raise failure_of_sqlite(error, self.url, self.path) from error
            except BaseException:
                self._take_back()
                raise
            self._commit(self._writer, what)
        finally:
            self._turns.give_back()

    def close(self) -> None:
        """Waits for the write that is under way; what comes later raises `LogUnavailableError`."""
        if self.closed:
            return
        self._turns.close()
        self.closed = True
        for watch in list(self.watches):
            watch.close()
        self._drop_writer()
        while self._readers:
            with suppress(IndexError):
                self._readers.pop().close()

    def _commit(self, connection: sqlite3.Connection, what: str) -> None:
        try:
            self._runtime.probe.reached("sqlite-commit-before")
            connection.execute("COMMIT")
            self._runtime.probe.reached("sqlite-commit-after")
        except sqlite3.Error as error:
            self._drop_writer()
            if nothing_was_committed(error):
                raise failure_of_sqlite(error, self.url, self.path) from error
            raise OutcomeUnknownError(what, str(error)) from error
        except OSError as error:
            self._drop_writer()
            raise OutcomeUnknownError(what, str(error)) from error
        except BaseException:
            self._drop_writer()
            raise

    def _take_back(self) -> None:
        assert self._writer is not None
        try:
            self._writer.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop_writer()

    def _drop_writer(self) -> None:
        # Closing takes an open transaction back; after an error of the disk a new connection looks at it afresh.
        connection, self._writer = self._writer, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _give_back(self, connection: sqlite3.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            connection.close()
            return
        if self.closed or len(self._readers) >= _READERS_IDLE_MAX:
            connection.close()
        else:
            self._readers.append(connection)
            if self.closed:  # closed in between: whoever takes it out of the list closes it
                with suppress(IndexError):
                    self._readers.pop().close()

    def connect(self) -> sqlite3.Connection:
        """A new connection, which its taker closes."""
        try:
            connection = sqlite3.connect(
                self.path, timeout=self._wait_s, isolation_level=None, check_same_thread=False, cached_statements=128
            )
            try:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA secure_delete = OFF")
                connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
                connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_MAX}")
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise failure_of_sqlite(error, self.url, self.path) from error
        return connection

    def _make(self) -> None:
        """Make the tables of a new file, or see that an old one is ours before anything is changed in it."""
        self._turns.take()
        try:
            connection = self.connect()
            try:
                if not check_format(connection, self.path):
                    self._make_tables(connection)
                (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
                if mode != "wal":  # a backup tool may have put it back
                    self._switch_to_wal(connection)
            except BaseException as error:
                connection.close()
                if isinstance(error, sqlite3.Error):
                    raise failure_of_sqlite(error, self.url, self.path) from error
                if isinstance(error, OSError):
                    raise failure_of_os(error, self.url, self.path) from error
                raise
            self._writer = connection
        finally:
            self._turns.give_back()

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        self._switch_to_wal(connection)
        connection.execute("BEGIN IMMEDIATE")
        make_tables(connection)
        connection.execute("COMMIT")
        _sync_folder(self.path.parent)

    def _switch_to_wal(self, connection: sqlite3.Connection) -> None:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise LogUnavailableError(self.url, f"the file system of {self.path} cannot hold a WAL")


def _sync_folder(folder: Path) -> None:
    # The file's name must survive a power cut as its contents do.
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
