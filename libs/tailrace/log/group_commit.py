"""Group commit for one event loop: all that waits is written together, and woken together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeAlias

from tailrace.errors import TailraceError
from tailrace.log.contract import LogLimits, NewRecord, OffsetRange, Partition, Wrote
from tailrace.log.errors import LogBusyError, LogUnavailableError, RecordTooLargeError

__all__ = ["GroupAppender", "WriteTogether", "check_sizes"]

GROUP_BYTES_MAX = 32 << 20
"""A group takes no more records after this many bytes: a larger one would hold up the other writers."""

Outcome: TypeAlias = OffsetRange | Exception
"""Where the records of one partition went, or what went wrong."""

WriteTogether: TypeAlias = Callable[[Mapping[Partition, list[NewRecord]]], Mapping[Partition, Outcome]]
"""Writes a group, in a thread. May raise: then nothing of the group is known to be written."""

_GATHER_S = 0.001
"""A group that waits for more records is closed when none came for so long, which is about what it takes to make one
durable."""

_GATHERS_MAX = 4
"""It is closed after so many times as long, too: a longer wait would be felt."""


def size_of(record: NewRecord) -> int:
    """Bytes of a record's value and key."""
    value, key = record
    return (len(value) if value else 0) + (len(key) if key else 0)


def check_sizes(records: Iterable[NewRecord], record_bytes_max: int) -> None:
    """Raise `RecordTooLargeError` if one is over the limit."""
    for record in records:
        if (size := size_of(record)) > record_bytes_max:
            raise RecordTooLargeError(size, record_bytes_max)


_Waiting: TypeAlias = tuple[Partition, NewRecord, asyncio.Future[None]]


class GroupAppender:
    """An `Appender` over whatever writes a group of records.

    While one group is written, in a thread, the next one gathers in the loop. The two meet twice a group, not twice a
    record: each meeting has one of them wait for the other's hold on the interpreter. A group waits a moment for as many
    records as may come from those who have just been answered: under load all of them write together then, where halves
    would take turns, and thread and loop would be in each other's way all the time (1.7 times as many posts a second).

    Args:
        url: for errors.
        check_open: raises when the log is closed.
        wrote: as in `Log.appender`.
    """

    def __init__(
        self, url: str, limits: LogLimits, write: WriteTogether, check_open: Callable[[], None], wrote: Wrote | None
    ) -> None:
        self._url, self._limits, self._write, self._check_open = url, limits, write, check_open
        self._wrote = wrote
        self._loop = asyncio.get_running_loop()
        self._gathered: list[_Waiting] = []
        self._gathered_bytes = 0
        self._groups: SimpleQueue[list[_Waiting] | None] = SimpleQueue()
        self._waiting = 0
        self._is_writing = False
        """A group is handed over, or is about to be."""
        self._wanted = 1
        """So many records need not wait for more."""
        self._gathering: asyncio.TimerHandle | None = None
        """Ends the wait for more."""
        self._closed = False
        self._finished = self._loop.create_future()
        threading.Thread(target=self._run, name="tailrace-log-appender", daemon=True).start()

    async def append(self, partition: Partition, record: NewRecord) -> None:
        if self._closed:
            raise LogUnavailableError(self._url, "the appender is closed")
        self._check_open()
        size = size_of(record)
        if size > self._limits.record_bytes_max:
            raise RecordTooLargeError(size, self._limits.record_bytes_max)
        if self._waiting >= self._limits.append_wait_max:
            raise LogBusyError(self._waiting, self._limits.append_wait_max)
        self._waiting += 1
        done: asyncio.Future[None] = self._loop.create_future()
        self._gathered.append((partition, record, done))
        self._gathered_bytes += size
        if not self._is_writing:
            if len(self._gathered) >= self._wanted:
                self._end_gathering()
                self._loop.call_soon(self._hand_over)  # after what else came in this turn of the loop
            elif self._gathering is None:
                self._gather_on(_GATHERS_MAX)
        await done

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            if not self._is_writing:
                if self._gathered:
                    self._hand_over()
                else:
                    self._groups.put(None)
        await asyncio.shield(self._finished)

    # In the loop

    def _gather_on(self, times: int) -> None:
        self._gathering = self._loop.call_later(_GATHER_S, self._look, len(self._gathered), times - 1)

    def _look(self, before: int, times: int) -> None:
        if times and len(self._gathered) > before:
            self._gather_on(times)
        else:
            self._hand_over()

    def _end_gathering(self) -> None:
        self._is_writing = True
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None

    def _hand_over(self) -> None:
        self._end_gathering()
        group, self._gathered = self._gathered, []
        size, self._gathered_bytes = self._gathered_bytes, 0
        while size > GROUP_BYTES_MAX and len(group) > 1:  # the last ones wait for the next group
            record_bytes = size_of(group[-1][1])
            self._gathered.insert(0, group.pop())
            self._gathered_bytes += record_bytes
            size -= record_bytes
        self._groups.put(group)

    def _answer(self, group: list[_Waiting], outcomes: Mapping[Partition, Outcome]) -> None:
        self._wanted = len(group) + len(self._gathered)
        if self._gathered and (self._closed or self._gathered_bytes > GROUP_BYTES_MAX):
            self._hand_over()
        else:
            self._is_writing = False
            if self._gathered:
                self._gather_on(_GATHERS_MAX)
            elif self._closed:
                self._groups.put(None)
        self._waiting -= len(group)
        for partition, _, done in group:
            if done.done():  # cancelled: nobody asks any more
                continue
            outcome = outcomes[partition]
            if isinstance(outcome, Exception):
                done.set_exception(_twin(outcome))
            else:
                done.set_result(None)

    def _tell(
        self, wrote: Wrote, written: Mapping[Partition, list[NewRecord]], outcomes: Mapping[Partition, Outcome]
    ) -> None:
        for partition, records in written.items():
            outcome = outcomes[partition]
            if not isinstance(outcome, Exception) and outcome.stop - outcome.start == len(records):
                wrote(partition, outcome)

    def _finish(self) -> None:
        if not self._finished.done():
            self._finished.set_result(None)

    # In the thread

    def _run(self) -> None:
        while (group := self._groups.get()) is not None:
            by_partition: dict[Partition, list[NewRecord]] = {}
            for partition, record, _ in group:
                by_partition.setdefault(partition, []).append(record)
            outcomes: Mapping[Partition, Outcome]
            try:
                outcomes = self._write(by_partition)
            except Exception as error:
                outcomes = dict.fromkeys(by_partition, error)
            self._call(self._answer, group, outcomes)
            if self._wrote is not None:
                self._call(self._tell, self._wrote, by_partition, outcomes)
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
