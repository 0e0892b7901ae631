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

    def take(self) -> None:
        """Wait for the turn; `LogUnavailableError` after `wait_s`."""
        if not self._threads.acquire(timeout=self._wait_s):
            raise LogUnavailableError(self._url, f"another thread has been writing for {self._wait_s:g} s")
        try:
            if self._fd < 0:
                raise LogUnavailableError(self._url, "it is closed")
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
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def _wait_for_processes(self) -> None:
        # flock knows no time-out, so a thread waits in our stead, on a descriptor of its own: one that comes too
        # late then gives back its own turn and not that of whoever came after us.
        waiter = _Waiter(self._open())
        fd = waiter.wait(self._wait_s)
        if fd is None:
            raise LogUnavailableError(
                self._url, f"another process has been writing for {self._wait_s:g} s (it holds {self._path})"
            )
        os.close(self._fd)
        self._fd = fd


class _Waiter:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._locked = threading.Event()
        self._given_up = False
        threading.Thread(target=self._run, name="tailrace-log-turn", daemon=True).start()

    def wait(self, wait_s: float) -> int | None:
        self._locked.wait(wait_s)
        with self._lock:
            if self._locked.is_set():
                return self._fd
            self._given_up = True
            return None

    def _run(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        with self._lock:
            if self._given_up:
                os.close(self._fd)
            else:
                self._locked.set()
