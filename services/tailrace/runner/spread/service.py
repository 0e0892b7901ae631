"""A runner among others: the host, its shards by the group's word."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from tailrace.control import DeployedApp, follow_deployments, place_files
from tailrace.errors import FatalError, RejectedError
from tailrace.lake import SnapshotFiles, StagingArea
from tailrace.log import FencedError, Log, TopicSpec, open_log
from tailrace.process import take_folder
from tailrace.runner.deployment import deploy
from tailrace.runner.host import Host
from tailrace.runner.slots import agree_on_shards
from tailrace.runner.spread.claims import ClaimLimits, Claims
from tailrace.runner.spread.group import STATUS_TOPIC, Group, GroupSettings
from tailrace.runner.spread.settings import SpreadSettings
from tailrace.runner.spread.statuses import Statuses
from tailrace.runtime import Runtime

__all__ = ["DataFolderTakenError", "GroupLostError", "SpreadRunner"]

_LOOK_S = 0.2
"""Between two looks at the clock: how soon it is seen that a time-out has passed, or that this process stood still."""

_log = logging.getLogger(__name__)


class DataFolderTakenError(FatalError):
    """Another process uses the data folder."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        super().__init__(f"another process uses {data_dir}: stop it first, or give this runner its own --data")


class GroupLostError(FatalError):
    """The membership in the group of runners ended by itself."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause
        super().__init__(f"Faust gave up the membership in the group of runners ({cause!r}): start the runner again")


class SpreadRunner:
    """Runs the nodes of those shards that the group gives it.

    Args:
        ready: called with the port of the pages once this runner has joined.
    """

    def __init__(self, settings: SpreadSettings, runtime: Runtime, ready: Callable[[int], None] = lambda port: None):
        self.settings = settings
        self._runtime = runtime
        self._ready = ready
        self._claims = Claims(ClaimLimits(let_go=settings.session_timeout), self._now_s())
        self._failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._host: Host
        self._group: Group

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop; then let runs end, hand over, and leave.

        Raises:
            NotSharedError, DataFolderTakenError, RunnerPortError: it cannot start.
            GroupLostError: fatal; so is whatever else ends the host.
        """
        stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        over: set[asyncio.Future[Any]] = {stopped, self._failure}
        async with contextlib.AsyncExitStack() as exits:
            exits.callback(stopped.cancel)
            starting = asyncio.ensure_future(self._start(exits))
            await asyncio.wait({starting, *over}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                self._ready(self._group.port)
                await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
            else:
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
        if self._failure.done():
            raise self._failure.result()

    async def _start(self, exits: contextlib.AsyncExitStack) -> None:
        settings = self.settings
        lake, staging, data_dir = settings.lake, settings.staging_dir, settings.data_dir.resolve()
        data_dir.mkdir(parents=True, exist_ok=True)
        release = take_folder(data_dir)
        if release is None:
            raise DataFolderTakenError(data_dir)
        exits.callback(release)
        log: Log = await asyncio.to_thread(open_log, settings.log_url, runtime=self._runtime)
        exits.push_async_callback(asyncio.to_thread, log.close)
        shards = await asyncio.to_thread(agree_on_shards, log, settings.runner.shards_shared)
        await asyncio.to_thread(log.create_topics, [TopicSpec(STATUS_TOPIC, partitions=shards, compacted=True)])
        group = self._group = Group(
            GroupSettings(
                log_url=settings.log_url,
                host=settings.host,
                port=settings.port,
                data_dir=data_dir,
                shards=shards,
                session_timeout=settings.session_timeout,
            ),
            self._assigned,
            self._revoked,
            {"/healthz": self._health, "/readyz": self._ready_page, "/metrics": self._metrics},
        )
        files = SnapshotFiles(lake, data_dir / "lake-cache", self._runtime.clock)
        host = self._host = Host(
            log,
            data_dir=data_dir,
            runtime=self._runtime,
            settings=replace(settings.runner, shards=shards, stop_timeout=settings.drain),
            failed=self._failed,
            fetch=files.fetch,
            lake_dir=files.root,
            staging=StagingArea(staging, lake),
            tenure=self,
        )
        statuses = Statuses(log, shards, f"{socket.gethostname()}:{os.getpid()}")
        host.journal.listen(statuses.hear)
        await host.start()
        exits.push_async_callback(group.stop)  # after the host: the others get its shards when it has let go of them
        exits.push_async_callback(host.stop)
        deployed = asyncio.Event()
        exits.callback(self._work(self._follow(log, deployed)).cancel)
        await deployed.wait()
        await group.start()
        for work in (statuses.write(), self._look()):
            exits.callback(self._work(work).cancel)

    async def _follow(self, log: Log, deployed: asyncio.Event) -> None:
        """Run what is deployed; set `deployed` once that is so for the first time."""
        async with contextlib.aclosing(follow_deployments(log, self._runtime)) as changes:
            async for apps in changes:
                try:
                    await self._deploy(apps)
                except RejectedError as error:
                    _log.warning("what was deployed cannot run beside the rest, which goes on: %s", error)
                deployed.set()

    async def _deploy(self, apps: Mapping[str, DeployedApp]) -> None:
        deployments = []
        for each in apps.values():
            folder = await asyncio.to_thread(
                place_files, each.app, self.settings.data_dir.resolve() / "apps", self._runtime
            )
            deployments.append(deploy(each.app, folder, self.settings.runner, each.version))
        await self._host.deploy(deployments)

    # -- whose the shards are: what the host asks (`Tenure`), and what the group says ------------------------------

    def may_open(self) -> bool:
        return self._claims.may_open(self._now_s())

    def taken(self, shard: int, error: FencedError) -> None:
        _log.info("%s; shard %d is another runner's", error, shard)
        self._claims.taken(shard, self._now_s())
        self._hold()

    def _assigned(self, shards: frozenset[int]) -> None:
        self._claims.assigned(shards, self._now_s())
        self._hold()
        _log.info("shards %s are this runner's", sorted(shards))

    def _revoked(self) -> None:
        self._claims.revoked(self._now_s())

    def _hold(self) -> None:
        self._host.own(self._claims.held(self._now_s()))

    async def _look(self) -> None:
        while self._group.failure is None:
            self._claims.awake(self._now_s())
            if self._claims.is_lost(self._now_s()):
                raise GroupLostError(TimeoutError("no shards were assigned for too long"))
            self._hold()
            await asyncio.sleep(_LOOK_S)
        raise GroupLostError(self._group.failure)

    def _work(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        if not self._failure.done():
            self._failure.set_result(error)

    def _now_s(self) -> float:
        return self._runtime.clock.monotonic_s()

    # -- pages ----------------------------------------------------------------------------------------------------

    def _health(self) -> tuple[int, str, bytes]:
        held, apps = sorted(self._host.owned), sorted(self._host.deployments)
        told = {"ok": self._claims.may_open(self._now_s()), "shards": held, "apps": apps}
        return 200, "application/json", orjson.dumps(told)

    def _ready_page(self) -> tuple[int, str, bytes]:
        _, content_type, told = self._health()
        return 200 if self._claims.may_open(self._now_s()) else 503, content_type, told

    def _metrics(self) -> tuple[int, str, bytes]:
        registry = CollectorRegistry()
        for name, text, value in (
            ("tailrace_runner_shards", "Shards that this runner holds.", len(self._host.owned)),
            ("tailrace_runner_nodes", "Nodes whose shards it holds.", len(self._host.nodes)),
            ("tailrace_runner_runs", "Runs that go on.", self._host.running),
            ("tailrace_runner_workers", "Workers that are up.", self._host.workers),
        ):
            Gauge(name, text, registry=registry).set(value)
        return 200, "text/plain", generate_latest(registry)
