"""Group commit for one event loop: all that waits is handed to Kafka together, and woken together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import NamedTuple

from tailrace.errors import TailraceError
from tailrace.log.contract import NewRecord, Partition
from tailrace.log.errors import LogBusyError, LogUnavailableError
from tailrace.log.kafka._appends import Appends, check_sizes
from tailrace.log.kafka._clients import Clients

__all__ = ["KafkaAppender"]


class _Waiting(NamedTuple):
    partition: Partition
    record: NewRecord
    done: asyncio.Future[None]


class KafkaAppender:
    def __init__(self, clients: Clients, appends: Appends) -> None:
        self._clients, self._appends = clients, appends
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._waiting = 0
        self._closed = False
        self._finished = self._loop.create_future()
        threading.Thread(target=self._run, name="tailrace-log-appender", daemon=True).start()

    async def append(self, partition: Partition, record: NewRecord) -> None:
        if self._closed:
            raise LogUnavailableError(self._clients.url.shown, "the appender is closed")
        self._clients.check_open()
        limits = self._clients.limits
        check_sizes((record,), limits.record_bytes_max)
        if self._waiting >= limits.append_wait_max:
            raise LogBusyError(self._waiting, limits.append_wait_max)
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
                by_partition: dict[Partition, list[NewRecord]] = {}
                for partition, record, _ in batch:
                    by_partition.setdefault(partition, []).append(record)
                try:
                    outcomes: dict[Partition, Exception | None] = {
                        partition: outcome if isinstance(outcome, Exception) else None
                        for partition, outcome in self._appends.append_all(by_partition).items()
                    }
                except Exception as error:
                    outcomes = dict.fromkeys(by_partition, error)
                self._call(self._answer, batch, outcomes)
        self._call(self._finish)

    def _take(self) -> tuple[list[_Waiting], bool]:
        batch: list[_Waiting] = []
        item = self._queue.get()
        while item is not None:
            batch.append(item)
            try:
                item = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _answer(self, batch: list[_Waiting], outcomes: dict[Partition, Exception | None]) -> None:
        self._waiting -= len(batch)
        for partition, _, done in batch:
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
