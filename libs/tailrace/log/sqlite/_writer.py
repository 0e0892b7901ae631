"""The one living writer of a name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tailrace.log.contract import Append, Commit, OffsetRange, Partition, Place
from tailrace.log.errors import FencedError, OutcomeUnknownError
from tailrace.log.group_commit import check_sizes
from tailrace.log.sqlite._bells import Bells
from tailrace.log.sqlite._database import Database
from tailrace.log.sqlite._records import put_places, put_records
from tailrace.runtime import Clock

__all__ = ["SqliteWriter"]


class SqliteWriter:
    def __init__(self, database: Database, bells: Bells, clock: Clock, record_bytes_max: int, name: str) -> None:
        self._database, self._bells, self._clock = database, bells, clock
        self._record_bytes_max = record_bytes_max
        self._name = name
        self._given_up = False
        self._epoch: int
        self._commits: int
        with database.writing(f"opening writer {name!r}") as connection:
            self._epoch, self._commits = connection.execute(
                "INSERT INTO writers VALUES (?, 1, 0) ON CONFLICT DO UPDATE SET epoch = epoch + 1 RETURNING epoch, commits",
                (name,),
            ).fetchone()

    @property
    def name(self) -> str:
        return self._name

    @property
    def commits(self) -> int:
        return self._commits

    @property
    def lost(self) -> bool:
        return False

    def commit(
        self, appends: Sequence[Append] = (), places: Mapping[str, Mapping[Partition, Place]] | None = None
    ) -> Commit:
        if self._given_up:
            raise FencedError(self._name)
        for _, records in appends:
            check_sizes(records, self._record_bytes_max)
        number = self._commits + 1
        written: dict[Partition, OffsetRange] = {}
        try:
            with self._database.writing(f"commit {number} of writer {self._name!r}") as connection:
                if not connection.execute(
                    "UPDATE writers SET commits = ? WHERE name = ? AND epoch = ?", (number, self._name, self._epoch)
                ).rowcount:
                    raise FencedError(self._name)
                ts_ms = self._clock.now_ms()
                for partition, records in appends:
                    put = put_records(connection, partition, records, ts_ms)
                    before = written.get(partition)
                    written[partition] = put if before is None else OffsetRange(before.start, put.stop)
                if places:
                    put_places(connection, places)
        except (FencedError, OutcomeUnknownError):
            self._given_up = True
            raise
        self._commits = number
        self._bells.ring(partition for partition, put in written.items() if put.start < put.stop)
        return Commit(number, written)

    def close(self) -> None:
        self._given_up = True
