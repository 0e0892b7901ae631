"""Bounds of one gateway, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

from tailrace.errors import SettingError
from tailrace.gateway.bodies import BodyLimits

__all__ = ["GatewaySettings", "ProcessSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings(BodyLimits):
    """Bounds of one gateway, those of a body among them."""

    bodies_bytes_max: int = 64 << 20
    """Most bytes of bodies in memory at once, from their first byte to the log's answer; past it 503. One body may
    be over it when it is alone."""

    body_timeout: timedelta = timedelta(seconds=20)
    """Longest from a request's head to the end of its body; then 408. A sender on a bad line needs some seconds;
    one that dribbles on purpose holds a connection and memory for so long."""

    idle_timeout: timedelta = timedelta(seconds=60)
    """Longest that a connection may be without a whole request head; then it is closed. Load balancers keep idle
    connections for about so long; a sender that dribbles its head is cut off by it, too."""

    connections_max: int = 10_000
    """Most connections of one process; past it they are told 503 and closed. An idle one takes about 15 KB."""

    respond_timeout: timedelta = timedelta(seconds=30)
    """Longest that a request waits for a node's answer; then 504. Most senders give up after 30 s."""

    responses_waiting_max: int = 5_000
    """Most requests that wait for a node's answer; past it 503. Each holds a connection."""

    ids_max: int = 500_000
    """Most ids of posts that are remembered for one webhook, about 150 bytes each; the oldest are forgotten first, so
    past it the window is shorter than asked for."""

    refusals_max: int = 200
    """Most refused requests that are kept to be looked at."""

    refused_body_bytes: int = 0
    """How much of a refused body is kept with them. Bodies may hold what nobody here should read, so it is nothing
    unless somebody asks for it."""

    retry_after: timedelta = timedelta(seconds=2)
    """What a sender is told to wait when the log is away or busy."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies in front: what they say in `X-Forwarded-For` counts for `allow_ips`. Anybody
    else could say anything there."""

    def __post_init__(self) -> None:
        BodyLimits.__post_init__(self)  # the short form of super() does not find a class with slots
        for name in ("bodies_bytes_max", "connections_max", "responses_waiting_max", "ids_max"):
            if getattr(self, name) < 1:
                raise SettingError(name, getattr(self, name), "at least 1")
        for name in ("body_timeout", "idle_timeout", "respond_timeout", "retry_after"):
            if getattr(self, name) <= timedelta(0):
                raise SettingError(name, getattr(self, name), "more than 0")
        for proxy in self.trusted_proxies:
            try:
                ip_network(proxy, strict=False)
            except ValueError:
                raise SettingError("trusted_proxies", proxy, "an address or a network") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """Where gateway processes of their own stand: `python -m tailrace.gateway`."""

    log_url: str
    """`--log`, `TAILRACE_LOG`."""

    routes: Path | None = None
    """`--routes`: a file of webhooks (`write_routes`) in place of those that are deployed; it is followed. For loads
    and tests, which need no app."""

    host: str = "127.0.0.1"
    """`--host`, `TAILRACE_HOST`."""

    port: int = 8700
    """`--port`, `TAILRACE_PORT`; 0: a free one."""

    ops_host: str = "127.0.0.1"
    """`--ops-host`, `TAILRACE_OPS_HOST`: address of `/healthz`, `/readyz` and `/metrics`. The metrics name topics, so it is not for all."""

    ops_port: int | None = None
    """`--ops-port`, `TAILRACE_OPS_PORT`; with several workers the first of as many. None: no metrics."""

    workers: int = 1
    """`--workers`, `TAILRACE_WORKERS`: processes on one port. Each takes a core when it is busy."""

    drain: timedelta = timedelta(0)
    """`--drain`, `TAILRACE_DRAIN` (seconds): from the stop signal, when `/readyz` turns, to the last connection that is taken. Behind a load balancer
    longer than it takes to ask twice."""

    stop_timeout: timedelta = timedelta(seconds=12)
    """Longest that a stop waits for requests under way. Longer than the log's `request_timeout`, so that each of them
    has its answer."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise SettingError("workers", self.workers, "at least 1")
        if self.drain < timedelta(0):
            raise SettingError("drain", self.drain, "not negative")
