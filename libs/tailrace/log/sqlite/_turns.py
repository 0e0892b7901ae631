"""Turns at writing: one thread of one process at a time, the others queue fairly."""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path

from tailrace.log.errors import LogUnavailableError

__all__ = ["Turns"]


class Turns:
    """The right to write to one log file.

    SQLite's own busy handler polls, and starves some of several writing processes for over a second. `flock` on a
    file beside the database queues them in the kernel, and a process that dies gives its turn back by dying.
    """

    def __init__(self, path: Path, url: str, wait_s: float) -> None:
        self._path, self._url, self._wait_s = path, url, wait_s
        self._threads = threading.Lock()
        self._fd = self._open()
        self._waiter: _Waiter | None = None
        self._closed = False

    def take(self) -> None:
        """Wait for the turn; `LogUnavailableError` after `wait_s`."""
        if not self._threads.acquire(timeout=self._wait_s):
            raise LogUnavailableError(self._url, f"another thread has been writing for {self._wait_s:g} s")
        try:
            if self._closed:
                raise LogUnavailableError(self._url, "it is closed")
            if self._fd < 0:
                self._fd = self._open()
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._wait_for_processes()
        except BaseException:
            self._threads.release()
            raise

    def give_back(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._threads.release()

    def close(self) -> None:
        """Refuse turns from now on; waits for the one that is taken."""
        with self._threads:
            self._closed = True
            if self._fd >= 0:
                if self._waiter is not None:
                    self._waiter.stop()
                    self._waiter = None
                os.close(self._fd)
                self._fd = -1

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _wait_for_processes(self) -> None:
        if self._waiter is None:
            self._waiter = _Waiter(self._fd)
        if not self._waiter.wait(self._wait_s):
            # Its turn may still come, on the old descriptor, and is given back there.
            self._waiter, self._fd = None, -1
            raise LogUnavailableError(
                self._url, f"another process has been writing for {self._wait_s:g} s (it holds {self._path})"
            )


class _Waiter:
    """A thread that waits for the lock in its owner's stead, because `flock` knows no time-out.

    It owns the descriptor from the moment that it is given up.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._state = threading.Lock()
        self._given_up = False
        self._asked, self._locked = threading.Lock(), threading.Lock()
        self._asked.acquire()
        self._locked.acquire()
        threading.Thread(target=self._run, name="tailrace-log-turn", daemon=True).start()

    def wait(self, wait_s: float) -> bool:
        self._asked.release()
        if self._locked.acquire(timeout=wait_s):
            return True
        with self._state:
            self._given_up = not self._locked.acquire(blocking=False)
            return not self._given_up

    def stop(self) -> None:
        """Only while nobody waits."""
        self._given_up = True
        self._asked.release()

    def _run(self) -> None:
        while True:
            self._asked.acquire()
            if self._given_up:
                return
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            with self._state:
                if self._given_up:
                    os.close(self._fd)
                    return
                self._locked.release()
