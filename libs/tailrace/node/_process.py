"""What turns a forked process into a worker: its own session, limits, environment and streams.

Linux gives all of it; elsewhere what is missing (death with the parent, adopting orphans) is left out.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import os
import resource
import signal
import socket
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from tailrace.node._confine import Reach, confine, landlock_abi

__all__ = [
    "SOCKET_FD",
    "adopt_orphans",
    "become_worker",
    "child_processes",
    "close_to_others",
    "kill_processes_of",
    "native_threads",
    "prepare_workers",
    "renew_cpu_limit",
    "worker_environment",
]

SOCKET_FD = 3
"""Where every worker has its end of the socket pair; behind 0, 1 and 2 it is the only open descriptor."""

OOM_SCORE_ADJ = 500
"""When memory is short the kernel takes a worker (its run is repeated or reported) before any of our services."""

USER_PROCESSES_MAX = 4096
"""Processes and threads that the user of the workers may have, all together, for one of them to start another. It holds
a fork bomb where there is no control group for it, but not for root."""

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

_PASSED_ON = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""All that a worker may know of its host's environment: where programs, texts and certificates are."""

_LIBRARY_SETTINGS = {
    # One thread each: the preloading process must have no second thread when it forks, and a hundred workers
    # with a thread pool a library would have thousands.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    # Importing pyarrow starts jemalloc's background thread unless told not to.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    # Else its allocator takes a gigabyte at its first use, which counts against the memory limit.
    "MIMALLOC_ARENA_EAGER_COMMIT": "0",
}


def worker_environment(source: Mapping[str, str], folder: str, extra: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a worker whose own folder is `folder`; `source` is the host's, of which little passes."""
    kept = {name: source[name] for name in _PASSED_ON if name in source}
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        **_LIBRARY_SETTINGS,
        **kept,
        "HOME": folder,
        "TMPDIR": folder,
        **extra,
    }


def _prctl(option: int, value: int) -> bool:
    """Whether the kernel did it; never raises, so that other systems than Linux go on without."""
    if sys.platform != "linux":
        return False
    try:
        return bool(_libc().prctl(option, value, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> bool:
    """Make this process the parent of descendants whose own parent dies, also of those in other sessions."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def close_to_others() -> bool:
    """Close this process's environment, memory and descriptors to other processes of the same user (root's apart).

    No core is dumped and no debugger attaches any more. Executing a program opens it again.
    """
    return _prctl(_PR_SET_DUMPABLE, 0)


def native_threads() -> list[str]:
    """Names of this process's threads, those of C libraries included, the main one first."""
    try:
        ids = sorted(int(name) for name in os.listdir("/proc/self/task"))  # noqa: PTH208 - no Path objects: hot
        return [Path(f"/proc/self/task/{i}/comm").read_text().strip() for i in ids]
    except OSError:
        return ["main"]


def child_processes(pid: int | None = None) -> list[int]:
    """Direct children of `pid` (this process where None), those that ended and were not waited for included."""
    parent = os.getpid() if pid is None else pid
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{parent}/task"):  # noqa: PTH208
            found.extend(int(child) for child in Path(f"/proc/{parent}/task/{task}/children").read_text().split())
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN, or the process has gone
        return [child for child in _all_processes() if _parent_of(child) == parent]
    return found


def _all_processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    except OSError:
        return []


def _parent_of(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[1])


def kill_processes_of(folder: str) -> list[int]:
    """Kill whatever has `folder` in the environment it was started with, and say which processes that were.

    Zygote, workers and what they start all do, so this finds processes whose zygote is gone as well.
    """
    mark = os.fsencode(folder)
    killed = []
    for pid in _all_processes():
        if pid == os.getpid():
            continue
        try:
            if mark in Path(f"/proc/{pid}/environ").read_bytes():
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
        except OSError:  # ended meanwhile, or somebody else's
            continue
    return killed


def renew_cpu_limit(cpu_s: float) -> None:
    """Allow this process `cpu_s` more seconds of CPU time from now; a warm worker does so before each run."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime + cpu_s) + 1, keep_hard=True)


def _limit(which: int, soft: int, *, keep_hard: bool = False) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(which, (soft, hard if keep_hard else soft))


def _set_limits(limits: Mapping[str, int]) -> None:
    # DATA, not AS: libraries reserve address space by the gigabyte (and map files) without using it.
    _limit(resource.RLIMIT_DATA, limits["memory_bytes_max"])
    _limit(resource.RLIMIT_NOFILE, limits["open_files_max"])
    _limit(resource.RLIMIT_FSIZE, limits["file_bytes_max"])
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NPROC, USER_PROCESSES_MAX)
    renew_cpu_limit(limits["cpu_s_max"])


def prepare_workers() -> None:
    """In the zygote, what every worker of it begins with: done once, it takes no time and no pages of each worker."""
    sys.dont_write_bytecode = True
    sys.argv = [""]
    warnings.resetwarnings()
    for option in ("default::DeprecationWarning:__main__", "ignore::DeprecationWarning", "ignore::ResourceWarning"):
        warnings._setoption(option)  # type: ignore[attr-defined]  # what a plain `python` begins with
    _libc()
    landlock_abi()


def become_worker(
    *,
    parent: int,
    fds: Sequence[int],
    folder: str,
    environment: Mapping[str, str],
    limits: Mapping[str, int],
    reach: Reach,
    pids_group: str | None = None,
) -> socket.socket:
    """Make this freshly forked process a worker and return its end of the socket pair.

    Args:
        parent: pid of the zygote; where that has ended already, so does this process.
        fds: socket, where stdout goes, where stderr goes. All other descriptors are closed.
        folder: the worker's own one; it exists.
        reach: what it may touch besides that.
        pids_group: folder of the control group that it belongs to.
    """
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    adopt_orphans()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 1)  # the zygote is not: whoever cleans up after us finds us by our environment
    if pids_group is not None:
        Path(pids_group, "cgroup.procs").write_text("0")

    _reset_signals()
    _place_descriptors(*fds)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:  # most are the zygote's own: to write them again would copy pages
            os.environ[name] = value
    os.umask(0o077)
    os.chdir(folder)
    for file, text in (("oom_score_adj", str(OOM_SCORE_ADJ)), ("comm", "tailrace-worker")):
        with contextlib.suppress(OSError):  # not Linux, or the score is higher already and may not be lowered
            Path("/proc/self", file).write_text(text)
    sock = socket.socket(fileno=SOCKET_FD)
    os.register_at_fork(after_in_child=_cover_socket)
    _set_limits(limits)
    confine(replace(reach, writes=(folder, *reach.writes)))
    gc.enable()
    return sock


def _cover_socket() -> None:
    """What node code forks must not speak on our socket: two voices on one stream would garble it."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, SOCKET_FD, inheritable=False)  # not close(): objects of the parent's hold the number
    os.close(null)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _place_descriptors(sock: int, out: int, err: int) -> None:
    # Those passed in lie above SOCKET_FD: the zygote sees to it.
    null = os.open(os.devnull, os.O_RDWR)
    for source, target in ((null, 0), (out, 1), (err, 2)):
        os.dup2(source, target, inheritable=True)
    os.dup2(sock, SOCKET_FD, inheritable=False)
    os.closerange(SOCKET_FD + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    sys.stdin = sys.__stdin__ = open(0, encoding="utf-8", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = _text_writer(1)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _text_writer(2)  # type: ignore[misc]


def _text_writer(fd: int) -> io.TextIOWrapper:
    return open(fd, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
