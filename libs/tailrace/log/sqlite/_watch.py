"""A doorbell over partitions, for one event loop."""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from tailrace.errors import TailraceError
from tailrace.log.contract import Partition
from tailrace.log.errors import LogUnavailableError
from tailrace.log.sqlite._bells import Bells, decode
from tailrace.log.sqlite._database import Database

__all__ = ["SqliteWatch"]

_LOOK_S = 1.0
"""Between two looks whether something was committed without a ring: its process was killed between the two. One look is
a read of a counter in shared memory (some microseconds); a shorter pause would only be seen in a profile."""

_LOOK_WITHOUT_BELL_S = 0.02
"""The same where no socket can be bound (a file system without them), so that looking is all there is."""


class SqliteWatch:
    def __init__(self, database: Database, bells: Bells, partitions: Sequence[Partition]) -> None:
        self._database = database
        self._watched: set[Partition] = set()
        self._news: set[Partition] = set()
        self._ends: dict[Partition, int] = {}
        self._version = -1
        self._look_at_s = 0.0
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None
        self._bell: socket.socket | None = None
        self._bell_path: Path | None = None
        self._rings_max = _queue_length()
        with suppress(OSError):
            # First the bell, then the partitions as news: what is committed after this is heard.
            self._bell, self._bell_path = bells.bind()
        database.watches.add(self)
        self.add(partitions)

    def add(self, partitions: Sequence[Partition]) -> None:
        self._watched.update(partitions)
        self._news.update(partitions)
        with suppress(TailraceError, sqlite3.Error), self._database.reading() as connection:
            self._ends.update(self._ends_of(connection, partitions))
        self._wake()

    def remove(self, partitions: Sequence[Partition]) -> None:
        self._watched.difference_update(partitions)
        self._news.difference_update(partitions)
        for partition in partitions:
            self._ends.pop(partition, None)

    async def wait(self, timeout_s: float | None = None) -> frozenset[Partition]:
        loop = asyncio.get_running_loop()
        deadline_s = None if timeout_s is None else loop.time() + timeout_s
        assert self._waiter is None, "one wait at a time"
        await asyncio.sleep(0)  # also where there always is news, others get their turn
        while not self._closed:
            self._hear()
            now_s = loop.time()
            if now_s >= self._look_at_s:
                self._look_at_s = now_s + (_LOOK_S if self._bell is not None else _LOOK_WITHOUT_BELL_S)
                self._look()
            if self._news:
                news, self._news = frozenset(self._news), set()
                return news
            until_s = self._look_at_s if deadline_s is None else min(self._look_at_s, deadline_s)
            if until_s > now_s:
                await self._ring_within(loop, until_s - now_s)
            elif until_s == deadline_s:
                return frozenset()
        self._release()
        raise LogUnavailableError(self._database.url, "the watch is closed")

    def close(self) -> None:
        self._closed = True
        self._database.watches.discard(self)
        if self._waiter is None:
            self._release()
        else:
            self._wake()  # it lets go of the bell itself, in the thread of its loop

    def _release(self) -> None:
        if self._bell is not None and self._bell_path is not None:
            self._bell.close()
            with suppress(OSError):
                self._bell_path.unlink(missing_ok=True)
        if self._connection is not None:
            self._connection.close()
        self._bell = self._connection = None

    async def _ring_within(self, loop: asyncio.AbstractEventLoop, pause_s: float) -> None:
        waiter = self._waiter = loop.create_future()
        bell = self._bell
        if bell is not None:
            loop.add_reader(bell, _set, waiter)
        timer = loop.call_later(pause_s, _set, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None
            if bell is not None:
                loop.remove_reader(bell)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            with suppress(RuntimeError):
                waiter.get_loop().call_soon_threadsafe(_set, waiter)

    def _hear(self) -> None:
        if self._bell is None:
            return
        rings = 0
        while True:
            try:
                message = self._bell.recv(65_536)
            except BlockingIOError:
                return
            rings += 1
            named = decode(message)
            # As many rings as the socket holds: more may have been lost.
            if named is None or rings >= self._rings_max:
                self._news |= self._watched
            else:
                self._news |= named & self._watched

    def _look(self) -> None:
        """Find what was committed without a ring."""
        try:
            connection = self._connection = self._connection or self._database.connect()
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            if version == self._version:
                return
            ends = self._ends_of(connection, self._watched)
        except (sqlite3.Error, TailraceError):
            self._news |= self._watched  # whoever reads next is told what is wrong
            return
        self._version = version
        self._news.update(partition for partition, end in ends.items() if self._ends.get(partition) != end)
        self._ends = ends

    def _ends_of(self, connection: sqlite3.Connection, partitions: Iterable[Partition]) -> dict[Partition, int]:
        ask = "SELECT end_offset FROM partitions WHERE topic = ? AND number = ?"
        rows = ((partition, connection.execute(ask, partition).fetchone()) for partition in partitions)
        return {partition: row[0] for partition, row in rows if row is not None}


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _queue_length() -> int:
    try:
        return int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    except (OSError, ValueError):
        return 8
