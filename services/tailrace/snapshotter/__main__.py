"""The snapshotter's process: `python -m tailrace.snapshotter`.

It stands alone: it follows what is deployed on a log, and shares the Tables with others of its kind, until a signal
comes. With `--stdin` it is told what to do by lines of JSON on standard input. The first is `{"settings": {...}}`, with
`"supervised": true` where it is to end with whoever started it (then the end of the input ends it, and it is nice to
others), and with `"task"` and `"arguments"` where it is to do one thing and answer. Later lines bring other settings.

Standard output carries lines of JSON: what is wrong, or the answer. Killing it does no harm.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import orjson

from tailrace.errors import TailraceError
from tailrace.lake import LakeLocation
from tailrace.log import Log, open_log
from tailrace.process import service_parser
from tailrace.runtime import Runtime, probe_from_environment
from tailrace.snapshotter.service import Snapshotter
from tailrace.snapshotter.settings import SnapshotterSettings
from tailrace.snapshotter.wishes import following

_STOP_S = 0.5
"""Longest that it finishes things when told to end; what it does not finish is done by the next one."""


class _NoPandas(MetaPathFinder):
    """There is no pandas in this process. pyarrow would load it with the first array that it makes of a list, only to ask
    whether that is something of pandas: half a second of CPU time, and a quarter of the process's memory."""

    @classmethod
    def find_spec(cls, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("the snapshotter does without pandas", name=fullname)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until there is nothing to do, or until told to end; returns the exit status."""
    faulthandler.enable()  # a death in a library's native code tells where
    sys.meta_path.insert(0, _NoPandas)
    alone = _standing(arguments)
    if alone is not None:
        return _guarded(lambda: asyncio.run(_serve(alone, follow=True)))
    order = orjson.loads(sys.stdin.buffer.readline() or b"{}")
    supervised = bool(order.get("supervised"))
    if supervised:
        os.nice(10)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to us, too; our parent tells us

    def work() -> None:
        settings = SnapshotterSettings.from_json(order.get("settings", {}))
        if order.get("task"):
            _tell({"answer": _task(settings, order["task"], order.get("arguments", {}))})
        else:
            asyncio.run(_serve(settings, supervised=supervised))

    return _guarded(work)


def _parser() -> argparse.ArgumentParser:
    parser = service_parser(
        "snapshotter",
        "Brings Tables into the lake. Several on one log share them.",
        {
            "log": None,
            "lake": None,
            "data": Path(".tailrace"),
            "shared_folder": None,
            "instance": socket.gethostname(),
            "retention": "7d",
        },
    )
    parser.add_argument("--stdin", action="store_true", help="be told by lines of JSON on standard input")
    return parser


def _standing(arguments: Sequence[str] | None) -> SnapshotterSettings | None:
    """The settings of one that stands alone; None: they come by standard input."""
    parser = _parser()
    found = parser.parse_args(arguments)
    if found.stdin:
        return None
    if found.log is None:
        parser.error("--log or TAILRACE_LOG must name the log")
    folder = Path(found.shared_folder or found.data).resolve()
    return SnapshotterSettings(
        log_url=found.log,
        lake_url=LakeLocation.parse(found.lake or str(folder / "lake")).url,
        staging_dir=str(folder / "staging"),
        instance=found.instance,
        shared=True,
        retention=found.retention,
        idle_exit=None,
    )


def _guarded(work: Callable[[], object]) -> int:
    """Do it; 1 where an error of ours ends it."""
    try:
        work()
    except TailraceError as error:
        _tell({"error": str(error)})
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


async def _serve(settings: SnapshotterSettings, *, supervised: bool = False, follow: bool = False) -> None:
    loop = asyncio.get_running_loop()
    runtime = Runtime(probe=probe_from_environment())
    location = LakeLocation.parse(settings.lake_url)
    log = await asyncio.to_thread(open_log, settings.log_url, runtime=runtime)
    try:
        snapshotter = Snapshotter(log, location, settings, runtime, _tell)

        def end() -> None:
            snapshotter.stop()
            loop.call_later(_STOP_S, os._exit, 0)

        for number in (signal.SIGTERM, *(() if supervised else (signal.SIGINT,))):
            loop.add_signal_handler(number, end)
        if follow:
            await _serve_deployments(log, snapshotter, settings, runtime)
            return
        changed = lambda new: loop.call_soon_threadsafe(snapshotter.change, new)  # noqa: E731
        ended = (lambda: loop.call_soon_threadsafe(end)) if supervised else (lambda: None)
        threading.Thread(target=_listen, args=(changed, ended), daemon=True).start()
        await snapshotter.run()
    finally:
        await asyncio.to_thread(log.close)


async def _serve_deployments(
    log: Log, snapshotter: Snapshotter, settings: SnapshotterSettings, runtime: Runtime
) -> None:
    """Work on the Tables of what is deployed."""
    from tailrace.control import follow_deployments  # who is told its Tables does without graphs: see `wishes`

    async def follow() -> None:
        async with contextlib.aclosing(follow_deployments(log, runtime)) as changes:
            async for apps in changes:
                snapshotter.change(following(settings, (each.app for each in apps.values())))

    task = asyncio.ensure_future(follow())
    try:
        await snapshotter.run()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _listen(changed: Callable[[SnapshotterSettings], object], ended: Callable[[], object]) -> None:
    """Take in what comes on standard input, until its end."""
    with contextlib.suppress(RuntimeError):  # the loop has ended
        for line in sys.stdin.buffer:
            changed(SnapshotterSettings.from_json(orjson.loads(line)["settings"]))
        ended()


def _task(settings: SnapshotterSettings, task: str, arguments: Mapping[str, Any]) -> Any:
    from tailrace.snapshotter.tasks import TASKS

    return TASKS[task](settings, **arguments)


def _tell(message: Mapping[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.buffer.write(orjson.dumps(message) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    status = main()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    os._exit(status)  # threads that still work on tables are of no use any more
