"""The keeper of the lake: starts the snapshotter's process when Tables have news, and ends it with the house.

The process ends by itself when there is nothing to do, so that an idle house pays no memory for it; a doorbell over
the topics of the Tables starts it again. It is told what to do by lines of JSON on its standard input (a log's URL may
hold a password, which everybody could read among the arguments), and says on its standard output what is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

import orjson

from tailrace.errors import RetriableError
from tailrace.log import Log, Partition
from tailrace.snapshotter import SnapshotterSettings, behind, lake_is_gone, table_lanes

__all__ = ["Keeper", "KeeperError"]

_log = logging.getLogger("tailrace.snapshotter")

COMMAND = (sys.executable, "-m", "tailrace.snapshotter", "--stdin")
SPARING = {"MALLOC_ARENA_MAX": "2", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""Has the allocators give memory back: a step's rows would else stay, in one pool for each thread."""
PAUSE_FIRST_S = 1.0
PAUSE_MAX_S = 60.0
"""Before a snapshotter that died is started again; each pause is twice the last."""
LOOK_S = 30.0
"""How often new topics are looked for while nothing rings."""
UPKEEP_S = 6 * 3600.0
"""After so long without news it is started all the same: what is old may go."""
STOP_S = 1.0
"""Longest that a stop waits for it; it survives being killed."""
HEAD_START_S = 3.0
"""What nodes have of the machine before it is started for their news: what it loads takes a core for a second or two,
and with these seconds more it is still in time for tables that ask for nothing special."""
LINE_BYTES_MAX = 64 << 20
"""Longest line that it may answer with: the plan of a whole clean-up."""
ERRORS_MAX = 50


class KeeperError(RetriableError):
    """The snapshotter's process could not do what was asked of it."""

    def __init__(self, task: str, reason: str) -> None:
        self.task, self.reason = task, reason
        super().__init__(f"the snapshotter could not do `{task}`: {reason}")


class Keeper:
    """Supervises the snapshotter's process.

    Args:
        settings: what it is to do, asked for whenever it is started.
    """

    def __init__(self, log: Log, settings: Callable[[], SnapshotterSettings]) -> None:
        self._log = log
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._work: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.subprocess.Process] = set()
        self.troubles: dict[str, str] = {}
        """What is wrong now, by topic; "" for the process itself."""
        self.lost: dict[str, str] = {}
        """What was found to be gone since the house began, by topic: it lay in a lake that is gone, and the log was trimmed."""
        self.deaths = 0
        """In a row."""

    def start(self) -> None:
        """Begin to listen for news."""
        self._work = asyncio.get_running_loop().create_task(self._run())

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return self._process.pid if self._process is not None else None

    def tell(self) -> None:
        """Let a running process know that the settings have changed."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(_line({"settings": self._settings().to_json()}))

    async def close(self) -> None:
        """End it, within some two seconds."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
        await asyncio.gather(*[_end(process) for process in [self._process, *self._tasks] if process is not None])

    async def ask(self, task: str, **arguments: Any) -> Any:
        """Have a process of its own carry out `task` (`gc`, `rebuild`); returns what it answers.

        Raises:
            KeeperError: retriable; it failed, with the reason that it gave.
        """
        process = await self._spawn({"task": task, "arguments": arguments})
        self._tasks.add(process)
        try:
            answer: dict[str, Any] = {}
            async for message in _messages(process):
                answer = message
            status = await process.wait()
        finally:
            self._tasks.discard(process)
            await _end(process)
        if status != 0 or "answer" not in answer:
            raise KeeperError(task, str(answer.get("error") or f"its process ended with status {status}"))
        return answer["answer"]

    # -- the process ----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        pause_s = PAUSE_FIRST_S
        while True:
            try:
                await self._news()
                if self._settings().idle_exit is not None:
                    await asyncio.sleep(HEAD_START_S)
                status, last = await self._serve()
            except RetriableError as error:
                _log.warning("%s; trying again", error)
                await asyncio.sleep(pause_s)
                continue
            if status == 0:
                self.deaths = 0
                self.troubles.pop("", None)
                pause_s = PAUSE_FIRST_S
                continue
            self.deaths += 1
            self.troubles[""] = f"its process ended with status {status}: {last}"
            _log.warning("the snapshotter %s; it is started again in %.0f s", self.troubles[""], pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_MAX_S)

    async def _news(self) -> None:
        """Returns once there is something to do."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + UPKEEP_S
        while loop.time() < until_s:
            settings = self._settings()
            if settings.idle_exit is None:  # it is to be there before there are any
                return
            lanes = await asyncio.to_thread(table_lanes, self._log, settings.graphs)
            partitions = [lane.partition for lane in lanes.values()]
            if await asyncio.to_thread(lake_is_gone, self._log, settings.lake_url, partitions):
                return
            with contextlib.closing(self._log.watch()) as watch:
                watch.add(partitions)
                if await self._behind(partitions):
                    return
                look_s = loop.time() + LOOK_S
                while loop.time() < look_s:
                    rung = await watch.wait(max(0.0, look_s - loop.time()))
                    if await self._behind(rung):
                        return

    async def _behind(self, partitions: Iterable[Partition]) -> bool:
        return bool(await asyncio.to_thread(lambda: behind(self._log, partitions)))

    async def _serve(self) -> tuple[int, str]:
        """One life of the process: its status, and the last that it said on standard error."""
        process = self._process = await self._spawn({})
        said: deque[str] = deque(maxlen=ERRORS_MAX)
        assert process.stderr is not None
        errors = asyncio.ensure_future(_collect(process.stderr, said))
        try:
            async for message in _messages(process):
                self._heard(message)
            return await process.wait(), said[-1] if said else "it said nothing"
        finally:
            if process.returncode is None:
                await _end(process)
            errors.cancel()
            self._process = None

    def _heard(self, message: Mapping[str, Any]) -> None:
        table, error = str(message.get("table")), message.get("error")
        if message.get("type") == "lost":
            self.lost[table] = str(message["text"])
            _log.error("%s has lost rows: %s", table, message["text"])
        elif message.get("type") != "trouble":
            return
        elif error is None:
            if self.troubles.pop(table, None) is not None:
                _log.warning("%s is in the lake again", table)
        else:
            self.troubles[table] = error
            _log.warning("%s does not get into the lake: %s", table, error)

    async def _spawn(self, order: Mapping[str, Any]) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE if not order else asyncio.subprocess.DEVNULL,
            limit=LINE_BYTES_MAX,
            env={**SPARING, **os.environ},
        )
        assert process.stdin is not None
        process.stdin.write(_line({**order, "settings": self._settings().to_json(), "supervised": True}))
        return process


def _line(value: Mapping[str, Any]) -> bytes:
    return orjson.dumps(value) + b"\n"


async def _messages(process: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        with contextlib.suppress(orjson.JSONDecodeError):
            message = orjson.loads(line)
            if isinstance(message, dict):
                yield message


async def _collect(stream: asyncio.StreamReader, said: deque[str]) -> None:
    while line := await stream.readline():
        text = line.decode(errors="replace").strip()
        if text:
            said.append(text)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Have it stop by closing what it listens to; kill it where that takes too long."""
    if process.returncode is not None:
        return
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
