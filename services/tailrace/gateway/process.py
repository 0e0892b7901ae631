"""One gateway process, from its start to a stop that answers all it accepted; and several of them on one port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path

from tailrace.control import follow_deployments
from tailrace.errors import RetriableError
from tailrace.gateway.access import AccessLog
from tailrace.gateway.app import Gateway
from tailrace.gateway.ops import Ops
from tailrace.gateway.route import WebhookRoute
from tailrace.gateway.routes import RoutesFile, RoutesFileError
from tailrace.gateway.routing import DoubleWebhookError, webhook_routes
from tailrace.gateway.server import Door, bound_socket
from tailrace.gateway.settings import GatewaySettings, ProcessSettings
from tailrace.log import Log, TopicSpec, open_log
from tailrace.process import settle_memory
from tailrace.runtime import Runtime

__all__ = ["run_one", "run_workers"]

_LOGGER = logging.getLogger("tailrace.gateway")

_ROUTES_ASKED_EVERY_S = 1.0
_RESTART_PAUSE_S = 1.0


async def run_one(settings: ProcessSettings, limits: GatewaySettings, runtime: Runtime) -> None:
    """Serve until SIGTERM or SIGINT.

     1. `/readyz` says no, for `drain`: load balancers send their posts elsewhere; what comes all the same is taken.
     2. No more connections; requests under way are answered, and what waits for the log is written.
     3. The log is closed.

    Raises PortTakenError, RoutesFileError and what opening the log raises.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with contextlib.AsyncExitStack() as exits:
        log = await asyncio.to_thread(open_log, settings.log_url, runtime=runtime)
        exits.push_async_callback(asyncio.to_thread, log.close)
        gateway = Gateway(log, runtime=runtime, settings=limits, access=AccessLog(runtime.clock))
        routes = await _first_routes(exits, settings, log, runtime, gateway)
        ops = Ops(gateway, log)
        app = gateway.new_app()
        ops.add_to(app)
        timeout_s = settings.stop_timeout.total_seconds()
        if settings.ops_port is not None:
            ops_door, _ = await ops.open_door(settings.ops_host, settings.ops_port)
            exits.push_async_callback(ops_door.close)
        door = Door(app, connections_max=limits.connections_max, stop_timeout_s=timeout_s, ahead=gateway.ahead_of)
        exits.push_async_callback(door.close)
        port = await door.open(settings.host, settings.port, shared=True)
        following = asyncio.ensure_future(_follow(routes, gateway))
        exits.push_async_callback(_end, following)
        settle_memory()
        print(f"listening on {settings.host}:{port}", flush=True)
        await stop.wait()
        gateway.draining = True
        await asyncio.sleep(settings.drain.total_seconds())


Routes = AsyncGenerator[Mapping[str, WebhookRoute], None]


async def _first_routes(
    exits: contextlib.AsyncExitStack, settings: ProcessSettings, log: Log, runtime: Runtime, gateway: Gateway
) -> Routes:
    """Set the routes of now, so that the first post finds them; returns those that come."""
    routes = _of_file(settings.routes) if settings.routes is not None else _of_deployments(log, runtime)
    exits.push_async_callback(routes.aclose)
    gateway.set_routes(await anext(routes))
    return routes


async def _follow(routes: Routes, gateway: Gateway) -> None:
    async for each in routes:
        gateway.set_routes(each)
        _LOGGER.info("%d webhooks", len(each))


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _of_deployments(log: Log, runtime: Runtime) -> Routes:
    """The webhooks of the apps that are deployed; their topics are there before they are."""
    last: Mapping[str, WebhookRoute] | None = None
    async with contextlib.aclosing(follow_deployments(log, runtime)) as changes:
        async for apps in changes:
            try:
                routes = webhook_routes(each.app for each in apps.values())
            except DoubleWebhookError as error:
                _LOGGER.error("the webhooks stay what they were: %s", error)
                if last is None:
                    last = {}
                    yield last
                continue
            if routes != last:
                await _make_topics(log, routes)
                last = routes
                yield routes


async def _make_topics(log: Log, routes: Mapping[str, WebhookRoute]) -> None:
    others = {rule.topic for route in routes.values() for rule in route.rules if rule.topic is not None}
    wanted = {topic: TopicSpec(topic) for topic in others}
    wanted |= {route.topic: TopicSpec(route.topic, route.partitions) for route in routes.values()}
    while True:
        try:
            await asyncio.to_thread(log.create_topics, list(wanted.values()))
            return
        except RetriableError as error:
            _LOGGER.warning("%s; trying again", error)
            await asyncio.sleep(_ROUTES_ASKED_EVERY_S)


async def _of_file(path: Path) -> Routes:
    """The webhooks of a file, now and whenever it is written anew."""
    file = RoutesFile(path)
    routes = file.news()
    assert routes is not None, "the first look gives all"
    yield routes
    while True:
        await asyncio.sleep(_ROUTES_ASKED_EVERY_S)
        try:
            routes = file.news()
        except RoutesFileError as error:
            _LOGGER.warning("the webhooks stay what they were: %s", error)
            continue
        if routes is not None:
            yield routes


async def run_workers(settings: ProcessSettings, arguments: Sequence[str]) -> None:
    """Run `settings.workers` processes on one port until SIGTERM or SIGINT; one that ends is started again.

    Raises PortTakenError.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Bound and never listened on: it keeps the port ours while workers come and go, and gets no connections.
    with bound_socket(settings.host, settings.port, shared=True) as keeper:
        port = int(keeper.getsockname()[1])
        tasks = []
        for index in range(settings.workers):
            own = [*arguments, "--workers", "1", "--port", str(port)]
            if settings.ops_port is not None:
                own += ["--ops-port", str(settings.ops_port + index if settings.ops_port else 0)]
            tasks.append(asyncio.create_task(_keep_running(own, stop)))
        await stop.wait()
        await asyncio.gather(*tasks)


async def _keep_running(arguments: Sequence[str], stop: asyncio.Event) -> None:
    while not stop.is_set():
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tailrace.gateway", *arguments)
        ended = asyncio.ensure_future(process.wait())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            process.terminate()
        status = await ended
        if not stopped.done():
            stopped.cancel()
            _LOGGER.error("a worker ended with status %d; another one is started", status)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RESTART_PAUSE_S):
                    await stop.wait()
