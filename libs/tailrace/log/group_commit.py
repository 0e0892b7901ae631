"""Group commit for one event loop: all that waits is written together, and woken together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple, TypeAlias

from tailrace.errors import TailraceError
from tailrace.log.contract import LogLimits, NewRecord, Partition
from tailrace.log.errors import LogBusyError, LogUnavailableError, RecordTooLargeError

__all__ = ["GroupAppender", "WriteTogether", "check_sizes"]

GROUP_BYTES_MAX = 32 << 20
"""A group takes no more records after this many bytes: a larger one would hold up the other writers."""

WriteTogether: TypeAlias = Callable[[Mapping[Partition, list[NewRecord]]], Mapping[Partition, Exception | None]]
"""Writes a group, in a thread; says for each partition what went wrong, if anything. May raise: then nothing of the
group is known to be written."""


def check_sizes(records: Iterable[NewRecord], record_bytes_max: int) -> None:
    """Raise `RecordTooLargeError` if one is over the limit."""
    for value, key in records:
        size = (len(value) if value else 0) + (len(key) if key else 0)
        if size > record_bytes_max:
            raise RecordTooLargeError(size, record_bytes_max)


class _Waiting(NamedTuple):
    partition: Partition
    record: NewRecord
    done: asyncio.Future[None]


class GroupAppender:
    """An `Appender` over whatever writes a group of records.

    Args:
        url: for errors.
        check_open: raises when the log is closed.
    """

    def __init__(self, url: str, limits: LogLimits, write: WriteTogether, check_open: Callable[[], None]) -> None:
        self._url, self._limits, self._write, self._check_open = url, limits, write, check_open
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._waiting = 0
        self._closed = False
        self._finished = self._loop.create_future()
        threading.Thread(target=self._run, name="tailrace-log-appender", daemon=True).start()

    async def append(self, partition: Partition, record: NewRecord) -> None:
        if self._closed:
            raise LogUnavailableError(self._url, "the appender is closed")
        self._check_open()
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
            group, last = self._take()
            if group:
                by_partition: dict[Partition, list[NewRecord]] = {}
                for partition, record, _ in group:
                    by_partition.setdefault(partition, []).append(record)
                try:
                    outcomes = self._write(by_partition)
                except Exception as error:
                    outcomes = dict.fromkeys(by_partition, error)
                self._call(self._answer, group, outcomes)
        self._call(self._finish)

    def _take(self) -> tuple[list[_Waiting], bool]:
        """What waits now, and whether it is the last."""
        group: list[_Waiting] = []
        size = 0
        item = self._queue.get()
        while item is not None:
            group.append(item)
            size += len(item.record.value or b"")
            if size >= GROUP_BYTES_MAX:
                return group, False
            try:
                item = self._queue.get_nowait()
            except Empty:
                return group, False
        return group, True

    def _answer(self, group: list[_Waiting], outcomes: Mapping[Partition, Exception | None]) -> None:
        self._waiting -= len(group)
        for partition, _, done in group:
            if done.done():  # cancelled: nobody asks any more
                continue
            error = outcomes[partition]
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(_twin(error))

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
