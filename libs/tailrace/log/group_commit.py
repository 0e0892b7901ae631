"""Group commit for one event loop: all that waits is written together, and woken together."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from queue import SimpleQueue
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

    While one group is written, in a thread, the next one gathers in the loop. The two meet twice a group, not twice a
    record: each meeting has one of them wait for the other's hold on the interpreter.

    Args:
        url: for errors.
        check_open: raises when the log is closed.
    """

    def __init__(self, url: str, limits: LogLimits, write: WriteTogether, check_open: Callable[[], None]) -> None:
        self._url, self._limits, self._write, self._check_open = url, limits, write, check_open
        self._loop = asyncio.get_running_loop()
        self._gathered: deque[_Waiting] = deque()
        self._groups: SimpleQueue[list[_Waiting] | None] = SimpleQueue()
        self._waiting = 0
        self._is_writing = False
        """A group is handed over, or is about to be."""
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
        self._gathered.append(_Waiting(partition, record, done))
        if not self._is_writing:
            self._is_writing = True
            self._loop.call_soon(self._hand_over)  # after what else came in this turn of the loop
        await done

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            if not self._is_writing:
                self._groups.put(None)
        await asyncio.shield(self._finished)

    # In the loop

    def _hand_over(self) -> None:
        group: list[_Waiting] = []
        size = 0
        while self._gathered and size < GROUP_BYTES_MAX:
            waiting = self._gathered.popleft()
            group.append(waiting)
            size += len(waiting.record.value or b"")
        self._groups.put(group)

    def _answer(self, group: list[_Waiting], outcomes: Mapping[Partition, Exception | None]) -> None:
        if self._gathered:
            self._hand_over()  # first, so that the disk does not wait for the answers
        else:
            self._is_writing = False
            if self._closed:
                self._groups.put(None)
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

    # In the thread

    def _run(self) -> None:
        while (group := self._groups.get()) is not None:
            by_partition: dict[Partition, list[NewRecord]] = {}
            for partition, record, _ in group:
                by_partition.setdefault(partition, []).append(record)
            try:
                outcomes = self._write(by_partition)
            except Exception as error:
                outcomes = dict.fromkeys(by_partition, error)
            self._call(self._answer, group, outcomes)
        self._call(self._finish)

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
