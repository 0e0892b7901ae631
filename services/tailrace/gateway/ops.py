"""`/healthz`, `/readyz` and `/metrics`: what orchestrators, load balancers and Prometheus ask."""

from __future__ import annotations

import asyncio

from aiohttp import web

from tailrace.errors import TailraceError
from tailrace.gateway.app import Gateway
from tailrace.gateway.server import Door
from tailrace.log import Log

__all__ = ["Ops"]

_LOG_ASKED_EVERY_S = 1.0
_LOG_TIMEOUT_S = 2.0
_OPS_CONNECTIONS_MAX = 100
"""More than all that scrape and probe."""


class Ops:
    """The routes for those who run a gateway."""

    def __init__(self, gateway: Gateway, log: Log) -> None:
        self._gateway, self._log = gateway, log
        self._trouble: str | None = None
        self._asked_s = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    def add_to(self, app: web.Application) -> None:
        """Add the probes, which tell nothing that a stranger may not know."""
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)

    async def open_door(self, host: str, port: int) -> tuple[Door, int]:
        """Serve the probes and the metrics, which name topics, on an address that only the operator reaches; and its port.

        Raises PortTakenError.
        """
        app = web.Application()
        self.add_to(app)
        app.router.add_get("/metrics", self._metrics)
        door = Door(app, connections_max=_OPS_CONNECTIONS_MAX, stop_timeout_s=1.0)
        return door, await door.open(host, port)

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._gateway.draining:
            return web.Response(status=503, text="it stops soon\n")
        await self._ask_log()
        if self._trouble is not None:
            return web.Response(status=503, text=f"the log does not answer: {self._trouble}\n")
        return web.Response(text="ok\n")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._gateway.metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    async def _ask_log(self) -> None:
        """Find out whether the log answers, at most once in a second, whoever asks."""
        loop = asyncio.get_running_loop()
        if self._asking is None and loop.time() - self._asked_s >= _LOG_ASKED_EVERY_S:
            self._asking = asyncio.ensure_future(self._hear_log())
        if self._asking is not None:
            await asyncio.shield(self._asking)

    async def _hear_log(self) -> None:
        try:
            async with asyncio.timeout(_LOG_TIMEOUT_S):
                await asyncio.to_thread(self._log.topics, "_")
            self._trouble = None
        except TimeoutError:
            self._trouble = f"nothing within {_LOG_TIMEOUT_S:g} s"
        except TailraceError as error:
            self._trouble = str(error)
        finally:
            self._asked_s = asyncio.get_running_loop().time()
            self._asking = None


CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format."""
