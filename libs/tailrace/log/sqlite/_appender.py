"""Group commit for one event loop: all that waits goes down in one transaction."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple

from tailrace.errors import TailraceError
from tailrace.log.contract import LogLimits, NewRecord, Partition
from tailrace.log.errors import LogBusyError, LogUnavailableError, TopicNotFoundError
from tailrace.log.sqlite._bells import Bells
from tailrace.log.sqlite._database import Database
from tailrace.log.sqlite._records import check_sizes, is_there, put_records
from tailrace.runtime import Clock

__all__ = ["SqliteAppender"]

_TRANSACTION_BYTES_MAX = 32 << 20
"""A transaction takes no more records after this many bytes: more would hold up the other writers and swell the WAL."""


class _Waiting(NamedTuple):
    partition: Partition
    record: NewRecord
    done: asyncio.Future[None]


class SqliteAppender:
    def __init__(self, database: Database, bells: Bells, clock: Clock, limits: LogLimits) -> None:
        self._database, self._bells, self._clock, self._limits = database, bells, clock, limits
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._waiting = 0
        self._closed = False
        self._finished = self._loop.create_future()
        threading.Thread(target=self._run, name="tailrace-log-appender", daemon=True).start()

    async def append(self, partition: Partition, record: NewRecord) -> None:
        if self._closed:
            raise LogUnavailableError(self._database.url, "the appender is closed")
        check_sizes((record,), self._limits.record_bytes_max)
        if self._waiting >= self._limits.append_wait_max:
            raise LogBusyError(self._waiting, self._limits.append_wait_max)
        self._waiting += 1
        done = self._loop.create_future()
        self._queue.put(_Waiting(partition, record, done))
        await done

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._queue.put(None)
        await asyncio.shield(self._finished)

    def _run(self) -> None:
        last = False
        while not last:
            batch, last = self._take()
            if batch:
                self._call(self._answer, batch, *self._write(batch))
        self._call(self._finish)

    def _take(self) -> tuple[list[_Waiting], bool]:
        batch: list[_Waiting] = []
        size = 0
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            size += len(item.record.value or b"")
            if size >= _TRANSACTION_BYTES_MAX:
                return batch, False
            try:
                item = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _write(self, batch: list[_Waiting]) -> tuple[frozenset[Partition], Exception | None]:
        """Returns the partitions that are not there, and what went wrong with all of it."""
        by_partition: dict[Partition, list[NewRecord]] = {}
        for partition, record, _ in batch:
            by_partition.setdefault(partition, []).append(record)
        missing: set[Partition] = set()
        try:
            with self._database.writing(f"an append of {len(batch)} records") as connection:
                ts_ms = self._clock.now_ms()
                for partition, records in by_partition.items():
                    if is_there(connection, partition):
                        put_records(connection, partition, records, ts_ms)
                    else:
                        missing.add(partition)
        except Exception as error:
            return frozenset(), error
        self._bells.ring(by_partition.keys() - missing)
        return frozenset(missing), None

    def _answer(self, batch: list[_Waiting], missing: frozenset[Partition], error: Exception | None) -> None:
        self._waiting -= len(batch)
        for partition, _, done in batch:
            if done.done():  # cancelled: nobody asks any more
                continue
            if error is not None:
                done.set_exception(_twin(error))
            elif partition in missing:
                done.set_exception(TopicNotFoundError(*partition))
            else:
                done.set_result(None)

    def _finish(self) -> None:
        if not self._finished.done():
            self._finished.set_result(None)

    def _call(self, what: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed, and with it all who waited
            self._loop.call_soon_threadsafe(what, *arguments)


def _twin(error: Exception) -> Exception:
    """The same error for one more waiter: raising one object in many tasks would mix their tracebacks."""
    if not isinstance(error, TailraceError):
        return error
    twin = type(error).__new__(type(error), *error.args)
    twin.__dict__.update(error.__dict__)
    twin.__cause__ = error.__cause__
    return twin
