"""Everything on one machine in one process tree: gateway, runner and the local HTTP interface over one log."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import orjson

from tailrace.api import LocalApi
from tailrace.cli.apps import usable_app
from tailrace.cli.keeper import Keeper
from tailrace.cli.lakeview import LakeStatus
from tailrace.errors import FatalError, RejectedError
from tailrace.gateway import (
    Door,
    Gateway,
    GatewaySettings,
    GatewayView,
    Ops,
    PortTakenError,
    WebhookRoute,
    webhook_route,
    write_routes,
)
from tailrace.graph import App
from tailrace.lake import LakeLocation, SnapshotFiles
from tailrace.log import Log, open_log
from tailrace.runner import Deployment, Entry, Host, HostView, RunnerSettings, copy_files, deploy
from tailrace.runtime import Runtime
from tailrace.snapshotter import SnapshotterSettings, TableWish

__all__ = ["CONTACT_FILE", "AlreadyUpError", "House", "HouseSettings", "PortInUseError"]

ROUTES_FILE = "gateway.json"
"""Below the data folder: the webhooks, for gateway processes of their own (`python -m tailrace.gateway`)."""

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
    """The port is taken."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        super().__init__(f"port {port} of {host} is in use: stop what listens there, or choose another with --port")


@dataclass(frozen=True, slots=True, kw_only=True)
class HouseSettings:
    """Where a house stands."""

    apps: Sequence[Path] = ()
    data_dir: Path = Path(".tailrace")
    log_url: str | None = None
    """None: the embedded log in the data folder."""
    lake_url: str | None = None
    """None: the folder `lake` in the data folder."""
    host: str = "127.0.0.1"
    port: int = 8700
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
        self.failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._runtime = runtime
        self._listener = listener
        self._exits = contextlib.AsyncExitStack()
        self._host: Host | None = None
        self._gateway: Gateway | None = None
        self._keeper: Keeper | None = None

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
        data_dir.mkdir(parents=True, exist_ok=True)
        self._exits.callback(_lock(data_dir))
        log: Log = await asyncio.to_thread(open_log, settings.url, runtime=self._runtime)
        self._exits.push_async_callback(asyncio.to_thread, log.close)
        gateway = self._gateway = Gateway(log, runtime=self._runtime, settings=settings.gateway)
        host = self._host = Host(
            log,
            data_dir=data_dir,
            runtime=self._runtime,
            settings=settings.runner,
            respond=gateway.respond,
            failed=self._failed,
            fetch=SnapshotFiles(settings.location, data_dir / "lake-cache", self._runtime.clock).fetch,
        )
        if self._listener is not None:
            host.journal.listen(self._listener)
        await host.start()
        self._exits.push_async_callback(host.stop)
        await self.load()
        keeper = self._keeper = Keeper(log, self._snapshotter_settings)
        self._exits.push_async_callback(keeper.close)
        await self._serve(log, gateway, host, LakeStatus(log, keeper, self._snapshotter_settings))
        keeper.start()

    async def load(self) -> None:
        """Read the apps' folders again, and deploy what is there now.

        Raises:
            NoGraphError, SameSlugError, DoubleWebhookError: rejected; what was deployed before goes on.
        """
        assert self._host is not None and self._gateway is not None
        apps = [await asyncio.to_thread(usable_app, folder) for folder in self.settings.apps]
        _different(apps)
        deployments = []
        for app in apps:
            folder = await asyncio.to_thread(copy_files, app, self.settings.data_dir.resolve() / "apps")
            deployments.append(deploy(app, folder, self.settings.runner))
        routes: dict[str, WebhookRoute] = {}
        for deployment in deployments:
            for name, (node, table) in deployment.webhooks.items():
                if name in routes:
                    raise DoubleWebhookError(name)
                route, _ = webhook_route(deployment.app, node)
                assert route is not None and route.topic == table.topic, "it has a table"
                routes[name] = route
        await self._host.deploy(deployments)
        self._gateway.set_routes(routes)
        await asyncio.to_thread(write_routes, self.settings.data_dir.resolve() / ROUTES_FILE, routes)
        self.apps = apps
        if self._keeper is not None:
            self._keeper.tell()

    def _snapshotter_settings(self) -> SnapshotterSettings:
        tables: dict[str, TableWish] = {}
        for deployment in self.deployments:
            for topic, table in deployment.tables.items():
                store = table.store
                wish = TableWish(
                    name=store.name,
                    freshness=_duration(store.freshness_s),
                    retention=_duration(store.retention_s or deployment.app.retention_s),
                )
                tables[topic] = wish
                tables[table.dead_letters] = replace(wish, name=f"{store.name}_dead_letters")
        hurried = any(wish.freshness is not None and wish.freshness < _START for wish in tables.values())
        settings = SnapshotterSettings(
            log_url=self.settings.url,
            lake_url=self.settings.lake,
            staging_dir=str(self.settings.data_dir.resolve() / "staging"),
            graphs=tuple(deployment.graph for deployment in self.deployments),
            tables=tables,
        )
        return replace(settings, idle_exit=None) if hurried else settings

    async def stop(self) -> None:
        """Answer what was accepted, commit what ended, and let go of everything; within 5 s."""
        await self._exits.aclose()

    async def _serve(self, log: Log, gateway: Gateway, host: Host, lake: LakeStatus) -> None:
        settings = self.settings
        token = secrets.token_urlsafe(32)
        app = gateway.new_app()
        Ops(gateway, log).add_to(app)
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
        door = Door(app, connections_max=settings.gateway.connections_max, stop_timeout_s=1.0)
        self._exits.push_async_callback(door.close)
        try:
            self.port = await door.open(settings.host, settings.port)
        except PortTakenError as error:
            raise PortInUseError(settings.host, settings.port) from error
        view.base_url = self.base_url
        contact = self.settings.data_dir.resolve() / CONTACT_FILE
        _write_secretly(contact, orjson.dumps({"url": self.base_url, "token": token, "pid": os.getpid()}))
        self._exits.callback(lambda: contact.unlink(missing_ok=True))

    def _failed(self, error: BaseException) -> None:
        if not self.failure.done():
            self.failure.set_result(error)


class DoubleWebhookError(RejectedError):
    """Two deployed webhooks have the same id, so they would have the same URL."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"two webhooks have the id {name!r}: give one of them another id in its graph.yml")


class SameSlugError(RejectedError):
    """Two deployed apps have the same slug, so they would share topics."""

    def __init__(self, slug: str) -> None:
        self.slug = slug
        super().__init__(f"two apps have the slug {slug!r}: give one of them another `slug:` in its graph.yml")


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _different(apps: Sequence[App]) -> None:
    seen: set[str] = set()
    for app in apps:
        if app.slug in seen:
            raise SameSlugError(app.slug)
        seen.add(app.slug)


def _lock(data_dir: Path) -> Callable[[], None]:
    handle = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise AlreadyUpError(data_dir) from error
    return lambda: os.close(handle)


def _write_secretly(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(handle, data)
    finally:
        os.close(handle)
