"""Runs and their output: from a running `up` over HTTP, or from the journals in a log that any number of runners write."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

from tailrace.cli.options import log_option

if TYPE_CHECKING:
    from tailrace.runner import RunEntry
    from tailrace.runner.journal import Entry, Journal

__all__ = ["History", "LogUrl", "history_of"]

LogUrl = Annotated[str | None, log_option("The log of a fleet of runners; else a running `up` is asked.")]

T = TypeVar("T")


class History(Protocol):
    """Answers what the routes `runs`, `run` and `logs` below `/api/local` answer."""

    def get(self, path: str, **query: Any) -> Any: ...

    def lines(self, path: str, **query: Any) -> Iterator[Any]: ...


def history_of(log: str | None, data: Path | None) -> History:
    """Where runs are looked up: in the log that is named, else by asking a running `up`. Raises `NotUpError`."""
    if log is not None:
        return _LogHistory(log)
    from tailrace.cli.client import Client

    return Client(data)


class _LogHistory:
    """Folds the journals of all apps that were deployed on a log."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **query: Any) -> Any:
        async def answer(journal: Journal, apps: Sequence[str]) -> Any:
            match path:
                case "runs":
                    return [asdict(each) for each in _runs(journal, **query)]
                case "run":
                    return await self._run(journal, apps, query["run"])
                case _:
                    return [asdict(each) for each in _lines(journal, **query)]

        return asyncio.run(self._with_journal(answer))

    def lines(self, path: str, **query: Any) -> Iterator[Any]:
        """Lines that are there, then lines and runs as they come, for as long as the reader goes on."""
        with asyncio.Runner() as runner:
            entries = self._follow(query["node"], query["run"], query["last"])
            try:
                while True:
                    yield asdict(runner.run(_next(entries)))
            finally:
                runner.run(entries.aclose())

    async def _follow(self, node: str | None, run: str | None, last: int) -> AsyncGenerator[Entry, None]:
        async with self._journal() as (journal, _):
            for line in _lines(journal, node, run, last):
                yield line
            reading = asyncio.ensure_future(journal.read_others())
            try:
                async with contextlib.aclosing(journal.follow()) as entries:
                    async for entry in entries:
                        if node in (None, entry.node, entry.title) and run in (None, entry.run):
                            yield entry
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _run(self, journal: Journal, apps: Sequence[str], run: str) -> dict[str, Any]:
        from tailrace.control import ControlLog
        from tailrace.graph import topic_name
        from tailrace.log import open_log
        from tailrace.runner.journal import UnknownRunError
        from tailrace.runner.lineage import lineage_of
        from tailrace.runner.requests import RunRequest, request_at
        from tailrace.runner.view import run_json

        app = run.partition("/")[0]
        if app not in apps:
            raise UnknownRunError(app, run)
        entry = await journal.find(app, run)
        lineage = lineage_of(entry, await journal.all_runs(app))

        def look_up() -> tuple[dict[str, str], RunRequest | None]:
            with contextlib.closing(open_log(self._url)) as log:
                control = ControlLog(log)
                known = control.read().history(app)
                stores = control.app_of(known[-1]).app.stores if known else ()
                request = None if entry.trigger is None else request_at(log, app, entry.trigger)
                return {topic_name(app, store): store.name for store in stores}, request

        return run_json(entry, lineage, *await asyncio.to_thread(look_up))

    async def _with_journal(self, work: Callable[[Journal, Sequence[str]], Coroutine[Any, Any, T]]) -> T:
        async with self._journal() as (journal, apps):
            return await work(journal, apps)

    @contextlib.asynccontextmanager
    async def _journal(self) -> AsyncIterator[tuple[Journal, Sequence[str]]]:
        """A journal that has read what all apps' say, and the apps."""
        from tailrace.control import ControlLog
        from tailrace.log import open_log
        from tailrace.runner.journal import LINEAGE_RECORDS, Journal, journal_topic
        from tailrace.runtime import SystemClock

        log = await asyncio.to_thread(open_log, self._url)
        try:
            deployed = await asyncio.to_thread(ControlLog(log).read)
            journal = Journal(log, SystemClock())
            topics = await asyncio.to_thread(log.topics, "")
            apps = [app for app in deployed.apps if journal_topic(app) in topics]
            for app in apps:
                await journal.load(app, journal_topic(app), LINEAGE_RECORDS)
            yield journal, apps
            await journal.close()
        finally:
            await asyncio.to_thread(log.close)


async def _next(entries: AsyncGenerator[T, None]) -> T:
    return await anext(entries)


def _runs(journal: Journal, node: str | None, status: str | None, last: int) -> list[RunEntry]:
    from tailrace.runner.journal import RUNS_MAX

    return sorted(journal.runs(node=node, kind=status, last=RUNS_MAX), key=lambda each: each.started_ms)[-last:]


def _lines(journal: Journal, node: str | None, run: str | None, last: int) -> list[Any]:
    from tailrace.runner.journal import LINES_MAX

    found = sorted(journal.lines(node=node, run=run, last=LINES_MAX), key=lambda each: each.at_ms)
    return found[-last:] if last else []
