"""The warm process that every worker is forked from.

It imports what nodes need once, and forks on request: milliseconds where a fresh interpreter takes a second. It has
one thread and never runs node code. The host speaks to it over a SEQPACKET socket, one JSON object a message:

    host to zygote   spawn {id, entry, spec, folder, environment, limits, reach, pids_group} with three descriptors;
                     kill {pid}; close
    zygote to host   ready {pid}; preloaded {modules, failed}; threaded {module}; spawned {id, pid}; failed {id, error};
                     exited {pid, status, memory_peak_bytes, cpu_s, orphans}

When the host goes away (end of file) it kills all its workers and ends. When it is killed itself, the kernel kills
the workers. Every worker adopts its own orphans, and the zygote those of workers that ended: so a child of ours that
is no worker is what a dead worker left behind, and is killed before that worker's end is reported.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Sequence
from typing import Any, NoReturn

from tailrace.node import _process
from tailrace.node._confine import Reach

__all__ = ["EXIT_BROKEN", "EXIT_ORDERLY", "MESSAGE_BYTES_MAX", "main"]

EXIT_ORDERLY = 86
"""Status of a worker whose entry point returned. Not 0, so that a node's `os._exit(0)` is not taken for it."""

EXIT_BROKEN = 70
"""Status of a worker whose entry point raised; the traceback is on its stderr. (EX_SOFTWARE of sysexits.h.)"""

MESSAGE_BYTES_MAX = 128 * 1024
"""Most bytes of one control message. The kernel refuses messages over the socket's buffer (about 200 KB)."""

ORPHANS_S_MAX = 2.0
"""Longest that a worker's end is held back while what it left behind is being killed (a process in an
uninterruptible wait may take for ever)."""


TRACEBACK_FRAMES_MAX = 100
"""Innermost frames that a worker prints when it breaks; recursion without end leaves millions."""


class _Zygote:
    def __init__(self, control: socket.socket, preload: Sequence[str], folder: str) -> None:
        self._control, self._folder = control, folder
        self._preload = deque(preload)
        self._preloaded: list[str] = []
        self._preload_failed: dict[str, str] = {}
        self._workers: set[int] = set()
        self._ended: list[tuple[float, dict[str, Any]]] = []  # reports that wait for orphans to go, with a deadline
        self._orphans_killed: set[int] = set()
        self._outbox: deque[bytes] = deque()
        self._selector = selectors.DefaultSelector()
        self._wakeup_in, self._wakeup_out = os.pipe()

    def run(self) -> NoReturn:
        for fd in (self._wakeup_in, self._wakeup_out):
            os.set_blocking(fd, False)
        self._control.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_out, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the host, which then closes us
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        _process.adopt_orphans()
        _process.close_to_others()
        _process.prepare_workers()
        gc.disable()  # a collection would touch, and so copy, the pages that workers share with us
        self._selector.register(self._wakeup_in, selectors.EVENT_READ)
        self._selector.register(self._control, selectors.EVENT_READ)
        self._send(op="ready", pid=os.getpid())
        while True:
            self._selector.select(self._timeout_s())
            self._drain_wakeup()
            self._receive()
            self._reap()
            self._report_ended()
            self._flush()
            self._import_next()

    def _timeout_s(self) -> float | None:
        if self._preload:
            return 0
        return 0.005 if self._ended else None

    # -- the host

    def _send(self, **message: Any) -> None:
        self._outbox.append(json.dumps(message).encode())
        self._flush()

    def _flush(self) -> None:
        """Send what waits, without ever waiting for the host."""
        try:
            while self._outbox:
                self._control.send(self._outbox[0])
                self._outbox.popleft()
        except BlockingIOError:
            pass
        except OSError:
            self._end(host_gone=True)
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._outbox else 0)
        self._selector.modify(self._control, wanted)

    def _receive(self) -> None:
        while True:
            try:
                data, fds, flags, _ = socket.recv_fds(self._control, MESSAGE_BYTES_MAX, 3, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                self._end(host_gone=True)
            if not data:
                self._end(host_gone=True)
            assert not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC), "the host keeps to MESSAGE_BYTES_MAX"
            request = json.loads(data)
            if request["op"] == "spawn":
                self._fork(request, fds)
            elif request["op"] == "kill":
                self._kill(request["pid"])
            else:
                self._end()

    def _drain_wakeup(self) -> None:
        try:
            while os.read(self._wakeup_in, 4096):
                pass
        except BlockingIOError:
            pass

    # -- the workers

    def _fork(self, request: dict[str, Any], fds: Sequence[int]) -> None:
        assert len(fds) == 3, "a socket, stdout and stderr come with a request"
        parent = os.getpid()
        gc.freeze()
        try:
            pid = os.fork()
        except OSError as error:
            self._send(op="failed", id=request["id"], error=f"fork: {error.strerror}")
            pid = -1
        if pid == 0:
            _work(self, parent, request, fds)
        for fd in fds:
            os.close(fd)
        if pid > 0:
            self._workers.add(pid)
            self._send(op="spawned", id=request["id"], pid=pid)

    def leave(self) -> None:
        """In a forked child: let go of what is the zygote's, so that no finaliser touches the worker's descriptors."""
        self._control.detach()
        self._selector.close()

    def _kill(self, pid: int) -> None:
        if pid not in self._workers:  # reported as ended already; the number may be somebody else's by now
            return
        for kill in (os.killpg, os.kill):
            try:
                kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid not in self._workers:
                continue
            self._workers.discard(pid)
            report = {
                "op": "exited",
                "pid": pid,
                "status": os.waitstatus_to_exitcode(status),
                "memory_peak_bytes": usage.ru_maxrss * 1024,
                "cpu_s": usage.ru_utime + usage.ru_stime,
                "orphans": 0,
            }
            self._ended.append((time.monotonic() + ORPHANS_S_MAX, report))

    def _report_ended(self) -> None:
        if not self._ended:
            return
        orphans = self._kill_orphans()
        if orphans:  # whose they were nobody can tell any more: they count for the last one that ended
            self._orphans_killed |= orphans
            self._ended[-1][1]["orphans"] = len(self._orphans_killed)
        else:
            self._orphans_killed = set()
        now = time.monotonic()
        waiting = []
        for deadline, report in self._ended:
            if orphans and now < deadline:
                waiting.append((deadline, report))
            else:
                self._send(**report)
        self._ended = waiting

    def _kill_orphans(self) -> set[int]:
        orphans = {pid for pid in _process.child_processes() if pid not in self._workers}
        for pid in orphans:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        return orphans

    # -- preloading

    def _import_next(self) -> None:
        """Import one module of those that wait; between two of them the host is served."""
        if not self._preload:
            return
        name = self._preload.popleft()
        try:
            importlib.import_module(name)
            self._preloaded.append(name)
        except Exception as error:  # an app's own environment may lack it: its nodes then import what they find
            self._preload_failed[name] = f"{type(error).__name__}: {error}"
        if len(_process.native_threads()) > 1:
            self._send(op="threaded", module=name)
            self._end()  # a fork would leave that thread's locks held for ever: the host starts us without `name`
        if not self._preload:
            gc.collect()
            gc.freeze()
            self._send(op="preloaded", modules=self._preloaded, failed=self._preload_failed)

    # -- the end

    def _end(self, *, host_gone: bool = False) -> NoReturn:
        """Kill all workers and what they left behind, and end; with the host gone, take their folders away, too."""
        deadline = time.monotonic() + ORPHANS_S_MAX
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for pid in self._workers:
            self._kill(pid)
        self._workers.clear()
        while self._kill_orphans() and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.002)
        if host_gone:
            shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(0)  # not through atexit: libraries complain there about what they hold


def _work(zygote: _Zygote, parent: int, request: dict[str, Any], fds: Sequence[int]) -> NoReturn:
    """The forked child's whole life."""
    status = EXIT_BROKEN
    try:
        zygote.leave()
        sock = _process.become_worker(
            parent=parent,
            fds=fds,
            folder=request["folder"],
            environment=request["environment"],
            limits=request["limits"],
            reach=Reach.from_json(request["reach"]),
            pids_group=request["pids_group"],
        )
        module, _, function = request["entry"].partition(":")
        getattr(importlib.import_module(module), function)(sock, request["spec"])
        status = EXIT_ORDERLY
    except BaseException:
        traceback.print_exc(limit=-TRACEBACK_FRAMES_MAX)
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                pass
        os._exit(status)


def main(control_fd: int, folder: str, preload: Sequence[str]) -> NoReturn:
    """Serve the host on `control_fd`; `folder` holds the workers' folders and goes when we do."""
    _Zygote(socket.socket(fileno=control_fd), preload, folder).run()
