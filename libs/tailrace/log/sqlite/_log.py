"""The log on one SQLite file: the contract, carried out by the modules beside this one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from tailrace.errors import SettingError
from tailrace.log.contract import (
    Appender,
    Batch,
    LogCut,
    LogLimits,
    NewRecord,
    Offset,
    OffsetRange,
    Partition,
    Place,
    TopicInfo,
    TopicSpec,
    Watch,
    Writer,
    Wrote,
)
from tailrace.log.errors import TopicNotFoundError
from tailrace.log.facts import SqliteFacts
from tailrace.log.group_commit import GroupAppender, check_sizes
from tailrace.log.sqlite._bells import Bells
from tailrace.log.sqlite._database import Database
from tailrace.log.sqlite._records import put_records, read_records, sweep_dropped, trim_records
from tailrace.log.sqlite._watch import SqliteWatch
from tailrace.log.sqlite._writer import SqliteWriter
from tailrace.runtime import SYSTEM, Runtime

__all__ = ["SqliteLog"]

_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
"""Kafka's rule, so that an app's names work on both logs."""

_DELETE_RECORDS_MAX = 5_000
"""Most records of a deleted topic that one transaction takes away. One DELETE of 1.9 million held other writers up for
2.9 s and left a WAL of 654 MB."""


class SqliteLog:
    """A log for the processes of one machine. Writing is durable on return (WAL, `synchronous=FULL`).

    Beside the file lie SQLite's own `-wal` and `-shm`, a `-lock` that queues writers, and a folder `-bells` of sockets by
    which commits wake watchers. The file does not shrink: what is trimmed away is used again.
    """

    def __init__(self, url: str, *, limits: LogLimits | None = None, runtime: Runtime = SYSTEM) -> None:
        self._limits = limits or LogLimits()
        self._runtime = runtime
        self._database = Database(url, self._limits, runtime)
        self._bells = Bells(self._database.path)

    @property
    def limits(self) -> LogLimits:
        return self._limits

    def create_topics(self, specs: Sequence[TopicSpec]) -> dict[str, TopicInfo]:
        for spec in specs:
            if not _TOPIC_NAME.fullmatch(spec.name) or spec.name in {".", ".."}:
                raise SettingError("topic", spec.name, "must be 1 to 249 of the characters a-z A-Z 0-9 . _ -")
            if spec.partitions < 1:
                raise SettingError(f"partitions of topic {spec.name}", spec.partitions, "must be at least 1")
        made: dict[str, TopicInfo] = {}
        with self._database.reading() as connection:
            for spec in specs:
                row = connection.execute("SELECT * FROM topics WHERE name = ?", (spec.name,)).fetchone()
                if row is not None:
                    made[spec.name] = _info(row)
        if all(spec.name in made for spec in specs):
            return made
        with self._database.writing("creating topics") as connection:
            next_id, born_floor_ms = connection.execute(
                "SELECT next_partition_id, born_floor_ms FROM settings"
            ).fetchone()
            born_ms = max(self._runtime.clock.now_ms(), born_floor_ms + 1)
            for spec in specs:
                if connection.execute(
                    "INSERT INTO topics VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (spec.name, spec.partitions, spec.compacted, born_ms),
                ).rowcount:
                    connection.executemany(
                        "INSERT INTO partitions (topic, number, id, compacted) VALUES (?, ?, ?, ?)",
                        [(spec.name, number, next_id + number, spec.compacted) for number in range(spec.partitions)],
                    )
                    next_id += spec.partitions
                row = connection.execute("SELECT * FROM topics WHERE name = ?", (spec.name,)).fetchone()
                made[spec.name] = _info(row)
            connection.execute("UPDATE settings SET next_partition_id = ?", (next_id,))
        return {spec.name: made[spec.name] for spec in specs}

    def delete_topics(self, names: Sequence[str]) -> None:
        deadline_s = self._runtime.clock.monotonic_s() + self._limits.request_timeout.total_seconds() / 2
        with self._database.writing("deleting topics") as connection:
            for name in names:
                row = connection.execute("DELETE FROM topics WHERE name = ? RETURNING born_ms", (name,)).fetchone()
                if row is None:
                    continue
                connection.execute("UPDATE settings SET born_floor_ms = max(born_floor_ms, ?)", row)
                connection.execute("INSERT INTO dropped_partitions SELECT id FROM partitions WHERE topic = ?", (name,))
                connection.execute("DELETE FROM partitions WHERE topic = ?", (name,))
                connection.execute("DELETE FROM places WHERE topic = ?", (name,))
        # The topic is gone. Its records follow in small steps; those of a very large one with later deletes and trims.
        while self._sweep() and self._runtime.clock.monotonic_s() < deadline_s:
            pass

    def topics(self, prefix: str = "") -> dict[str, TopicInfo]:
        with self._database.reading() as connection:
            rows = connection.execute(
                # Names are ASCII, so U+10FFFF sorts after all of them.
                "SELECT * FROM topics WHERE name >= ? AND name < ? ORDER BY name",
                (prefix, prefix + "\U0010ffff"),
            ).fetchall()
        return {row[0]: _info(row) for row in rows}

    def append(self, partition: Partition, records: Sequence[NewRecord]) -> OffsetRange:
        check_sizes(records, self._limits.record_bytes_max)
        with self._database.writing(f"an append to {partition.topic}/{partition.number}") as connection:
            put = put_records(connection, partition, records, self._runtime.clock.now_ms())
        if put.start < put.stop:
            self._bells.ring([partition])
        return put

    def appender(self, wrote: Wrote | None = None) -> Appender:
        return GroupAppender(self._database.url, self._limits, self._append_together, lambda: None, wrote)

    def _append_together(self, group: Mapping[Partition, list[NewRecord]]) -> dict[Partition, OffsetRange | Exception]:
        outcomes: dict[Partition, OffsetRange | Exception] = {}
        with self._database.writing(f"an append to {len(group)} partitions") as connection:
            ts_ms = self._runtime.clock.now_ms()
            for partition, records in group.items():
                try:
                    outcomes[partition] = put_records(connection, partition, records, ts_ms)
                except TopicNotFoundError as error:  # before anything was written
                    outcomes[partition] = error
        self._bells.ring([partition for partition, found in outcomes.items() if isinstance(found, OffsetRange)])
        return outcomes

    def open_writer(self, name: str) -> Writer:
        return SqliteWriter(self._database, self._bells, self._runtime.clock, self._limits.record_bytes_max, name)

    def read(
        self,
        partition: Partition,
        start: Offset,
        *,
        stop: Offset | None = None,
        records_max: int = 10_000,
        bytes_max: int = 16 << 20,
    ) -> Batch:
        with self._database.reading() as connection:
            return read_records(
                connection, partition, start, stop, records_max=max(records_max, 1), bytes_max=bytes_max
            )

    def ends(self, partitions: Sequence[Partition]) -> dict[Partition, Offset]:
        return self._edges("end_offset", partitions)

    def settled_ends(self, partitions: Sequence[Partition]) -> dict[Partition, Offset]:
        # A transaction that is open here holds no offsets yet: those before the end are decided, all of them.
        return self._edges("end_offset", partitions)

    def starts(self, partitions: Sequence[Partition]) -> dict[Partition, Offset]:
        return self._edges("start_offset", partitions)

    def places(self, group: str, partitions: Sequence[Partition]) -> dict[Partition, Place]:
        found: dict[Partition, Place] = {}
        with self._database.reading() as connection:
            for partition in partitions:
                row = connection.execute(
                    "SELECT offset, metadata FROM places WHERE group_name = ? AND topic = ? AND partition = ?",
                    (group, *partition),
                ).fetchone()
                if row is not None:
                    found[partition] = Place(*row)
        return found

    def delete_group(self, group: str) -> None:
        with self._database.writing(f"deleting group {group!r}") as connection:
            connection.execute("DELETE FROM places WHERE group_name = ?", (group,))

    def trim(self, partition: Partition, before: Offset, *, records_max: int = 5_000) -> Offset:
        with self._database.writing(f"a trim of {partition.topic}/{partition.number}") as connection:
            start = trim_records(connection, partition, before, max(1, min(records_max, _DELETE_RECORDS_MAX)))
        self._sweep()
        return start

    def cut(self) -> LogCut:
        with self._database.reading() as connection:
            topics = {row[0]: _info(row) for row in connection.execute("SELECT * FROM topics ORDER BY name")}
            rows = connection.execute(
                "SELECT topic, number, start_offset, end_offset FROM partitions ORDER BY topic, number"
            )
            partitions = {Partition(topic, number): OffsetRange(start, end) for topic, number, start, end in rows}
            places: dict[str, dict[Partition, Place]] = {}
            for group, topic, number, offset, metadata in connection.execute(
                "SELECT group_name, topic, partition, offset, metadata FROM places ORDER BY 1, 2, 3"
            ):
                if (stands := partitions.get(Partition(topic, number))) is not None:
                    places.setdefault(group, {})[Partition(topic, number)] = Place(min(offset, stands.stop), metadata)
            writers = dict(connection.execute("SELECT name, commits FROM writers ORDER BY name").fetchall())
        return LogCut(topics, partitions, places, writers)

    def watch(self, partitions: Sequence[Partition] = ()) -> Watch:
        return SqliteWatch(self._database, self._bells, partitions)

    def find_facts(self) -> SqliteFacts:
        """What the file says of itself: for `tailrace doctor`."""
        path = self._database.path
        with self._database.reading() as connection:
            (journal_mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            (damage,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
            (free_pages,) = connection.execute("PRAGMA freelist_count").fetchone()
        wal = path.with_name(path.name + "-wal")
        disk = os.statvfs(path.parent)
        return SqliteFacts(
            path=str(path),
            journal_mode=journal_mode,
            damage="" if damage == "ok" else str(damage),
            file_bytes=path.stat().st_size,
            free_bytes=free_pages * page_bytes,
            wal_bytes=wal.stat().st_size if wal.exists() else 0,
            disk_free_bytes=disk.f_bavail * disk.f_frsize,
        )

    def close(self) -> None:
        self._bells.close()
        self._database.close()

    def _edges(self, column: str, partitions: Sequence[Partition]) -> dict[Partition, Offset]:
        found: dict[Partition, Offset] = {}
        with self._database.reading() as connection:
            for partition in partitions:
                row = connection.execute(
                    f"SELECT {column} FROM partitions WHERE topic = ? AND number = ?",  # noqa: S608 (one of two names above)
                    partition,
                ).fetchone()
                if row is None:
                    raise TopicNotFoundError(*partition)
                found[partition] = row[0]
        return found

    def _sweep(self) -> bool:
        with self._database.reading() as connection:
            if connection.execute("SELECT 1 FROM dropped_partitions LIMIT 1").fetchone() is None:
                return False
        with self._database.writing("clearing a deleted topic") as connection:
            return sweep_dropped(connection, _DELETE_RECORDS_MAX)


def _info(row: tuple[str, int, int, int]) -> TopicInfo:
    return TopicInfo(row[0], row[1], bool(row[2]), row[3])
