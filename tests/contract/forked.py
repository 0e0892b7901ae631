"""Programs of tests that are started again and again: forked from a process that has imported them once.

A start takes milliseconds instead of a second or two of CPU time for its imports. What is forked has a process, an
environment and standard streams of its own; it is killed as any other.

    process = fork(Path("lake_entry.py"), "fault", stderr=file, pipes=True)
    process.kill()

The program is a file with `main(arguments) -> status`. The process that forks it ends with the tests.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib.util
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

__all__ = ["Forked", "fork"]

_REQUEST_BYTES_MAX = 1 << 18


class Forked:
    """A forked process, as far as tests need `subprocess.Popen`."""

    def __init__(self, pid: int, status: int, stdin: IO[bytes] | None, stdout: IO[bytes] | None) -> None:
        self.pid = pid
        self.stdin, self.stdout = stdin, stdout
        self.returncode: int | None = None
        self._status = status

    def poll(self) -> int | None:
        """The exit status, negative for a signal, once it has ended."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Until it has ended. Raises subprocess.TimeoutExpired."""
        status = self._look(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(f"forked process {self.pid}", timeout or 0)
        return status

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            text = os.read(self._status, 32)
            os.close(self._status)
            self.returncode = int(text) if text else -signal.SIGKILL  # the server has died
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signal it, where it has not ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """`kill -9`."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """Close our ends of its streams."""
        for stream in (self.stdin, self.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def communicate(self, timeout: float) -> bytes:
        """Say no more, and read what it says until its end. Raises subprocess.TimeoutExpired."""
        assert self.stdin is not None and self.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        until_s = time.monotonic() + timeout
        said = b""
        while select.select([self.stdout], [], [], max(0.0, until_s - time.monotonic()))[0]:
            piece = os.read(self.stdout.fileno(), 1 << 16)
            if not piece:
                self.wait(max(0.0, until_s - time.monotonic()))
                return said
            said += piece
        raise subprocess.TimeoutExpired(f"forked process {self.pid}", timeout, said)


def fork(
    program: Path,
    *arguments: str,
    stderr: IO[bytes],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pipes: bool = False,
    session: bool = False,
) -> Forked:
    """Start `program`. Without `pipes` it reads and says nothing; with `session` it leads one of its own."""
    request = {
        "arguments": arguments,
        "env": dict(os.environ if env is None else env),
        "cwd": str(cwd or Path.cwd()),
        "session": session,
    }
    return _server_of(program).start(request, stderr, pipes=pipes)


@cache
def _server_of(program: Path) -> _Server:
    return _Server(program)


class _Server:
    """The process that has imported `program`, and forks itself."""

    def __init__(self, program: Path) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__)), str(program), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._socket = ours
        self._turn = threading.Lock()
        atexit.register(self._close)

    def start(self, request: Mapping[str, Any], stderr: IO[bytes], *, pipes: bool) -> Forked:
        ended = os.pipe()
        given, told = (os.pipe(), os.pipe()) if pipes else ((os.open(os.devnull, os.O_RDWR), -1),) * 2
        streams = (given[0], told[1] if pipes else given[0], stderr.fileno(), ended[1])
        with self._turn:
            socket.send_fds(self._socket, [json.dumps(request).encode()], streams)
            pid = self._socket.recv(32)
        for descriptor in {given[0], streams[1], ended[1]}:
            os.close(descriptor)
        assert pid, "the fork server has ended"
        stdin, stdout = (os.fdopen(given[1], "wb"), os.fdopen(told[0], "rb")) if pipes else (None, None)
        return Forked(int(pid), ended[0], stdin, stdout)

    def _close(self) -> None:
        self._socket.close()
        self._process.wait(30)


def _serve(program: Path, requests: socket.socket) -> None:
    """Fork for each request until nobody can ask any more, and tell how each process ends."""
    module = _loaded(program)
    gc.collect()
    gc.freeze()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    ends: dict[int, int] = {}
    while True:
        ready = select.select([requests, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 512)
            for pid, status in _ended():
                with contextlib.suppress(BrokenPipeError):
                    os.write(ends[pid], str(status).encode())
                os.close(ends.pop(pid))
        if requests in ready:
            request, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_BYTES_MAX, 4)
            if not request:
                return
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for descriptor in (requests.fileno(), woken, wake, descriptors[3], *ends.values()):
                    os.close(descriptor)
                _become(module, json.loads(request), descriptors[:3])
            for descriptor in descriptors[:3]:
                os.close(descriptor)
            ends[pid] = descriptors[3]
            requests.send(str(pid).encode())


def _loaded(program: Path) -> Any:
    sys.path.insert(0, str(program.parent))
    specification = importlib.util.spec_from_file_location(program.stem, program)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _ended() -> Iterator[tuple[int, int]]:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            yield pid, os.waitstatus_to_exitcode(status)


def _become(module: Any, request: Mapping[str, Any], streams: list[int]) -> None:
    """In the child: be the program. Does not return."""
    status = 1
    try:
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
            os.close(descriptor)
        # Those of the server have looked at what they write to: it was no pipe.
        sys.stdin = os.fdopen(0, "r", encoding="utf-8", closefd=False)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", 1, encoding="utf-8", closefd=False) for n in (1, 2))
        os.environ.clear()
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        if request["session"]:
            os.setsid()
        random.seed()
        status = module.main(request["arguments"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))
