"""What a worker prints, in bounded memory: the beginning and the end of each run's output, and how much lay between."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["OutputLimits", "OutputLine", "WorkerOutput"]

StreamName = Literal["stdout", "stderr", "notice"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLimits:
    """Bounds of what is kept of one run's output, both streams together."""

    head_bytes_max: int = 128 * 1024
    """Kept from the beginning, and handed out at once. Less cuts ordinary logs; all of it may be in memory."""

    tail_bytes_max: int = 128 * 1024
    """Kept from the end, where tracebacks are. Handed out when the run ends, if the head was full."""

    line_bytes_max: int = 16 * 1024
    """A longer line is cut into several, so that one without an end does not fill the memory."""

    waiting_bytes_max: int = 1024 * 1024
    """Kept for a reader that does not keep up; what comes on top is left out, and said to be."""


@dataclass(frozen=True, slots=True)
class OutputLine:
    """One line, without its line break."""

    run: str | None
    """Label of the run that printed it; None before the first and between two."""

    stream: StreamName
    """`notice` is ours: how much was left out at this place."""

    text: str


class WorkerOutput:
    """The lines of one worker, for one reader: `async for line in output` ends when the worker has.

    Pipes are read whenever they hold something, so a worker that prints much is never blocked by us.
    """

    def __init__(self, fds: dict[int, StreamName], limits: OutputLimits) -> None:
        self._fds, self._limits = dict(fds), limits
        self._partial: dict[int, bytearray] = {fd: bytearray() for fd in fds}
        self._waiting: deque[OutputLine] = deque()
        self._waiting_bytes = 0
        self._news = asyncio.Event()
        self._closed = False
        self._run: str | None = None
        self._begin(None)
        loop = asyncio.get_running_loop()
        for fd in fds:
            os.set_blocking(fd, False)
            loop.add_reader(fd, self._read_once, fd)  # once an event: printing without end must not hold the loop

    def begin_run(self, label: str) -> None:
        """What is printed from here on belongs to run `label`."""
        self._end()
        self._begin(label)

    def end_run(self) -> None:
        """All that the run printed is handed out now; call it when the worker says that the run has ended."""
        self._end()
        self._begin(None)

    def close(self) -> None:
        """Take what the pipes still hold, hand it out and close them."""
        if self._closed:
            return
        self._end()
        self._closed = True
        for fd in list(self._fds):
            self._drop(fd)
        self._news.set()

    async def __aiter__(self) -> AsyncIterator[OutputLine]:
        while True:
            while self._waiting:
                line = self._waiting.popleft()
                self._waiting_bytes -= len(line.text)
                yield line
            if self._closed:
                return
            self._news.clear()
            await self._news.wait()

    def _begin(self, label: str | None) -> None:
        self._run = label
        self._head_bytes = self._tail_bytes = 0
        self._tail: deque[OutputLine] = deque()
        self._left_out_bytes = self._left_out_lines = 0

    def _end(self) -> None:
        for fd in list(self._fds):
            self._read_all(fd)
        for fd, partial in self._partial.items():
            if partial:
                self._take(fd, bytes(partial))
                partial.clear()
        if self._left_out_lines:
            text = f"... {self._left_out_bytes:,} bytes ({self._left_out_lines:,} lines) of output left out here ..."
            self._hand_out(OutputLine(self._run, "notice", text))
        for line in self._tail:
            self._hand_out(line)

    def _read_all(self, fd: int) -> None:
        """What lies in the pipe now; no more than some of its capacities, as it may be filled while we read."""
        for _ in range(32):
            if not self._read_once(fd):
                return

    def _read_once(self, fd: int) -> bool:
        try:
            data = os.read(fd, 64 * 1024)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._drop(fd)
            return False
        self._feed(fd, data)
        return True

    def _feed(self, fd: int, data: bytes) -> None:
        partial = self._partial[fd]
        partial += data
        *lines, rest = bytes(partial).split(b"\n")
        for line in lines:
            self._take(fd, line)
        limit = self._limits.line_bytes_max
        while len(rest) > limit:
            self._take(fd, rest[:limit])
            rest = rest[limit:]
        self._partial[fd] = bytearray(rest)

    def _take(self, fd: int, raw: bytes) -> None:
        limit = self._limits.line_bytes_max
        for start in range(0, max(len(raw), 1), limit):
            text = raw[start : start + limit].removesuffix(b"\r").decode("utf-8", "replace")
            self._keep(OutputLine(self._run, self._fds[fd], text))

    def _keep(self, line: OutputLine) -> None:
        size = len(line.text) + 1
        if not self._tail and self._head_bytes + size <= self._limits.head_bytes_max:
            self._head_bytes += size
            self._hand_out(line)
            return
        self._tail.append(line)
        self._tail_bytes += size
        while self._tail_bytes > self._limits.tail_bytes_max:
            self._leave_out(self._tail.popleft())

    def _leave_out(self, line: OutputLine) -> None:
        size = len(line.text) + 1
        self._tail_bytes -= size
        self._left_out_bytes += size
        self._left_out_lines += 1

    def _hand_out(self, line: OutputLine) -> None:
        self._waiting.append(line)
        self._waiting_bytes += len(line.text)
        if self._waiting_bytes > self._limits.waiting_bytes_max:
            # Nobody reads: the oldest go, and the place says so.
            dropped = 0
            while self._waiting_bytes > self._limits.waiting_bytes_max // 2:
                old = self._waiting.popleft()
                self._waiting_bytes -= len(old.text)
                dropped += 1
            text = f"... {dropped:,} lines of output left out here: nobody read them in time ..."
            self._waiting.appendleft(OutputLine(self._run, "notice", text))
            self._waiting_bytes += len(text)
        self._news.set()

    def _drop(self, fd: int) -> None:
        if self._fds.get(fd) is None:
            return
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
        partial = self._partial.pop(fd)
        if partial:
            self._take(fd, bytes(partial))
        del self._fds[fd]
