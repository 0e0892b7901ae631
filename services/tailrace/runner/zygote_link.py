"""The host's end of the control channel to one zygote process (`tailrace.node.zygote` has the messages)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tailrace.node.zygote import MESSAGE_BYTES_MAX

__all__ = ["ZygoteLink", "ZygoteLostError"]

_BOOT = """\
import sys
control, folder, first, paths, preload = sys.argv[1:]
sys.path[:0] = [p for p in first.split(":") if p]
sys.path += [p for p in paths.split(":") if p]
if control.isdecimal():
    fd = int(control)
else:
    import socket
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link.connect(control)
    fd = link.detach()
from tailrace.node.zygote import main
main(fd, folder, [m for m in preload.split(",") if m])
"""
"""Not `-m`: the module would be there twice. `control` is a descriptor, or where none can be passed on, a socket's name."""

APART_START_S_MAX = 30.0
"""Longest from the start of a container to its connecting. A cold image takes some seconds."""

STDERR_BYTES_MAX = 8 * 1024
"""Kept of what the zygote itself says; it speaks when it breaks, and then at the end."""


class ZygoteLostError(Exception):
    """The zygote ended before it answered."""


class ZygoteLink:
    """One zygote process, from its start to its end."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        control: socket.socket,
        on_exited: Callable[[Mapping[str, Any]], None],
        on_preloaded: Callable[[Mapping[str, str]], None],
    ) -> None:
        self.pid = process.pid
        self.lost = asyncio.Event()
        """Set when it has ended; `epitaph` says how."""
        self.epitaph = "lives"
        self.threaded_module: str | None = None
        """The module whose import started a thread, for which it ended."""
        self._process, self._control = process, control
        self._on_exited, self._on_preloaded = on_exited, on_preloaded
        self._spawning: dict[int, tuple[asyncio.Future[None], Callable[[int], None]]] = {}
        self._outbox: deque[tuple[bytes, list[int]]] = deque()
        self._numbers = 0
        self._stderr = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(control.fileno(), self._receive)
        self._mourner = asyncio.create_task(self._mourn(), name=f"zygote {process.pid}")

    @classmethod
    async def start(
        cls,
        *,
        command: Sequence[str],
        first: Sequence[str],
        paths: Sequence[str],
        socket_name: str | None,
        preload: Sequence[str],
        folder: str,
        environment: Mapping[str, str],
        on_exited: Callable[[Mapping[str, Any]], None],
        on_preloaded: Callable[[Mapping[str, str]], None],
    ) -> ZygoteLink:
        """Start the process; it answers requests as soon as its interpreter is up.

        Args:
            command: the interpreter, with what starts it before it.
            first, paths: for the beginning and the end of its `sys.path`.
            socket_name: what it connects to in `folder`, its working directory, if it cannot be given a descriptor.
        """
        if socket_name is not None:
            return await cls._start_apart(
                command, first, paths, socket_name, preload, folder, environment, on_exited, on_preloaded
            )
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            process = await asyncio.create_subprocess_exec(
                *(*command, "-I", "-c", _BOOT),
                *(str(theirs.fileno()), folder, ":".join(first), ":".join(paths), ",".join(preload)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=dict(environment),
                cwd=folder,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, ours, on_exited, on_preloaded)

    @classmethod
    async def _start_apart(
        cls,
        command: Sequence[str],
        first: Sequence[str],
        paths: Sequence[str],
        socket_name: str,
        preload: Sequence[str],
        folder: str,
        environment: Mapping[str, str],
        on_exited: Callable[[Mapping[str, Any]], None],
        on_preloaded: Callable[[Mapping[str, str]], None],
    ) -> ZygoteLink:
        """The same for a process that gets no descriptor of ours: it connects to a socket of ours."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door, contextlib.ExitStack() as undo:
            # A socket's path has at most 107 bytes: ours goes by the folder's descriptor, the other end is in the folder.
            place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            undo.callback(os.close, place)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(socket_name, dir_fd=place)
            door.bind(f"/proc/self/fd/{place}/{socket_name}")
            door.listen(1)
            door.setblocking(False)
            process = await asyncio.create_subprocess_exec(
                *(*command, "-I", "-c", _BOOT),
                *(socket_name, folder, ":".join(first), ":".join(paths), ",".join(preload)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=dict(environment),
                cwd=folder,
                start_new_session=True,
            )
            accepting = asyncio.ensure_future(asyncio.get_running_loop().sock_accept(door))
            ending = asyncio.ensure_future(process.wait())
            await asyncio.wait({accepting, ending}, timeout=APART_START_S_MAX, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            if accepting.done():
                ours = accepting.result()[0]
                ours.setblocking(False)
                return cls(process, ours, on_exited, on_preloaded)
            accepting.cancel()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            assert process.stderr is not None, "it was started with a pipe"
            said = (await process.stderr.read())[-STDERR_BYTES_MAX:].decode("utf-8", "replace").strip()
            await process.wait()
            raise OSError(None, said or "it did not connect")

    async def spawn(self, request: Mapping[str, Any], fds: Sequence[int], forked: Callable[[int], None]) -> None:
        """Have a worker forked; `forked(pid)` is called before anything else is told of that worker.

        The descriptors are the caller's to close afterwards.

        Raises:
            ZygoteLostError: it ended first.
            OSError: it could not fork, or the request is over MESSAGE_BYTES_MAX.
        """
        if self.lost.is_set():
            raise ZygoteLostError(self.epitaph)
        self._numbers += 1
        number = self._numbers
        answer: asyncio.Future[None] = self._loop.create_future()
        data = json.dumps({"op": "spawn", "id": number, **request}).encode()
        if len(data) > MESSAGE_BYTES_MAX:
            raise OSError(f"the spec has {len(data)} bytes, more than {MESSAGE_BYTES_MAX}: send it over the socket")
        copies = [os.dup(fd) for fd in fds]  # ours to close once they are sent, even if the caller gave up
        self._spawning[number] = (answer, forked)
        self._send(data, copies)
        try:
            await answer
        except asyncio.CancelledError:
            if number in self._spawning:  # whatever is forked for it is killed as soon as its pid is known
                self._spawning[number] = (self._loop.create_future(), self.kill)
            raise

    def kill(self, pid: int) -> None:
        """Kill a worker, with all it started; its end is reported as any other."""
        if not self.lost.is_set():
            self._send(json.dumps({"op": "kill", "pid": pid}).encode(), [])

    def destroy(self) -> None:
        """Kill the zygote, and so all its workers."""
        if not self.lost.is_set():
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def close(self, patience_s: float) -> None:
        """Have it kill what still lives and end; by force after `patience_s`."""
        if not self.lost.is_set():
            self._send(json.dumps({"op": "close"}).encode(), [])
        try:
            await asyncio.wait_for(self.lost.wait(), patience_s)
        except TimeoutError:
            self.destroy()
        await self._mourner

    def _send(self, data: bytes, fds: list[int]) -> None:
        self._outbox.append((data, fds))
        self._flush()

    def _flush(self) -> None:
        try:
            while self._outbox:
                data, fds = self._outbox[0]
                socket.send_fds(self._control, [data], fds)
                self._outbox.popleft()
                for fd in fds:
                    os.close(fd)
        except BlockingIOError:
            self._loop.add_writer(self._control.fileno(), self._flush)
            return
        except OSError:  # it is gone: `_mourn` hears of it
            pass
        self._loop.remove_writer(self._control.fileno())

    def _receive(self) -> bool:
        """Act on one message; whether there was one."""
        try:
            data = self._control.recv(MESSAGE_BYTES_MAX)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._control.fileno())
            return False
        message = json.loads(data)
        match message["op"]:
            case "spawned":
                answer, forked = self._spawning.pop(message["id"])
                forked(message["pid"])
                if not answer.done():
                    answer.set_result(None)
            case "failed":
                answer, _ = self._spawning.pop(message["id"])
                if not answer.done():
                    answer.set_exception(OSError(message["error"]))
            case "exited":
                self._on_exited(message)
            case "threaded":
                self.threaded_module = message["module"]
            case "preloaded":
                self._on_preloaded(message["failed"])
        return True

    async def _mourn(self) -> None:
        """Wait for the process's end, however it comes, and tell those who wait for an answer."""
        assert self._process.stderr is not None, "it was started with a pipe"
        # Its forks close their copies of the pipe at once, so end of file means that it is gone itself.
        while data := await self._process.stderr.read(4096):
            self._stderr = (self._stderr + data)[-STDERR_BYTES_MAX:]
        code = await self._process.wait()
        self._loop.remove_writer(self._control.fileno())
        while self._receive():  # what it said last is still in the socket
            pass
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        self.epitaph = self._describe(code)
        for _, fds in self._outbox:
            for fd in fds:
                os.close(fd)
        self._outbox.clear()
        self.lost.set()
        for answer, _ in self._spawning.values():
            if not answer.done():
                answer.set_exception(ZygoteLostError(self.epitaph))
        self._spawning.clear()

    def _describe(self, code: int) -> str:
        ended = f"was killed by signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"ended with {code}"
        said = self._stderr.decode("utf-8", "replace").strip()
        return f"{ended}: {said}" if said else ended
