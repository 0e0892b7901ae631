"""A gateway's door: listening, perhaps beside others on one port, and closing without losing what was accepted."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TypeAlias, cast

from aiohttp import web

from tailrace.errors import FatalError

__all__ = ["Door", "PortTakenError", "bound_socket"]

Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""What aiohttp's server calls for each request."""

_BACKLOG = 1_024
"""Connections that the kernel keeps until the loop takes them; a burst of new ones fits, a flood is refused early."""

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b'Content-Length: 44\r\n\r\n{"detail": "too many connections are open"}\n'
)


class PortTakenError(FatalError):
    """The address cannot be listened on."""

    def __init__(self, host: str, port: int, why: str) -> None:
        self.host, self.port, self.why = host, port, why
        super().__init__(
            f"{host}:{port} cannot be listened on ({why}): stop what listens there, or choose another port"
        )


class Door:
    """Serves one application on one address.

    Args:
        connections_max: connections past it are told 503 and closed.
        stop_timeout_s: longest that `close` waits for requests that are under way.
        ahead: given the application's handler, a handler that may take requests before it.
    """

    def __init__(
        self,
        app: web.Application,
        *,
        connections_max: int,
        stop_timeout_s: float,
        ahead: Callable[[Handler], Handler] | None = None,
    ) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=stop_timeout_s)
        self._connections_max = connections_max
        self._ahead = ahead
        self._server: asyncio.AbstractServer | None = None

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        server = self._runner.server
        return len(server.connections) if server is not None else 0

    async def open(self, host: str, port: int, *, shared: bool = False) -> int:
        """Listen; returns the port, which is a free one where 0 was asked for. `shared`: others may listen there too.

        Raises PortTakenError.
        """
        sock = bound_socket(host, port, shared=shared)
        try:
            await self._runner.setup()
            if self._ahead is not None and (server := self._runner.server) is not None:
                server.request_handler = self._ahead(server.request_handler)
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._visitor, sock=sock, backlog=_BACKLOG)
        except BaseException:
            sock.close()
            raise
        return int(sock.getsockname()[1])

    async def close(self) -> None:
        """Take no more connections, answer what is under way, close the rest, and end the application."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def _visitor(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None or len(server.connections) >= self._connections_max:
            return _Full()
        return server()


class _Full(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(_FULL)  # uvloop's are none by name
        transport.close()


def bound_socket(host: str, port: int, *, shared: bool) -> socket.socket:
    """A socket that has the address. `shared`: other processes of this user may bind it, too (SO_REUSEPORT)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setblocking(False)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise PortTakenError(host, port, error.strerror or str(error)) from error
    return sock
