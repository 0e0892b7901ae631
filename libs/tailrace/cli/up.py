"""`tailrace up`: everything on this machine, until it is told to stop.

The first Ctrl-C or SIGTERM stops in order: no new runs, what ended is committed, accepted webhooks are answered. The
second one ends the process at once, as does a stop that takes longer than it may: what was acknowledged is in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tailrace.cli.apps import usable_app
from tailrace.cli.check import problem_json, problem_line
from tailrace.cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK
from tailrace.cli.feed import Feed, entry_printer
from tailrace.cli.house import House, HouseSettings
from tailrace.cli.logs import quieten
from tailrace.cli.output import colours, console, count, print_json_line, say
from tailrace.errors import TailraceError
from tailrace.process import settle_memory
from tailrace.runtime import Runtime, probe_from_environment

if TYPE_CHECKING:
    from rich.text import Text

    from tailrace.graph import App

__all__ = ["serve"]

STOP_MAX_S = 4.0
"""Longest that a stop may take before the process ends all the same; people are promised five seconds."""


def serve(settings: HouseSettings, *, watch: bool, as_json: bool, verbose: bool) -> int:
    """Run the apps until a signal comes; returns the exit status.

    Raises:
        TailraceError: it could not start, or the host had to give up.
    """
    quieten(verbose=verbose)
    apps = [usable_app(app) for app in settings.apps]  # before anything is opened or locked
    titles = [len(node.title) for app in apps for node in app.nodes]
    feed = Feed(
        entry_printer(as_json=as_json, title_width=min(max(titles, default=12), 32)), fold=not (as_json or verbose)
    )
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_Up(settings, feed, watch=watch, as_json=as_json).run())


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


class _Up:
    def __init__(self, settings: HouseSettings, feed: Feed, *, watch: bool, as_json: bool) -> None:
        self._settings = settings
        self._feed = feed
        self._watch = watch
        self._as_json = as_json
        self._stop = asyncio.Event()
        self._status = EXIT_FAILED
        """How the process ends if the stop takes too long; a stop that was asked for is no failure."""

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._told_to_stop)
        feed = self._feed
        runtime = Runtime(probe=probe_from_environment())
        house = House(self._settings, runtime, listener=lambda entry: feed.put(asdict(entry)))
        edits: asyncio.Queue[set[str]] = asyncio.Queue()
        # Watched before the files are read: no edit may fall between the two.
        watching = asyncio.ensure_future(_watch(self._settings.apps, edits)) if self._watch else None
        await asyncio.sleep(0)
        if not await self._until_stop(house.start()):
            return EXIT_OK
        try:
            self._say_ready(house)
            settle_memory()
            feed.start()
            await self._stay(house, edits, watching)
        finally:
            self._begin_deadline()
            await house.stop()
            feed.stop()
            if feed.missed:
                say(f"{count(feed.missed, 'line')} not shown; `tailrace logs` has the newest", style="dim")
            self._say({"type": "stopped"}, "stopped; what was accepted is in the log", style="dim")
        return self._status

    def _told_to_stop(self) -> None:
        if self._stop.is_set():
            os._exit(EXIT_INTERRUPTED)
        self._status = EXIT_OK
        self._stop.set()

    async def _until_stop(self, work: Any) -> bool:
        """Whether `work` ended before the stop; it is given up when the stop comes first."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            self._begin_deadline()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            return False
        task.result()
        return True

    async def _stay(self, house: House, edits: asyncio.Queue[set[str]], watching: asyncio.Future[None] | None) -> None:
        """Until the stop; raises what the host failed with."""
        work: set[asyncio.Future[Any]] = {asyncio.ensure_future(self._stop.wait()), house.failure}
        if watching is not None:
            work |= {watching, asyncio.ensure_future(self._redeploy(house, edits))}
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in work - {house.failure}:
                task.cancel()
        if house.failure in done:
            raise house.failure.result()
        for task in done:
            task.result()

    async def _redeploy(self, house: House, edits: asyncio.Queue[set[str]]) -> None:
        """Deploy again after each edit; a graph that cannot be used leaves the last one running."""
        while True:
            files = await edits.get()
            try:
                await house.load()
            except TailraceError as error:
                self._say({"type": "error", "message": str(error)}, f"not deployed: {error}", style="red")
                continue
            shown = ", ".join(sorted(files)[:3]) + (" ..." if len(files) > 3 else "")
            self._say({"type": "deployed", "files": sorted(files)}, f"deployed again: {shown}", style="dim")
            self._say_problems(house.apps)

    def _say(self, entry: dict[str, Any], text: str, *, style: str = "") -> None:
        if self._as_json:
            print_json_line(entry)
        else:
            say(text, style=style)

    def _say_problems(self, apps: Sequence[App]) -> None:
        for app, place in zip(apps, self._settings.apps, strict=True):
            folder = str(place.parent if place.is_file() else place)
            for error in app.errors:
                if self._as_json:
                    print_json_line({"type": "problem", **problem_json(app.slug, error)})
                else:
                    print(problem_line(error, folder, colour=colours(sys.stderr)), file=sys.stderr, flush=True)

    def _say_ready(self, house: House) -> None:
        self._say_problems(house.apps)
        settings = house.settings
        apps = [
            {
                "app": deployment.graph,
                "title": deployment.app.title,
                "nodes": len(deployment.app.nodes),
                "tables": [table.store.name for table in deployment.tables.values()],
                "webhooks": [
                    {"webhook": node.title, "url": f"{house.base_url}/webhooks/{name}"}
                    for name, (node, _) in deployment.webhooks.items()
                ],
            }
            for deployment in house.deployments
        ]
        data = str(settings.data_dir.resolve())
        if self._as_json:
            print_json_line(
                {
                    "type": "ready",
                    "url": house.base_url,
                    "log": settings.shown_url,
                    "lake": settings.lake,
                    "data": data,
                    "apps": apps,
                    **({} if house.ops_port is None else {"ops": f"http://127.0.0.1:{house.ops_port}"}),
                }
            )
        else:
            console().print(_banner(house.base_url, settings.shown_url, settings.lake, data, apps), soft_wrap=True)
            sys.stdout.flush()

    def _begin_deadline(self) -> None:
        guard = threading.Timer(STOP_MAX_S, self._end_late)
        guard.daemon = True
        guard.start()

    def _end_late(self) -> None:
        say("the stop takes too long, so it ends now; what was accepted is in the log", style="yellow")
        os._exit(self._status)


def _banner(url: str, log: str, lake: str, data: str, apps: Sequence[dict[str, Any]]) -> Text:
    from importlib.metadata import version

    from rich.text import Text

    text = Text()
    text.append(f"Tailrace {version('tailrace')}", style="bold")
    for name, value in (("url", url), ("log", log), ("lake", lake), ("data", data)):
        text.append(f"\n  {name:<9}", style="dim")
        text.append(value)
    for app in apps:
        text.append(f"\n\n{app['title']}", style="bold")
        text.append(f" ({app['app']})", style="dim")
        for webhook in app["webhooks"]:
            text.append("\n  webhook  ", style="dim")
            text.append(f"{webhook['webhook']}  ")
            text.append(webhook["url"], style="cyan underline")
        if app["tables"]:
            text.append("\n  tables   ", style="dim")
            text.append(", ".join(app["tables"]))
    text.append("\n\nCtrl-C stops.\n", style="dim")
    return text


async def _watch(apps: Sequence[Path], edits: asyncio.Queue[set[str]]) -> None:
    """Put the names of the files that were edited into `edits`, each time that some were."""
    from watchfiles import DefaultFilter, awatch

    folders = [app.parent if app.is_file() else app for app in apps]
    ignored = DefaultFilter(ignore_dirs=[*DefaultFilter.ignore_dirs, ".tailrace"])
    async for changes in awatch(*folders, watch_filter=ignored, step=50, debounce=400):
        edits.put_nowait({Path(path).name for _, path in changes})
