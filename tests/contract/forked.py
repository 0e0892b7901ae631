"""Programs of tests that are started again and again: forked from a process that has imported them once.

A start takes milliseconds instead of a second or two of CPU time for its imports. What is forked has a process, an
environment and standard streams of its own; it is killed as any other.

    with ForkServer(Path("lake_entry.py")) as server:
        process = server.start("fault", env=os.environ, stderr=file)
        process.kill()

The program is a file with `main(arguments) -> status`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

__all__ = ["ForkServer", "Forked"]

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

    def kill(self) -> None:
        """`kill -9`, where it has not ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def communicate(self, timeout: float) -> bytes:
        """Say no more, and read what it says until its end. Raises subprocess.TimeoutExpired."""
        assert self.stdin is not None and self.stdout is not None
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


class ForkServer:
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

    def start(self, *arguments: str, env: Mapping[str, str], stderr: IO[bytes]) -> Forked:
        """Fork; `stdin` and `stdout` are pipes of ours."""
        given, told, ended = os.pipe(), os.pipe(), os.pipe()
        request = json.dumps({"arguments": arguments, "env": dict(env)}).encode()
        theirs = [given[0], told[1], stderr.fileno(), ended[1]]
        socket.send_fds(self._socket, [request], theirs)
        for descriptor in (given[0], told[1], ended[1]):
            os.close(descriptor)
        pid = self._socket.recv(32)
        assert pid, "the fork server has ended"
        return Forked(int(pid), ended[0], os.fdopen(given[1], "wb"), os.fdopen(told[0], "rb"))

    def close(self) -> None:
        """End the server; what it has forked is not ended by it."""
        self._socket.close()
        self._process.wait(30)

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _serve(program: Path, requests: socket.socket) -> None:
    """Fork for each request until nobody can ask any more, and tell how each process ends."""
    module = _loaded(program)
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
        os.environ.clear()
        os.environ.update(request["env"])
        status = module.main(request["arguments"])
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))
