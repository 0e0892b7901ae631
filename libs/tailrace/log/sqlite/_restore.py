"""Making a log again in a file of its own, which takes its place only when it is whole."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tailrace.log.contract import LogCut, LogLimits, Offset, Partition, Record
from tailrace.log.errors import NotEmptyError
from tailrace.log.sqlite._database import Database, path_of
from tailrace.log.sqlite._failures import failure_of_os, failure_of_sqlite
from tailrace.log.sqlite._records import put_places
from tailrace.log.sqlite._schema import OFFSET_BITS, make_tables
from tailrace.runtime import Runtime

__all__ = ["DRAFT_SUFFIX", "SqliteRestore"]

DRAFT_SUFFIX = "-restoring"
"""The unfinished file lies beside the log's, with this at the end of its name."""


class SqliteRestore:
    """1. `restore-begun`     an empty draft lies beside the place of the log; what an earlier one left is gone.
    2. `restore-filled`    all records are in the draft, and it is on the disk.
    3. `restore-finished`  the draft was renamed: the point of no return lies just before.

    A crash before that leaves the draft, which nobody but the next restore opens.
    """

    def __init__(self, url: str, cut: LogCut, *, limits: LogLimits, runtime: Runtime) -> None:
        self._url, self._cut, self._runtime = url, cut, runtime
        self._path = path_of(url)
        _check_empty(url, self._path, limits, runtime)
        self._draft = self._path.with_name(self._path.name + DRAFT_SUFFIX)
        self._ids: dict[Partition, int] = {}
        self._connection: sqlite3.Connection | None = None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            _delete(self._draft)
            self._connection = self._begin()
        except sqlite3.Error as error:
            raise failure_of_sqlite(error, url, self._draft) from error
        except OSError as error:
            raise failure_of_os(error, url, self._draft) from error
        runtime.probe.reached("restore-begun")

    def put(self, partition: Partition, records: Sequence[Record]) -> None:
        connection = self._connection
        assert connection is not None, "it is closed"
        base = self._ids[partition] << OFFSET_BITS
        stands = self._cut.partitions[partition]
        assert all(stands.start <= record.offset < stands.stop for record in records), partition
        try:
            connection.execute("BEGIN")
            connection.executemany(
                "INSERT INTO records (id, ts_ms, key, value) VALUES (?, ?, ?, ?)",
                [(base | offset, ts_ms, key, value) for offset, ts_ms, key, value in records],
            )
            if self._cut.topics[partition.topic].compacted:
                self._compact(connection, self._ids[partition], base, records)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise failure_of_sqlite(error, self._url, self._draft) from error

    def finish(self, starts: Mapping[Partition, Offset] | None = None) -> None:
        connection = self._connection
        assert connection is not None, "it is closed"
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN")
            connection.executemany(
                "UPDATE partitions SET start_offset = ?, end_offset = ? WHERE topic = ? AND number = ?",
                [
                    (max(stands.start, (starts or {}).get(partition, 0)), stands.stop, *partition)
                    for partition, stands in self._cut.partitions.items()
                ],
            )
            connection.executemany("INSERT INTO writers VALUES (?, 1, ?)", self._cut.writers.items())
            put_places(connection, self._cut.places)
            born_ms = [info.born_ms for info in self._cut.topics.values()]
            connection.execute("UPDATE settings SET born_floor_ms = ?", (max(born_ms, default=0),))
            connection.execute("COMMIT")
            connection.close()
            self._connection = None
            _sync(self._draft)
            self._runtime.probe.reached("restore-filled")
            for beside in ("", "-wal", "-shm"):  # of an empty log
                self._path.with_name(self._path.name + beside).unlink(missing_ok=True)
            self._draft.replace(self._path)
            _sync(self._path.parent)
        except sqlite3.Error as error:
            raise failure_of_sqlite(error, self._url, self._draft) from error
        except OSError as error:
            raise failure_of_os(error, self._url, self._draft) from error
        self._runtime.probe.reached("restore-finished")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _begin(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._draft, isolation_level=None, check_same_thread=False)
        try:
            # Nobody reads it before it is whole and synced: until then a crash may leave anything.
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN")
            make_tables(connection)
            next_id = 1
            for topic in self._cut.topics.values():
                connection.execute("INSERT INTO topics VALUES (?, ?, ?, ?)", topic)
                for number in range(topic.partitions):
                    self._ids[Partition(topic.name, number)] = next_id
                    connection.execute(
                        "INSERT INTO partitions (topic, number, id, compacted) VALUES (?, ?, ?, ?)",
                        (topic.name, number, next_id, topic.compacted),
                    )
                    next_id += 1
            connection.execute("UPDATE settings SET next_partition_id = ?", (next_id,))
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _compact(self, connection: sqlite3.Connection, id_: int, base: int, records: Sequence[Record]) -> None:
        """Keep the last record of each key alone: a Kafka log may still have older ones."""
        last: Mapping[bytes, Record] = {record.key: record for record in records if record.key is not None}
        superseded = [
            base | record.offset for record in records if record.key is not None and last[record.key] is not record
        ]
        for key in last:
            row = connection.execute(
                "SELECT record_id FROM keys WHERE partition_id = ? AND key = ?", (id_, key)
            ).fetchone()
            superseded += row or ()
        connection.executemany("DELETE FROM records WHERE id = ?", [(record_id,) for record_id in superseded])
        connection.executemany(
            "INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?)",
            [
                (id_, key, base | record.offset, record.ts_ms if record.value is None else None)
                for key, record in last.items()
            ],
        )


def _check_empty(url: str, path: Path, limits: LogLimits, runtime: Runtime) -> None:
    if not path.exists():
        return
    database = Database(url, limits, runtime)
    try:
        with database.reading() as connection:
            (topics,) = connection.execute("SELECT count(*) FROM topics").fetchone()
    finally:
        database.close()
    if topics:
        raise NotEmptyError(str(path), f"a log of {topics} topics")


def _delete(draft: Path) -> None:
    for beside in ("", "-journal", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            draft.with_name(draft.name + beside).unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
