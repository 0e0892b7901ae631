"""What of a process one script can change for the next one: taken before a run, put back after it.

Not put back: what a script does to libraries (`requests.get = ...`, pandas options). They stay loaded for speed.
"""

from __future__ import annotations

import builtins
import contextlib
import decimal
import gc
import io
import locale
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from typing import Any, TextIO

from tailrace.node._process import child_processes

__all__ = ["Leftovers", "ProcessState"]

OPEN_FILES_GROWTH_MAX = 64
"""So many more descriptors than at first are taken for a leak: connections that libraries keep are fewer, and
the limit (1024) is still far."""

_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What a run left behind that cannot be put back; a worker with any is thrown away."""

    threads: tuple[str, ...] = ()
    """Names of Python threads that still run."""

    children: tuple[int, ...] = ()
    """Processes that it started, or that those started, and that still run."""

    open_files_growth: int = 0
    """Descriptors more than when the first run of this process began."""

    broken: tuple[str, ...] = ()
    """What else cannot be repaired: a standard stream that was closed, say."""

    @property
    def clean(self) -> bool:
        """Whether the process may run another script."""
        return not (self.threads or self.children or self.broken or self.open_files_growth > OPEN_FILES_GROWTH_MAX)

    def __str__(self) -> str:
        said = [f"thread {name!r}" for name in self.threads]
        said += [f"process {pid}" for pid in self.children]
        said += self.broken
        if self.open_files_growth > OPEN_FILES_GROWTH_MAX:
            said.append(f"{self.open_files_growth} open files more than at first")
        return ", ".join(said) or "nothing"


_open_files_at_first: int | None = None


def _open_files() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - once a hot run
    except OSError:
        return 0


def _stream_identities() -> tuple[tuple[int, int] | None, ...]:
    identities: list[tuple[int, int] | None] = []
    for fd in (0, 1, 2):
        try:
            stat = os.fstat(fd)
            identities.append((stat.st_dev, stat.st_ino))
        except OSError:
            identities.append(None)
    return tuple(identities)


def _fd_of(stream: TextIO | None) -> int | None:
    try:
        return stream.fileno() if stream is not None else None
    except (OSError, ValueError, AttributeError):
        return None


class ProcessState:
    """The state of this process at the moment it is made."""

    def __init__(self) -> None:
        global _open_files_at_first
        if _open_files_at_first is None:
            _open_files_at_first = _open_files()
        self._cwd = os.getcwd()  # noqa: PTH109
        self._environ = dict(os.environ)
        self._umask = os.umask(0o077)
        os.umask(self._umask)
        self._handlers = [(number, signal.getsignal(number)) for number in _SIGNALS]
        self._timer_set = signal.getitimer(signal.ITIMER_REAL)[0] > 0
        self._signal_mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._sys = {name: getattr(sys, name) for name in ("excepthook", "displayhook", "unraisablehook", "argv")}
        self._lists = [(getattr(sys, name), name, list(getattr(sys, name))) for name in _SYS_LISTS]
        self._argv = list(sys.argv)
        self._streams = (sys.stdin, sys.stdout, sys.stderr)
        self._stream_fds = (_fd_of(sys.stdout), _fd_of(sys.stderr))
        self._stream_identities = _stream_identities()
        self._recursion_limit = sys.getrecursionlimit()
        self._switch_interval_s = sys.getswitchinterval()
        self._trace, self._profile = sys.gettrace(), sys.getprofile()
        self._thread_excepthook = threading.excepthook
        self._warnings = (list(warnings.filters), warnings.showwarning)
        self._locale = locale.setlocale(locale.LC_ALL)
        self._decimal = decimal.getcontext().copy()
        self._builtins = dict(vars(builtins))
        self._socket_timeout_s = socket.getdefaulttimeout()
        self._gc = (gc.isenabled(), gc.get_threshold())
        self._logging = _logging_state()
        self._threads = set(sys._current_frames())
        self._children = set(child_processes())

    def begin(self) -> None:
        """Set what is new in every run: an empty stdin, and other random numbers."""
        sys.stdin = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        random.seed()
        if (numpy_random := sys.modules.get("numpy.random")) is not None:
            numpy_random.seed()

    def restore(self) -> Leftovers:
        """Put everything back, and say what could not be."""
        if not self._timer_set:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._handlers:
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._signal_mask)
        if sys.gettrace() is not self._trace:
            sys.settrace(self._trace)
        if sys.getprofile() is not self._profile:
            sys.setprofile(self._profile)
        sys.setrecursionlimit(self._recursion_limit)
        sys.setswitchinterval(self._switch_interval_s)
        threading.excepthook = self._thread_excepthook
        for name, value in self._sys.items():
            setattr(sys, name, value)
        sys.argv[:] = self._argv
        for held, name, content in self._lists:
            held[:] = content
            setattr(sys, name, held)
        self._restore_environ()
        os.umask(self._umask)
        warnings.filters[:] = self._warnings[0]  # type: ignore[index]
        warnings.showwarning = self._warnings[1]
        warnings._filters_mutated()  # type: ignore[attr-defined]
        if locale.setlocale(locale.LC_ALL) != self._locale:
            locale.setlocale(locale.LC_ALL, self._locale)
        decimal.setcontext(self._decimal)
        _restore_dict(vars(builtins), self._builtins)
        socket.setdefaulttimeout(self._socket_timeout_s)
        (gc.enable if self._gc[0] else gc.disable)()
        gc.set_threshold(*self._gc[1])
        _restore_logging(self._logging)
        broken = self._restore_streams()
        try:
            os.chdir(self._cwd)
        except OSError as error:
            broken.append(f"working directory: {error.strerror}")
        return self._leftovers(broken)

    def _restore_environ(self) -> None:
        time_zone = os.environ.get("TZ")
        if os.environ != self._environ:
            for name in os.environ.keys() - self._environ.keys():
                del os.environ[name]
            os.environ.update(self._environ)
        if time_zone != self._environ.get("TZ"):
            time.tzset()

    def _restore_streams(self) -> list[str]:
        broken = []
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # the script's own object, which may be anything
                stream.flush()
        if _stream_identities() != self._stream_identities:
            broken.append("a standard stream was closed or put elsewhere")
        sys.stdin, sys.stdout, sys.stderr = self._streams
        for name, fd in zip(("stdout", "stderr"), self._stream_fds, strict=True):
            stream = getattr(sys, name)
            if stream is not None and stream.closed and fd is not None:
                broken.append(f"sys.{name} was closed")
                with contextlib.suppress(OSError):
                    reopened = os.fdopen(fd, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
                    setattr(sys, name, reopened)
        return broken

    def _leftovers(self, broken: list[str]) -> Leftovers:
        assert _open_files_at_first is not None, "set by the first capture"
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        threads = sys._current_frames().keys() - self._threads
        children = [pid for pid in child_processes() if pid not in self._children and not _has_ended(pid)]
        return Leftovers(
            threads=tuple(sorted(names.get(ident, "without a name") for ident in threads)),
            children=tuple(sorted(children)),
            open_files_growth=max(0, _open_files() - _open_files_at_first),
            broken=tuple(broken),
        )


_SYS_LISTS = ("path", "meta_path", "path_hooks", "warnoptions")


def _has_ended(pid: int) -> bool:
    """Whether it has ended and nobody waited for it, which is done here."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _restore_dict(held: dict[str, Any], content: dict[str, Any]) -> None:
    if held != content:
        for name in held.keys() - content.keys():
            del held[name]
        held.update(content)


def _loggers() -> dict[str, logging.Logger]:
    named = logging.root.manager.loggerDict
    return {
        "": logging.root,
        **{name: logger for name, logger in named.items() if isinstance(logger, logging.Logger)},
    }


def _logging_state() -> dict[str, tuple[list[logging.Handler], list[Any], int, bool, bool]]:
    """Or a script that adds a handler would write each line once more in each run."""
    return {
        name: (list(logger.handlers), list(logger.filters), logger.level, logger.propagate, logger.disabled)
        for name, logger in _loggers().items()
    }


def _restore_logging(state: dict[str, tuple[list[logging.Handler], list[Any], int, bool, bool]]) -> None:
    for name, logger in _loggers().items():
        known = state.get(name)
        if known is None:  # new: the app's own, or a library's that was imported by it
            handlers: list[logging.Handler] = [h for h in logger.handlers if isinstance(h, logging.NullHandler)]
            known = (handlers, [], logging.NOTSET, True, False)
        handlers, filters, level, propagate, disabled = known
        if logger.handlers != handlers:
            logger.handlers[:] = handlers
        logger.filters[:] = filters
        if logger.level != level:
            logger.setLevel(level)
        logger.propagate, logger.disabled = propagate, disabled
    logging.disable(logging.NOTSET)
