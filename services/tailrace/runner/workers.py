"""Worker processes as the host sees them: a pool that forks them from a warm zygote, and what became of each.

    pool = WorkerPool(folder=data_dir / "workers")
    await pool.start()
    worker = await pool.spawn(WorkerSpec(entry="tailrace.node.worker:serve", spec={...}))
    ...  # speak over worker.sock; read worker.output
    print((await worker.wait()).reason)
    await pool.close()

One process (the zygote) forks all workers and waits for them. When it dies its workers die with it; they are
reported, and another one is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tailrace.errors import RetriableError, SettingError
from tailrace.node import _process
from tailrace.node._confine import Reach
from tailrace.node.zygote import EXIT_BROKEN, EXIT_ORDERLY
from tailrace.runner.pids import PidsGroup, PidsGroups
from tailrace.runner.sandbox import Sandbox
from tailrace.runner.worker_output import OutputLimits, OutputLine, WorkerOutput
from tailrace.runner.zygote_link import ZygoteLink, ZygoteLostError

__all__ = [
    "PRELOAD",
    "PRELOAD_LIGHT",
    "OutputLimits",
    "OutputLine",
    "Worker",
    "WorkerExit",
    "WorkerLimits",
    "WorkerPool",
    "WorkerSpec",
    "WorkerStartError",
]

PRELOAD_LIGHT = (
    *("orjson", "tailrace.node.worker"),
    *(f"tailrace.node.{each}" for each in ("store", "partitioned", "merged", "writing", "staging")),
    "patterns",
)
"""What all nodes import. The zygote has some 40 MB then; one run of a new worker takes 9 ms of CPU time."""

PRELOAD = (
    *("numpy", "pandas", "pyarrow", "duckdb", "tailrace.sql"),
    *PRELOAD_LIGHT,
    *(f"tailrace.node.{each}" for each in ("queries", "changes", "lake", "sqlnode")),
)
"""What most nodes import. Measured: 0.5-1 s in the background; the zygote and four idle workers then hold 135 MB
(PSS) together, where each worker that imports pandas itself takes 0.4 s and some 60 MB of its own."""

log = logging.getLogger(__name__)

_MAKING = threading.Lock()

_MEMORY_SIGNALS = frozenset({signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGTRAP})


class WorkerStartError(RetriableError):
    """No worker could be started."""

    def __init__(self, entry: str, cause: str) -> None:
        self.entry, self.cause = entry, cause
        super().__init__(f"no worker process for {entry}: {cause}. Try again; if it stays, look at the host's log.")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """What one worker process may use; what it forks gets the same again."""

    memory_bytes_max: int = 2 << 30
    """Heap and private maps (RLIMIT_DATA), what the zygote loaded included (about 0.1 GiB). Past it, MemoryError."""

    cpu_s_max: int = 1200
    """CPU time from the start, or from the last `renew_cpu_limit()`. Two cores for the ten minutes of a run; past
    it the kernel kills the process (SIGXCPU)."""

    open_files_max: int = 1024
    """Open descriptors. `select()` breaks over 1024."""

    file_bytes_max: int = 8 << 30
    """Size of one written file; past it the write fails. The disk should not be filled by one mistake."""

    temp_bytes_max: int = 2 << 30
    """Quota of its temporary folder, looked at each second: past it the worker is killed. A loop that writes without
    end fills a disk in minutes."""

    processes_max: int = 512
    """Processes and threads of the worker and all that it started, where a control group can be made for it. A browser
    has some hundred; a fork bomb thousands within a second."""

    def __post_init__(self) -> None:
        if self.memory_bytes_max < 256 << 20:
            raise SettingError("memory_bytes_max", self.memory_bytes_max, "a worker needs at least 256 MiB")
        if self.cpu_s_max < 1:
            raise SettingError("cpu_s_max", self.cpu_s_max, "must be at least a second")
        if self.open_files_max < 32:
            raise SettingError("open_files_max", self.open_files_max, "a worker needs at least 32")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """What a new worker runs."""

    entry: str = "tailrace.node.worker:serve"
    """`module:function`, called as `function(sock, spec)` in the worker; the worker ends when it returns."""

    spec: Mapping[str, Any] = field(default_factory=dict)
    """Handed to the entry point; JSON values, under 100 KB. Larger things go over the socket."""

    limits: WorkerLimits = field(default_factory=WorkerLimits)
    reach: Reach = field(default_factory=Reach)
    """What it may touch besides its own folder."""

    output: OutputLimits = field(default_factory=OutputLimits)
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that the app may see (`ENVIRONMENT`), on top of PATH, LANG, TZ, HOME and TMPDIR."""

    def with_reads(self, *paths: str) -> WorkerSpec:
        """The same, and it may read these, too."""
        return replace(self, reach=replace(self.reach, reads=(*self.reach.reads, *paths)))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerExit:
    """How a worker ended."""

    reason: str
    """For people: "killed by signal 11 (SIGSEGV): a crash in native code"."""

    orderly: bool
    """Whether its entry point returned; all else is a failure of whatever it was at."""

    status: int | None = None
    """Exit status, where it was not a signal."""

    signal: int | None = None
    memory_peak_bytes: int = 0
    """Most physical memory it had at once; 0 where nobody could tell."""

    cpu_s: float = 0
    orphans: int = 0
    """Processes that it left behind; they are killed."""


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.2g} GiB" if count >= 1 << 30 else f"{count >> 20} MiB"


def explain_exit(report: Mapping[str, Any], limits: WorkerLimits, killed_because: str | None) -> WorkerExit:
    """The end of a worker in words, from what the kernel told about it."""
    code, peak, cpu_s = report["status"], report["memory_peak_bytes"], report["cpu_s"]
    number = -code if code < 0 else None
    near_limit = peak >= 0.8 * limits.memory_bytes_max
    if killed_because is not None and number == signal.SIGKILL:
        reason = killed_because
    elif number == signal.SIGXCPU:
        reason = f"hit its CPU limit of {limits.cpu_s_max} s"
    elif number in _MEMORY_SIGNALS and near_limit:
        reason = f"hit its memory limit of {_gib(limits.memory_bytes_max)} (it had {_gib(peak)})"
    elif number is not None:
        reason = f"killed by signal {number} ({_signal_name(number)}): {_signal_hint(number)}"
    elif code == EXIT_ORDERLY:
        reason = "ended in good order"
    elif code == EXIT_BROKEN:
        reason = "failed outside of the node's code; the traceback is at the end of its stderr"
    else:
        reason = f"ended itself with os._exit({code})"
    return WorkerExit(
        reason=reason,
        orderly=code == EXIT_ORDERLY,
        status=None if number else (0 if code == EXIT_ORDERLY else code),
        signal=number,
        memory_peak_bytes=peak,
        cpu_s=cpu_s,
        orphans=report["orphans"],
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "a real-time signal"


def _signal_hint(number: int) -> str:
    if number == signal.SIGKILL:
        return "most likely the machine was out of memory, or it was killed from outside"
    if number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP):
        return "a crash in native code (a C extension, ctypes, or recursion without end)"
    return "sent from outside or by its own code"


class Worker:
    """One worker process. Whoever spawned it speaks over `sock`, reads `output`, and waits for its end."""

    def __init__(self, pool: WorkerPool, link: ZygoteLink, spec: WorkerSpec, pid: int, sock: socket.socket) -> None:
        self.spec, self.pid = spec, pid
        self.sock = sock
        """Our end of the stream socket pair, non-blocking. The caller's to close: it may be in a transport."""
        self.output: WorkerOutput  # set by the pool, which made the pipes
        self._pool, self._link = pool, link
        self._killed_because: str | None = None
        self._exit: asyncio.Future[WorkerExit] = asyncio.get_running_loop().create_future()
        self._folder = ""
        self._group: PidsGroup | None = None

    def __repr__(self) -> str:
        return f"<Worker {self.pid} {'ended' if self.ended else 'lives'}>"

    @property
    def ended(self) -> bool:
        return self._exit.done()

    async def wait(self) -> WorkerExit:
        """How it ended, once it has and what it left behind is gone."""
        return await asyncio.shield(self._exit)

    async def kill(self, reason: str = "killed by its host") -> WorkerExit:
        """End it now, with all that it started, and say how it ended: `reason`, unless it was over before."""
        if self._killed_because is None:
            self._killed_because = reason
            if self._group is not None:
                self._group.close()  # so that what it starts does not outrun us
        # One after the other, as each step needs less of the zygote than the one before.
        for step in (self._link.kill, self._kill_directly, lambda _: self._link.destroy()):
            if self.ended:
                break
            step(self.pid)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), self._pool.kill_patience_s)
        return await self.wait()

    def _kill_directly(self, pid: int) -> None:
        # As long as its zygote has not waited for it the number is the worker's, and nobody else's.
        if pid in _process.child_processes(self._link.pid):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    async def close(self, grace_s: float = 1.0) -> WorkerExit:
        """Shut the connection down, which tells it to end; kill it if it has not after `grace_s`."""
        with contextlib.suppress(OSError):  # closed already
            self.sock.shutdown(socket.SHUT_RDWR)
        try:
            return await asyncio.wait_for(self.wait(), grace_s)
        except TimeoutError:
            return await self.kill("killed by its host: it did not end when it was asked to")

    def _finish(self, end: WorkerExit) -> None:
        if not self._exit.done():
            self.output.close()
            self._exit.set_result(end)


class WorkerPool:
    """Workers from one zygote, which is started again when it dies."""

    kill_patience_s = 3.0
    """How long the zygote gets to report a kill before the host kills by itself. It may be importing (0.4 s a module)."""

    restart_pause_s_min, restart_pause_s_max = 0.05, 5.0
    """Pause before another zygote, doubled each time that one dies young, so that a broken one is no busy loop."""

    quota_pause_s = 1.0
    """Pause between two looks at the folders. In a second a fast disk takes a gigabyte or two over the quota."""

    young_s = 10.0
    """A zygote that lived longer did not die from its start."""

    def __init__(
        self,
        *,
        folder: Path,
        preload: Sequence[str] = PRELOAD,
        python: str = sys.executable,
        first: Sequence[str] = (),
        paths: Sequence[str] = (),
        sandbox: Sandbox | None = None,
        processes_max: int = 512,
        spawn_timeout_s: float = 60.0,
    ) -> None:
        """
        Args:
            folder: workers' own folders are made below it, and removed; pools of other processes may share it.
            python: interpreter; an app's own environment has another.
            first, paths: go before and after `sys.path` of the workers.
            sandbox: what the zygote and all workers run in.
            processes_max: of a sandbox, all in it together; without one each worker has its own bound.
            spawn_timeout_s: a first import of pandas from a cold disk was seen to take 14 s.
        """
        self._base, self._python, self._first, self._paths = folder, python, tuple(first), tuple(paths)
        self._sandbox, self._processes_max = sandbox, processes_max
        self._sandbox_group: PidsGroup | None = None
        self._preload = list(preload)
        self._spawn_timeout_s = spawn_timeout_s
        self._workers: dict[int, Worker] = {}
        self._link: ZygoteLink | None = None
        self._linked = asyncio.Event()
        self._preloaded = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self.begun = False
        """Whether it was ever started."""
        self._closing = False
        self._folder_lock = -1
        self._ending = asyncio.Lock()
        self._last_error = "the zygote has not started yet"
        self._numbers = 0
        self._groups: PidsGroups | None = None
        self._warden: asyncio.Task[None] | None = None
        self.folder = Path()
        self.zygotes_started = 0

    @property
    def workers(self) -> list[Worker]:
        """Those that live."""
        return list(self._workers.values())

    @property
    def zygote_pid(self) -> int | None:
        return self._link.pid if self._link else None

    async def start(self) -> None:
        """Start the zygote; returns at once. `spawn` waits until it answers (about 0.1 s)."""
        assert not self.begun, "started already"
        self.begun = True
        await asyncio.to_thread(self._make_folder)
        self._groups = await asyncio.to_thread(PidsGroups.find)
        if self._sandbox is not None:
            self._sandbox_group, self._groups = self._new_group(self._processes_max), None
        self._warden = asyncio.create_task(self._watch_folders(), name="quotas of workers")
        self._supervisor = asyncio.create_task(self._supervise(), name="zygote supervisor")

    async def preloaded(self) -> None:
        """Wait until the zygote has imported all it shall; workers are forked before that, too."""
        await self._preloaded.wait()

    async def spawn(self, spec: WorkerSpec, *, preloaded: bool = False) -> Worker:
        """A new worker.

        Args:
            preloaded: one that is forked after the zygote has imported all it shall: for code that would import it now,
                and then hold a copy of its own.

        Raises:
            WorkerStartError: retriable; the zygote does not come up, does not answer, or cannot fork.
        """
        try:
            async with asyncio.timeout(self._spawn_timeout_s):
                while True:
                    if preloaded and not self._closing:
                        await self.preloaded()
                    link = await self._current_link(spec.entry)
                    try:
                        return await self._spawn_from(link, spec)
                    except ZygoteLostError as error:  # it ran nothing of the node's yet: ask the next one
                        self._last_error = str(error)
        except TimeoutError:
            raise WorkerStartError(spec.entry, f"none after {self._spawn_timeout_s:g} s ({self._last_error})") from None

    async def close(self, grace_s: float = 1.0) -> None:
        """End all workers, those that do not end within `grace_s` by force, and the zygote. Takes under 2 s."""
        async with self._ending:  # whoever comes second waits until the first is done, and has nothing left to do
            if self._supervisor is not None:
                await self._end(self._supervisor, grace_s)
                self._supervisor = None

    async def _end(self, supervisor: asyncio.Task[None], grace_s: float) -> None:
        self._closing = True
        assert self._warden is not None, "it was started"
        self._warden.cancel()
        self._linked.set()  # so that those who wait for a zygote hear that there will be none
        self._preloaded.set()
        endings = [asyncio.create_task(worker.close(grace_s)) for worker in self.workers]
        if endings:
            await asyncio.wait(endings, timeout=grace_s + 0.3)
        if self._link:
            await self._link.close(patience_s=0.5)
            await asyncio.wait([supervisor], timeout=1.0)
        await asyncio.gather(*endings)
        supervisor.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await supervisor
        await asyncio.to_thread(self._remove_folder)

    # -- zygotes

    async def _current_link(self, entry: str) -> ZygoteLink:
        if self._closing or self._supervisor is None:
            raise WorkerStartError(entry, "the pool is closed")
        await self._linked.wait()
        if self._link is None:
            raise WorkerStartError(entry, "the pool is closed")
        return self._link

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = self.restart_pause_s_min
        while not self._closing:
            began_s = loop.time()
            try:
                self.folder.mkdir(exist_ok=True)
                command: Sequence[str] = [self._python]
                apart = None
                if self._sandbox is not None:
                    command = self._sandbox.command(self._python, self.folder, self._sandbox_group)
                    apart = "control" if self._sandbox.is_apart else None
                link = await ZygoteLink.start(
                    command=command,
                    first=self._first,
                    paths=self._paths,
                    socket_name=apart,
                    preload=self._preload,
                    folder=str(self.folder),
                    environment=_process.worker_environment(
                        os.environ, str(self.folder), self._sandbox.environment if self._sandbox else {}
                    ),
                    on_exited=self._on_exited,
                    on_preloaded=self._on_preloaded,
                )
            except OSError as error:
                self._last_error = f"{error.filename or self._python}: {error.strerror}"
            else:
                self.zygotes_started += 1
                self._link = link
                self._linked.set()
                await link.lost.wait()
                self._linked.clear()
                self._link = None
                self._preloaded.clear()
                await self._on_lost(link)
                if link.threaded_module is not None:
                    log.warning("%s starts a thread when imported: workers import it themselves", link.threaded_module)
                    self._preload.remove(link.threaded_module)
                    continue
            if self._closing:
                return
            log.error("%s; starting another in %.2f s", self._last_error, pause_s)
            young = loop.time() - began_s < self.young_s
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self.restart_pause_s_max) if young else self.restart_pause_s_min

    async def _on_lost(self, link: ZygoteLink) -> None:
        """The zygote is gone, and the kernel kills its workers: see to what they left behind, and report them."""
        self._last_error = f"the zygote {link.epitaph}"
        await asyncio.to_thread(self._kill_all)
        for worker in [worker for worker in self._workers.values() if worker._link is link]:
            reason = worker._killed_because or f"killed because the process it was forked from {link.epitaph}"
            self._forget(worker, WorkerExit(reason=reason, orderly=False, signal=int(signal.SIGKILL)))

    def _kill_all(self) -> None:
        for _ in range(200):
            if not _process.kill_processes_of(str(self.folder)):
                return
            time.sleep(0.005)  # a thread's; the kernel takes a moment to tear them down

    def _on_preloaded(self, failed: Mapping[str, str]) -> None:
        for module, error in failed.items():
            log.info("not preloaded: %s (%s)", module, error)
        self._preloaded.set()

    # -- workers

    async def _spawn_from(self, link: ZygoteLink, spec: WorkerSpec) -> Worker:
        self._numbers += 1
        folder = self.folder / f"w{self._numbers}"
        folder.mkdir(mode=0o700)
        group = self._new_group(spec.limits.processes_max)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        output = WorkerOutput({out_read: "stdout", err_read: "stderr"}, spec.output)
        request = {
            "entry": spec.entry,
            "spec": dict(spec.spec),
            "folder": str(folder),
            "environment": _process.worker_environment(os.environ, str(folder), spec.environment),
            "reach": spec.reach.to_json(),
            "pids_group": str(group.folder) if group is not None else None,
            "limits": {
                "memory_bytes_max": spec.limits.memory_bytes_max,
                "cpu_s_max": spec.limits.cpu_s_max,
                "open_files_max": spec.limits.open_files_max,
                "file_bytes_max": spec.limits.file_bytes_max,
            },
        }
        worker: Worker | None = None

        def forked(pid: int) -> None:
            # Called as the message comes in, so that the report of its end finds it.
            nonlocal worker
            worker = Worker(self, link, spec, pid, ours)
            worker.output, worker._folder, worker._group = output, str(folder), group
            self._workers[pid] = worker

        try:
            await link.spawn(request, (theirs.fileno(), out_write, err_write), forked)
        except OSError as error:
            raise WorkerStartError(spec.entry, str(error)) from None
        except asyncio.CancelledError:
            if worker is not None:  # forked, but nobody will ever know
                link.kill(worker.pid)
                ours.close()
            raise
        finally:
            theirs.close()
            os.close(out_write)
            os.close(err_write)
            if worker is None:
                output.close()
                ours.close()
                await asyncio.to_thread(_clean_up, str(folder), group)
        assert worker is not None, "spawn returned"
        return worker

    def _on_exited(self, report: Mapping[str, Any]) -> None:
        worker = self._workers.get(report["pid"])
        if worker is not None:
            self._forget(worker, explain_exit(report, worker.spec.limits, worker._killed_because))

    def _forget(self, worker: Worker, end: WorkerExit) -> None:
        self._workers.pop(worker.pid, None)
        worker._finish(end)
        with contextlib.suppress(RuntimeError):  # the loop is being torn down: the folder goes with the pool's
            asyncio.get_running_loop().run_in_executor(None, _clean_up, worker._folder, worker._group)

    def _new_group(self, processes_max: int) -> PidsGroup | None:
        if self._groups is None:
            return None
        try:
            return self._groups.new(processes_max)
        except OSError as error:
            log.warning("no control group for a worker (%s): its processes are not counted", error)
            return None

    async def _watch_folders(self) -> None:
        """Kill the workers whose folders grow over their quota."""
        while True:
            await asyncio.sleep(self.quota_pause_s)
            for worker in self.workers:
                quota = worker.spec.limits.temp_bytes_max
                used = await asyncio.to_thread(_folder_bytes, worker._folder)
                if used > quota and not worker.ended:
                    reason = f"filled its temporary folder: {_gib(used)}, more than its quota of {_gib(quota)}"
                    log.warning("worker %d %s", worker.pid, reason)
                    await worker.kill(reason)

    # -- the folder

    def _make_folder(self) -> None:
        """A folder of our own, held by a lock; those whose process is gone are cleaned up, with their processes."""
        self._base.mkdir(parents=True, exist_ok=True)
        with _MAKING:  # another pool of ours would take a folder that has no lock yet for a dead one's
            for other in self._base.glob("pool-*"):
                lock = _lock(other)
                if lock is not None:
                    _process.kill_processes_of(str(other.absolute()))
                    _remove_tree(str(other))
                    os.close(lock)
            self.folder = Path(tempfile.mkdtemp(prefix="pool-", dir=self._base.absolute()))
            lock = _lock(self.folder)
            assert lock is not None, "nobody else knows it yet"
            self._folder_lock = lock

    def _remove_folder(self) -> None:
        self._kill_all()
        if self._sandbox is not None:
            self._sandbox.close()
        if self._sandbox_group is not None:
            self._sandbox_group.remove()
        _remove_tree(str(self.folder))
        os.close(self._folder_lock)


def _lock(folder: Path) -> int | None:
    """The descriptor that holds `folder`, or None where another process does."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return None
    return fd


def _clean_up(folder: str, group: PidsGroup | None) -> None:
    if group is not None:
        group.remove()
    _remove_tree(folder)


def _folder_bytes(folder: str) -> int:
    """What a folder takes on its disk; of an empty file, too, so that no number of them is for nothing."""
    used, waiting = 0, [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    used += max(4096, entry.stat(follow_symlinks=False).st_blocks * 512)
        except OSError:  # gone meanwhile, or made unreadable: then what is in it is not counted
            continue
    return used


def _remove_tree(folder: str) -> None:
    def make_writable(function: Any, path: str, _: Any) -> None:
        with contextlib.suppress(OSError):
            Path(path).parent.chmod(0o700)
            Path(path).chmod(0o700)
            function(path)

    shutil.rmtree(folder, onerror=make_writable) if Path(folder).exists() else None
