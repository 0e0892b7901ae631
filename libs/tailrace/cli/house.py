"""Everything on one machine in one process tree: gateway, runner and the local HTTP interface over one log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import orjson

from tailrace.api import LocalApi
from tailrace.cli.apps import different, usable_app, whoami
from tailrace.cli.errors import FileWriteError
from tailrace.cli.keeper import Keeper
from tailrace.cli.lakeview import LakeStatus
from tailrace.control import ControlLog, DeployedApp, follow_deployments, place_files
from tailrace.errors import FatalError, RejectedError
from tailrace.gateway import (
    Door,
    Gateway,
    GatewaySettings,
    GatewayView,
    Ops,
    PortTakenError,
    webhook_routes,
)
from tailrace.graph import App
from tailrace.lake import LakeLocation, SnapshotFiles, StagingArea
from tailrace.log import Log, open_log
from tailrace.process import take_folder
from tailrace.runner import Deployment, Entry, Host, HostView, RunnerSettings, agree_on_shards, deploy
from tailrace.runtime import Runtime
from tailrace.snapshotter import SnapshotterSettings, following

__all__ = ["CONTACT_FILE", "AlreadyUpError", "House", "HouseSettings", "PortInUseError", "data_lock"]

_log = logging.getLogger(__name__)

_START = timedelta(seconds=5)
"""What starting the snapshotter may take on a busy machine: where a table asks for less, it stays."""

CONTACT_FILE = "up.json"
"""Below the data folder: where a running `up` can be reached, and the token to do so."""


class AlreadyUpError(FatalError):
    """Another process uses the data folder."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        super().__init__(f"another `tailrace up` uses {data_dir}: stop it first, or give this one its own --data")


class PortInUseError(FatalError):
    """The address cannot be listened on: most often its port is taken."""

    hint = "stop what listens there, or choose another port with --port, another address with --host"

    def __init__(self, host: str, port: int, why: str) -> None:
        self.host, self.port, self.why = host, port, why
        super().__init__(f"port {port} of {host} cannot be listened on: {why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HouseSettings:
    """Where a house stands."""

    apps: Sequence[Path] = ()
    data_dir: Path = Path(".tailrace")
    log_url: str | None = None
    """None: the embedded log in the data folder."""
    lake_url: str | None = None
    """None: the folder `lake` in the data folder."""
    retention: timedelta = timedelta(days=7)
    """`--retention`, `TAILRACE_RETENTION`: see `SnapshotterSettings`; an app's and a table's `retention:` come first."""
    host: str = "127.0.0.1"
    port: int = 8700
    ops_port: int | None = None
    """Port of 127.0.0.1 with the gateway's `/metrics`, 0 for a free one: `--ops-port`, `TAILRACE_OPS_PORT`; None: nowhere."""
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    runner: RunnerSettings = field(default_factory=RunnerSettings)

    @property
    def url(self) -> str:
        """The log's URL."""
        return self.log_url or f"sqlite:///{self.data_dir.resolve() / 'tailrace.db'}"

    @property
    def lake(self) -> str:
        """The lake's URL, or its folder."""
        return self.location.url

    @property
    def location(self) -> LakeLocation:
        """Where the lake is.

        Raises:
            LakeUrlError: rejected; the URL cannot be understood.
        """
        return LakeLocation.parse(self.lake_url or str(self.data_dir.resolve() / "lake"))

    @property
    def shown_url(self) -> str:
        """The log's URL without its settings, which may hold a password."""
        return self.url.partition("?")[0]


class House:
    """Starts and stops the services of one machine.

    Args:
        listener: called with each run and line of output, from the first on; it must not wait.
    """

    def __init__(
        self, settings: HouseSettings, runtime: Runtime, listener: Callable[[Entry], None] | None = None
    ) -> None:
        self.settings = settings
        self.apps: list[App] = []
        self.port = settings.port
        self.ops_port = settings.ops_port
        self.failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._runtime = runtime
        self._listener = listener
        self._exits = contextlib.AsyncExitStack()
        self._host: Host | None = None
        self._gateway: Gateway | None = None
        self._keeper: Keeper | None = None
        self._control: ControlLog | None = None
        self._deployed: dict[str, DeployedApp] = {}
        self._deploying = asyncio.Lock()

    @property
    def base_url(self) -> str:
        """Where webhooks and the local interface listen."""
        return f"http://{self.settings.host}:{self.port}"

    @property
    def deployments(self) -> list[Deployment]:
        """The deployed apps."""
        return list(self._host.deployments.values()) if self._host else []

    async def start(self) -> None:
        """Open the log, deploy the apps, and take webhooks. What has been started is stopped again on an error."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        settings = self.settings
        data_dir = settings.data_dir.resolve()
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            self._exits.callback(data_lock(data_dir))
        except OSError as error:
            raise FileWriteError(data_dir, error.strerror or str(error), "name another folder with --data") from error
        log: Log = await asyncio.to_thread(open_log, settings.url, runtime=self._runtime)
        self._exits.push_async_callback(asyncio.to_thread, log.close)
        runner = settings.runner
        if settings.url.startswith("kafka://"):
            shards = await asyncio.to_thread(agree_on_shards, log, runner.shards_shared)
            runner = replace(runner, shards=shards)
        gateway = self._gateway = Gateway(log, runtime=self._runtime, settings=settings.gateway)
        files = SnapshotFiles(settings.location, data_dir / "lake-cache", self._runtime.clock)
        host = self._host = Host(
            log,
            data_dir=data_dir,
            runtime=self._runtime,
            settings=runner,
            respond=gateway.respond,
            failed=self._failed,
            fetch=files.fetch,
            lake_dir=files.root,
            staging=StagingArea(data_dir / "staging", settings.location),
        )
        if self._listener is not None:
            host.journal.listen(self._listener)
        await host.start()
        self._exits.push_async_callback(host.stop)
        self._control = ControlLog(log, self._runtime)
        await self.load()
        keeper = self._keeper = Keeper(log, self._snapshotter_settings)
        self._exits.push_async_callback(keeper.close)
        await self._serve(log, gateway, host, LakeStatus(log, keeper, self._snapshotter_settings))
        keeper.start()
        following = asyncio.ensure_future(self._follow(log))
        self._exits.push_async_callback(_end, following)

    async def load(self) -> None:
        """Read the apps' folders again, and deploy what is there now.

        Raises:
            NoGraphError, SameSlugError, DoubleWebhookError, AppTooLargeError, EnvironmentBuildError: rejected; what was
                deployed before goes on.
        """
        assert self._control is not None and self._host is not None
        control, apps = self._control, [await asyncio.to_thread(usable_app, folder) for folder in self.settings.apps]
        different(apps)
        webhook_routes(apps)
        async with self._deploying:
            await self._host.prepare(apps)
            deployed = {}
            for app in apps:
                outcome = await asyncio.to_thread(control.deploy, app, whoami())
                event = outcome.event
                deployed[app.slug] = DeployedApp(version=event.version, content=event.content, app=app)
            await self._run(deployed)
        self.apps = apps

    async def _run(self, apps: Mapping[str, DeployedApp]) -> None:
        """Have the host run these, and the gateway take their posts."""
        assert self._host is not None and self._gateway is not None
        data_dir = self.settings.data_dir.resolve()
        deployments = []
        for each in apps.values():
            folder = await asyncio.to_thread(place_files, each.app, data_dir / "apps", self._runtime)
            deployments.append(deploy(each.app, folder, self.settings.runner, each.version))
        routes = webhook_routes(each.app for each in apps.values())
        await self._host.deploy(deployments)
        self._gateway.set_routes(routes)
        self._deployed = dict(apps)
        if self._keeper is not None:
            self._keeper.tell()

    async def _follow(self, log: Log) -> None:
        """Take over what others deploy, roll back or take away of our apps while we run."""
        own = set(self._deployed)
        async with contextlib.aclosing(follow_deployments(log, self._runtime)) as changes:
            async for apps in changes:
                async with self._deploying:
                    await self._take_over({slug: self._newer(slug, apps[slug]) for slug in apps if slug in own})

    async def _take_over(self, apps: Mapping[str, DeployedApp]) -> None:
        if {slug: app.version for slug, app in apps.items()} == {s: app.version for s, app in self._deployed.items()}:
            return
        try:
            await self._run(apps)
        except RejectedError as error:
            _log.warning("what was deployed cannot run beside the rest, which goes on: %s", error)

    def _newer(self, slug: str, app: DeployedApp) -> DeployedApp:
        """Of a follower's version and ours the later one: it may tell of what was before our last deployment."""
        ours = self._deployed.get(slug)
        return ours if ours is not None and ours.version > app.version else app

    def _snapshotter_settings(self) -> SnapshotterSettings:
        settings = SnapshotterSettings(
            log_url=self.settings.url,
            lake_url=self.settings.lake,
            staging_dir=str(self.settings.data_dir.resolve() / "staging"),
            retention=self.settings.retention,
        )
        settings = following(settings, (deployment.app for deployment in self.deployments))
        freshness = [wish.freshness for wish in settings.tables.values()]
        hurried = any(each is not None and each < _START for each in freshness)
        return replace(settings, idle_exit=None) if hurried else settings

    async def stop(self) -> None:
        """Answer what was accepted, commit what ended, and let go of everything; within 5 s."""
        await self._exits.aclose()

    async def _serve(self, log: Log, gateway: Gateway, host: Host, lake: LakeStatus) -> None:
        settings = self.settings
        token = secrets.token_urlsafe(32)
        app = gateway.new_app()
        ops = Ops(gateway, log)
        ops.add_to(app)
        if settings.ops_port is not None:
            ops_door, self.ops_port = await ops.open_door("127.0.0.1", settings.ops_port)
            self._exits.push_async_callback(ops_door.close)
        view = HostView(
            host,
            "",
            {
                "log": settings.shown_url,
                "lake": settings.lake,
                "data": str(settings.data_dir.resolve()),
                "pid": os.getpid(),
            },
        )
        webhooks = GatewayView(gateway, log)
        webhooks.start()
        self._exits.push_async_callback(webhooks.close)
        LocalApi(view, lake, webhooks, token=token).add_to(app)
        door = Door(app, connections_max=settings.gateway.connections_max, stop_timeout_s=1.0, ahead=gateway.ahead_of)
        self._exits.push_async_callback(door.close)
        try:
            self.port = await door.open(settings.host, settings.port)
        except PortTakenError as error:
            raise PortInUseError(settings.host, settings.port, error.why) from error
        view.base_url = self.base_url
        contact = self.settings.data_dir.resolve() / CONTACT_FILE
        _write_secretly(contact, orjson.dumps({"url": self.base_url, "token": token, "pid": os.getpid()}))
        self._exits.callback(lambda: contact.unlink(missing_ok=True))

    def _failed(self, error: BaseException) -> None:
        if not self.failure.done():
            self.failure.set_result(error)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def data_lock(data_dir: Path) -> Callable[[], None]:
    """Take the data folder for this process alone; returns how to let go of it. Raises AlreadyUpError."""
    release = take_folder(data_dir)
    if release is None:
        raise AlreadyUpError(data_dir)
    return release


def _write_secretly(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, data)
    finally:
        os.close(handle)
