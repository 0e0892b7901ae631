"""A node's file, run as the plain script that it is: top to bottom, as `__main__`, many times in one warm process.

Each run has a namespace of its own, the app's modules are imported afresh, and what it changed in the process is
put back (`_script_state` lists it). Libraries stay loaded and code stays compiled: that is what makes it fast.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import gc
import importlib
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from tailrace.node._process import renew_cpu_limit
from tailrace.node._script_imports import AppImports, CodeCache
from tailrace.node._script_state import Leftovers, ProcessState
from tailrace.node.user_traceback import ErrorPlace, error_hint, error_place, format_user_traceback, is_app_file

__all__ = [
    "ErrorPlace",
    "Leftovers",
    "NodeTimeLimitError",
    "ScriptEnd",
    "collect_garbage",
    "error_hint",
    "error_place",
    "format_user_traceback",
    "run_script",
    "time_limit",
]

RAISE_AGAIN_S = 1.0
"""Pause until the time limit is raised once more into code that caught it."""


class NodeTimeLimitError(BaseException):
    """A node ran longer than it may; raised into its code.

    Not an `Exception`: nodes wrap calls in `try: ... except Exception: retry`, which must not swallow it.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        super().__init__(
            f"the node ran longer than its time limit of {limit_s:g} s; process less in one run (see "
            "`State.should_continue`), or set a longer `timeout` on the node in graph.yml"
        )


@contextmanager
def time_limit(limit_s: float | None) -> Iterator[None]:
    """Raise `NodeTimeLimitError` in the body after `limit_s`, and each second after that until it ends.

    Only in the main thread. A body that blocks SIGALRM, or stays in one call of a C library, is not reached:
    whoever watches this process from outside must kill it some time later.
    """
    if limit_s is None:
        yield
        return
    over = False

    def ring(_number: int, _frame: FrameType | None) -> None:
        if not over:  # the body has ended, and the timer was not stopped yet
            raise NodeTimeLimitError(limit_s)

    before = signal.signal(signal.SIGALRM, ring)
    timer_before = signal.setitimer(signal.ITIMER_REAL, limit_s, RAISE_AGAIN_S)
    try:
        yield
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, *timer_before)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True, slots=True)
class ScriptEnd:
    """How a script ended that did not fail."""

    exit_code: str | int | None
    """What it gave to `exit()`; any value is a normal end. None where it ran to its last line."""

    leftovers: Leftovers


_codes = CodeCache()
_apps: dict[tuple[str, str | None], AppImports] = {}


def run_script(
    path: str | Path,
    app_dir: str | Path,
    *,
    package: str | None = None,
    cwd: str | Path | None = None,
    limit_s: float | None = None,
    cpu_s: float | None = None,
    on_exit: Callable[[BaseException | None], None] | None = None,
) -> ScriptEnd:
    """Run the file `path` of the app in `app_dir`, once.

    As with a plain script: threads that are no daemons are waited for, and `atexit` functions of the app are called,
    before it counts as ended. `SystemExit`, from whatever code, is a normal end; its message is printed.

    Args:
        package: name of the app as a package; that of its folder where None.
        cwd: working directory of the run; the app's folder where None.
        limit_s: time limit, see `time_limit`. It does not cover `on_exit`, which must not be torn in two.
        cpu_s: CPU time from now, see `renew_cpu_limit`.
        on_exit: called last while everything is still as the script left it, with the error if it failed: where the
            caller writes what the script left in buffers.

    Raises:
        BaseException: whatever the script raised, `NodeTimeLimitError` included; or `on_exit`. The process
            has been put back, as far as possible, but should not run another script.
    """
    app_dir, path = os.path.realpath(app_dir), os.path.realpath(path)
    imports = _apps.get((app_dir, package))
    if imports is None:
        imports = _apps[app_dir, package] = AppImports(app_dir, package, _codes)
    state = ProcessState()
    main_before = sys.modules.get("__main__")
    module = ModuleType("__main__")
    try:
        state.begin()
        if cpu_s is not None:
            renew_cpu_limit(cpu_s)
        with imports.installed(path), _collected_atexit(app_dir) as at_exit:
            sys.modules["__main__"] = module
            os.chdir(app_dir if cwd is None else cwd)
            sys.argv[:] = [path]
            error: BaseException | None = None
            exit_code = None
            try:
                with time_limit(limit_s):
                    exit_code = _execute(module, path, imports, at_exit)
            except BaseException as raised:
                error = raised
                raise
            finally:
                if on_exit is not None:
                    on_exit(error)
                if error is None:  # else its text may need what is in there
                    _clear(module)
                del error  # it holds this frame, which holds it
    finally:
        if main_before is not None:
            sys.modules["__main__"] = main_before
        leftovers = state.restore()
    return ScriptEnd(exit_code, leftovers)


GROWTH_KB_MAX = 32 << 10
"""Growth of a worker after which garbage is collected though somebody waits: what runs left in cycles may be large."""

_modules_frozen = 0
_peak_kb = 0


def collect_garbage(*, if_grown: bool = False) -> None:
    """Take away what runs left in cycles: for when nobody waits. Takes 0.1 ms in the usual case.

    Args:
        if_grown: only if this process has needed much more memory than ever since it was last done.
    """
    global _modules_frozen, _peak_kb
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if if_grown and peak_kb - _peak_kb < GROWTH_KB_MAX:
        return
    _peak_kb = peak_kb
    gc.collect()
    if len(sys.modules) != _modules_frozen:
        gc.freeze()  # libraries stay for good: looking at them again each time would take some 40 ms
        _modules_frozen = len(sys.modules)


def _execute(
    module: ModuleType, path: str, imports: AppImports, at_exit: list[Callable[[], object]]
) -> str | int | None:
    exit_code = None
    try:
        code = _codes.code(path)
        package = imports.package_of(path)
        importlib.import_module(package)
        namespace = vars(module)
        namespace.update(__file__=path, __package__=package, __builtins__=builtins, __cached__=None)
        exec(code, namespace)  # noqa: S102 - running node code is what this is for
    except SystemExit as end:
        exit_code = end.code
        _show_exit(exit_code)
    except BaseException:
        _call(at_exit)
        raise
    _finish_executors()
    _join_threads()
    _call(at_exit)
    return exit_code


def _show_exit(code: object) -> None:
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)


@contextmanager
def _collected_atexit(app_dir: str) -> Iterator[list[Callable[[], object]]]:
    """Functions of the app given to `atexit.register` belong to the run; libraries' to the process."""
    collected: list[Callable[[], object]] = []
    real_register, real_unregister = atexit.register, atexit.unregister

    def register(function: Callable[..., Any], /, *args: Any, **keywords: Any) -> Callable[..., Any]:
        if is_app_file(sys._getframe(1).f_code.co_filename, app_dir):

            def call() -> object:
                return function(*args, **keywords)

            call.__wrapped__ = function  # type: ignore[attr-defined]
            collected.append(call)
            return function
        return real_register(function, *args, **keywords)

    def unregister(function: Callable[..., Any], /) -> None:
        collected[:] = [call for call in collected if getattr(call, "__wrapped__", None) != function]
        real_unregister(function)

    atexit.register, atexit.unregister = register, unregister
    try:
        yield collected
    finally:
        atexit.register, atexit.unregister = real_register, real_unregister


def _call(at_exit: list[Callable[[], object]]) -> None:
    while at_exit:
        with contextlib.suppress(SystemExit):
            at_exit.pop()()


def _finish_executors() -> None:
    """Have pools of `concurrent.futures` that were not shut down work off what they have, as Python's end does."""
    pools: Any = sys.modules.get("concurrent.futures.thread")
    if pools is None or not getattr(pools, "_threads_queues", None):
        return
    pools._shutdown = True
    try:
        for thread, queue in list(pools._threads_queues.items()):
            queue.put(None)
            thread.join()
    finally:
        pools._shutdown = False


def _join_threads() -> None:
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()


def _clear(module: ModuleType) -> None:
    """Let go of the script's objects at once, in the order of Python's own end: private names, then the others.

    Functions and their namespace hold each other, so a large frame would else stay until some later collection.
    """
    namespace = vars(module)
    for private in (True, False):
        for name in list(namespace):
            if name != "__builtins__" and name.startswith("_") is private:
                namespace[name] = None
