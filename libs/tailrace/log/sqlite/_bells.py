"""How commits wake watchers, within a process and across processes, without anybody polling.

Each watcher binds a UNIX datagram socket in the folder `<database>-bells`; whoever commits sends the names of the
partitions that got records to every socket there and never waits. A bell is a hint: it may ring for nothing, and
`SqliteWatch` looks by itself where one may have been lost.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from tailrace.log.contract import Partition

__all__ = ["EVERYTHING", "Bells", "decode"]

EVERYTHING = b"*"
"""The message that stands for more partitions than fit into one."""

_MESSAGE_BYTES_MAX = 4_096
"""A longer list becomes `EVERYTHING`: small messages leave room in the socket's buffer for many commits."""

_TICK_NS = 2_000_000_000
"""Longer than the resolution of any file system's times."""

_ADDRESS_BYTES_MAX = 100
"""Linux takes 107 bytes for the path of a UNIX socket, macOS 103."""


class Bells:
    """The sockets beside one log file, as one handle sees them."""

    def __init__(self, database: Path) -> None:
        self._folder = database.with_name(database.name + "-bells")
        self._folder_text = str(self._folder)
        self._listed: tuple[int, list[str]] = (-1, [])
        """When the folder had changed last as it was listed (-1: list it again), and what was in it."""
        self._lock = threading.Lock()
        self._sender: socket.socket | None = None
        self._folder_fd = -1
        self._closed = False

    def ring(self, partitions: Iterable[Partition]) -> None:
        """Tell every watcher that these got records. Never fails and never waits."""
        if self._closed:
            return
        names = self._names()
        if not names:
            return
        message = _message(tuple(partitions))
        with self._lock, suppress(OSError):
            if self._sender is None:
                self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._sender.setblocking(False)
            for name in names:
                self._send(message, name)

    def bind(self) -> tuple[socket.socket, Path]:
        """A new bell: its socket, and the path to unlink when it is closed. Raises OSError where none can be."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        name = secrets.token_hex(6)
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            bell.setblocking(False)
            with self._lock:
                bell.bind(self._address(name))
        except BaseException:
            bell.close()
            raise
        return bell, self._folder / name

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._sender is not None:
                self._sender.close()
                self._sender = None
            if self._folder_fd >= 0:
                os.close(self._folder_fd)
                self._folder_fd = -1

    def _names(self) -> list[str]:
        """The bells that hang there. Each commit asks, so the folder is only listed where it may have changed."""
        try:
            changed_ns = os.stat(self._folder_text).st_mtime_ns  # noqa: PTH116 (as above: each commit asks)
            if changed_ns != self._listed[0]:
                names = os.listdir(self._folder_text)  # noqa: PTH208 (names are all we need)
                # Two changes within a tick of the file system's clock look like one.
                is_settled = time.time_ns() - changed_ns > _TICK_NS
                self._listed = (changed_ns if is_settled else -1, names)
        except OSError:
            return []
        return self._listed[1]

    def _send(self, message: bytes, name: str) -> None:
        assert self._sender is not None
        try:
            self._sender.sendto(message, self._address(name))
        except BlockingIOError:
            pass  # full: its owner has rings to hear, and takes so many of them for news of everything
        except OSError as error:
            if error.errno == errno.ECONNREFUSED:  # its owner died
                (self._folder / name).unlink(missing_ok=True)

    def _address(self, name: str) -> str:
        path = f"{self._folder_text}/{name}"
        if len(os.fsencode(path)) <= _ADDRESS_BYTES_MAX:
            return path
        # Linux: a short way to a file in a folder with a long path.
        if self._folder_fd < 0:
            self._folder_fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._folder_fd}/{name}"


@lru_cache(maxsize=256)
def _message(partitions: tuple[Partition, ...]) -> bytes:
    message = json.dumps(partitions).encode()
    return message if len(message) <= _MESSAGE_BYTES_MAX else EVERYTHING


def decode(message: bytes) -> frozenset[Partition] | None:
    """The partitions named in a ring; None stands for all."""
    if message == EVERYTHING:
        return None
    try:
        return frozenset(Partition(str(topic), int(number)) for topic, number in json.loads(message))
    except (ValueError, TypeError):
        return None
