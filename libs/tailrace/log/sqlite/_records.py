"""Records in the file: putting them in, reading them, trimming them. Each function runs inside a caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import cast

from tailrace.log.contract import Batch, NewRecord, Offset, OffsetRange, Partition, Place, Record
from tailrace.log.errors import OffsetGapError, TopicNotFoundError
from tailrace.log.sqlite._schema import OFFSET_BITS, OFFSET_MAX

__all__ = ["is_there", "put_places", "put_records", "read_records", "sweep_dropped", "trim_records"]

TOMBSTONE_KEPT_MS = 24 * 60 * 60 * 1000
"""How long a tombstone of a compacted topic stays: a reader that is further behind may never learn that the key is
gone. Kafka's default (`delete.retention.ms`)."""

_TOMBSTONES_MAX = 20
"""Most old tombstones that one transaction takes away: more than it can add a time, so they do not pile up."""

_ROWS_AT_ONCE = 64
"""Rows that a read fetches before it looks how many bytes they are: one by one is a third slower (830,000 records/s
instead of 1,000,000), and so many may lie in memory past `bytes_max`."""

_LARGE_BYTES = 64 << 10
"""Records of this size are fetched one by one."""

_INSERT_ROWS = (256, 64)
"""Sizes of the pieces in which records are put in; what is left over is a piece of its own. Each call into SQLite lets
go of the interpreter, and to get it back from a busy event loop takes longer than the insert; the statement of each size
is kept by the connection, so that there may not be too many."""

_as_record = cast("Callable[[tuple[int, int, bytes | None, bytes | None]], Record]", partial(tuple.__new__, Record))
"""What `Record._make` does, without the call into Python."""


def is_there(connection: sqlite3.Connection, partition: Partition) -> bool:
    found = connection.execute("SELECT 1 FROM partitions WHERE topic = ? AND number = ?", partition).fetchone()
    return found is not None


def put_records(
    connection: sqlite3.Connection, partition: Partition, records: Sequence[NewRecord], ts_ms: int
) -> OffsetRange:
    """Add them at the partition's end; in a compacted topic they take the place of older ones with their keys."""
    row = connection.execute(
        "UPDATE partitions SET end_offset = end_offset + ? WHERE topic = ? AND number = ?"
        " RETURNING id, end_offset, compacted",
        (len(records), *partition),
    ).fetchone()
    if row is None:
        raise TopicNotFoundError(*partition)
    partition_id, stop, compacted = row
    start = stop - len(records)
    if stop == start:
        return OffsetRange(start, stop)
    assert stop <= OFFSET_MAX, f"{partition} is full"
    first = partition_id << OFFSET_BITS | start
    _insert(connection, first, records, ts_ms)
    if compacted:
        _compact(connection, partition_id, first, records, ts_ms)
    return OffsetRange(start, stop)


def _insert(connection: sqlite3.Connection, first: int, records: Sequence[NewRecord], ts_ms: int) -> None:
    at = 0
    while at < len(records):
        left = len(records) - at
        size = next((size for size in _INSERT_ROWS if size <= left), left)
        connection.execute(
            _insert_of(size),
            [
                each
                for id_, (value, key) in enumerate(records[at : at + size], first + at)
                for each in (id_, ts_ms, key, value)
            ],
        )
        at += size


@cache
def _insert_of(rows: int) -> str:
    return f"INSERT INTO records (id, ts_ms, key, value) VALUES {', '.join(['(?, ?, ?, ?)'] * rows)}"  # noqa: S608


def put_places(connection: sqlite3.Connection, places: Mapping[str, Mapping[Partition, Place]]) -> None:
    for group, of_group in places.items():
        for partition in of_group:
            if not is_there(connection, partition):
                raise TopicNotFoundError(*partition)
        connection.executemany(
            "INSERT INTO places VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET offset = excluded.offset, metadata = excluded.metadata",
            [(group, *partition, *place) for partition, place in of_group.items()],
        )


def read_records(
    connection: sqlite3.Connection,
    partition: Partition,
    start: int,
    stop: int | None,
    *,
    records_max: int,
    bytes_max: int,
) -> Batch:
    row = connection.execute(
        "SELECT id, start_offset, end_offset FROM partitions WHERE topic = ? AND number = ?", partition
    ).fetchone()
    if row is None:
        raise TopicNotFoundError(*partition)
    partition_id, first, end = row
    if start < first:
        raise OffsetGapError(*partition, start, first)
    until = end if stop is None or stop > end else stop
    if until <= start:
        return Batch([], Offset(start))
    base = partition_id << OFFSET_BITS
    rows = connection.execute(
        # One more than may be given: where it lies is where the next read goes on, past what was compacted away.
        "SELECT id - ?, ts_ms, key, value FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
        (base, base | start, base | until, records_max + 1),
    )
    records: list[Record] = []
    room, take = bytes_max, 1
    while some := rows.fetchmany(take):
        size = 0
        for _, _, key, value in some:
            if value:
                size += len(value)
            if key:
                size += len(key)
        if size > room or len(records) + len(some) > records_max:
            for row in some:
                room -= len(row[2] or b"") + len(row[3] or b"")
                if records and (room < 0 or len(records) >= records_max):
                    return Batch(records, row[0])
                records.append(_as_record(row))
        else:
            records += map(_as_record, some)
            room -= size
        take = _ROWS_AT_ONCE if size < _LARGE_BYTES * len(some) else 1
    return Batch(records, Offset(until))


def trim_records(connection: sqlite3.Connection, partition: Partition, before: int, records_max: int) -> Offset:
    row = connection.execute(
        "SELECT id, start_offset, end_offset, compacted FROM partitions WHERE topic = ? AND number = ?", partition
    ).fetchone()
    if row is None:
        raise TopicNotFoundError(*partition)
    partition_id, start, end, compacted = row
    target = min(before, end)
    if target <= start:
        return Offset(start)
    base = partition_id << OFFSET_BITS
    last = connection.execute(
        "SELECT id FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT 1 OFFSET ?",
        (base | start, base | target, records_max),
    ).fetchone()
    new_start = target if last is None else last[0] - base
    span = (base | start, base | new_start)
    if compacted:
        connection.execute(
            "DELETE FROM keys WHERE partition_id = ? AND record_id < ?"
            " AND key IN (SELECT key FROM records WHERE id >= ? AND id < ? AND key IS NOT NULL)",
            (partition_id, base | new_start, *span),
        )
    connection.execute("DELETE FROM records WHERE id >= ? AND id < ?", span)
    connection.execute("UPDATE partitions SET start_offset = ? WHERE topic = ? AND number = ?", (new_start, *partition))
    return Offset(new_start)


def sweep_dropped(connection: sqlite3.Connection, records_max: int) -> bool:
    """Delete some records of a deleted topic; whether there are more of them."""
    row = connection.execute("SELECT id FROM dropped_partitions LIMIT 1").fetchone()
    if row is None:
        return False
    (partition_id,) = row
    span = (partition_id << OFFSET_BITS, (partition_id + 1) << OFFSET_BITS)
    connection.execute(
        "DELETE FROM records WHERE id IN (SELECT id FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?)",
        (*span, records_max),
    )
    connection.execute(
        "DELETE FROM keys WHERE partition_id = ? AND key IN (SELECT key FROM keys WHERE partition_id = ? LIMIT ?)",
        (partition_id, partition_id, records_max),
    )
    left = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM records WHERE id >= ? AND id < ?) OR EXISTS (SELECT 1 FROM keys WHERE partition_id = ?)",
        (*span, partition_id),
    ).fetchone()
    if not left[0]:
        connection.execute("DELETE FROM dropped_partitions WHERE id = ?", row)
    return True


def _compact(
    connection: sqlite3.Connection, partition_id: int, first: int, records: Sequence[NewRecord], ts_ms: int
) -> None:
    last: dict[bytes, tuple[int, int | None]] = {}
    older: list[tuple[int]] = []
    for id_, (value, key) in enumerate(records, first):
        if key is not None:
            if key in last:
                older.append((last[key][0],))
            last[key] = (id_, ts_ms if value is None else None)
    find = "SELECT record_id FROM keys WHERE partition_id = ? AND key = ?"
    for key in last:
        row = connection.execute(find, (partition_id, key)).fetchone()
        if row is not None:
            older.append(row)
    connection.executemany("DELETE FROM records WHERE id = ?", older)
    connection.executemany(
        "INSERT INTO keys VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET record_id = excluded.record_id, tombstone_ms = excluded.tombstone_ms",
        [(partition_id, key, *found) for key, found in last.items()],
    )
    gone = connection.execute(
        "SELECT partition_id, key, record_id FROM keys WHERE tombstone_ms < ? LIMIT ?",
        (ts_ms - TOMBSTONE_KEPT_MS, _TOMBSTONES_MAX),
    ).fetchall()
    if gone:
        connection.executemany("DELETE FROM records WHERE id = ?", [(record_id,) for _, _, record_id in gone])
        connection.executemany(
            "DELETE FROM keys WHERE partition_id = ? AND key = ?", [(id_, key) for id_, key, _ in gone]
        )
