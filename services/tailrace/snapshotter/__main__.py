"""The snapshotter's process: `python -m tailrace.snapshotter`, told what to do by lines of JSON on standard input.

The first line is `{"settings": {...}}`, with `"supervised": true` where it is to end with whoever started it (then the
end of the input ends it, and it is nice to others), and with `"task"` and `"arguments"` where it is to do one thing and
answer. Later lines bring other settings. Standard output carries lines of JSON: what is wrong, or the answer. Killing
it does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from tailrace.errors import TailraceError
from tailrace.lake import LakeLocation
from tailrace.log import open_log
from tailrace.runtime import Runtime, probe_from_environment
from tailrace.snapshotter.service import Snapshotter
from tailrace.snapshotter.settings import SnapshotterSettings

_STOP_S = 0.5
"""Longest that it finishes things when told to end; what it does not finish is done by the next one."""


def main() -> int:
    """Run until there is nothing to do, or until told to end; returns the exit status."""
    faulthandler.enable()  # a death in a library's native code tells where
    order = orjson.loads(sys.stdin.buffer.readline() or b"{}")
    supervised = bool(order.get("supervised"))
    if supervised:
        os.nice(10)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to us, too; our parent tells us
    try:
        settings = SnapshotterSettings.from_json(order.get("settings", {}))
        if order.get("task"):
            _tell({"answer": _task(settings, order["task"], order.get("arguments", {}))})
        else:
            asyncio.run(_serve(settings, supervised=supervised))
    except TailraceError as error:
        _tell({"error": str(error)})
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


async def _serve(settings: SnapshotterSettings, *, supervised: bool) -> None:
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
        changed = lambda new: loop.call_soon_threadsafe(snapshotter.change, new)  # noqa: E731
        ended = (lambda: loop.call_soon_threadsafe(end)) if supervised else (lambda: None)
        threading.Thread(target=_listen, args=(changed, ended), daemon=True).start()
        await snapshotter.run()
    finally:
        await asyncio.to_thread(log.close)


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
