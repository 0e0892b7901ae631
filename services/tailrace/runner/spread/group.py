"""Membership in the group of runners, and how each node's last run went: a Faust app, and the only user of Faust.

Faust joins the group that shares the partitions of `tailrace._slots`, keeps the table of the statuses that are written
to that topic, and serves it with the runner's other pages. No record of any Table comes near it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias, cast

import faust
import orjson
from yarl import URL

from tailrace.errors import FatalError
from tailrace.log.kafka import KafkaUrl
from tailrace.runner.slots import SLOTS_TOPIC

__all__ = ["GROUP", "STATUS_TOPIC", "Group", "GroupSettings", "Page", "RunnerPortError"]

GROUP = "tailrace-runners"
"""Id of the consumer group: any Kafka tool shows who is in it, and which shards each has."""

STATUS_TOPIC = "tailrace._status"
"""Changelog of the table of statuses: compacted, with as many partitions as there are shards."""

Page: TypeAlias = Callable[[], tuple[int, str, bytes]]
"""Gives status, content type and body of a page."""

_HEARTBEATS = 6
"""Heartbeats in a session time-out, at least one a second: with the next one a member hears of a rebalance."""


class RunnerPortError(FatalError):
    """The runner's port is taken."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        super().__init__(f"port {port} of {host} is in use: stop what listens there, or choose another with --port")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSettings:
    """What a member of the group needs to know."""

    log_url: str
    host: str
    port: int
    data_dir: Path
    shards: int
    session_timeout: timedelta


class Group:
    """One runner's membership. It is told of on the event loop that called `start`.

    Args:
        assigned: called with all shards of this runner after each rebalance.
        revoked: called when a rebalance begins.
        pages: what is served besides `/status`, by path.
    """

    def __init__(
        self,
        settings: GroupSettings,
        assigned: Callable[[frozenset[int]], None],
        revoked: Callable[[], None],
        pages: Mapping[str, Page],
    ) -> None:
        self._settings = settings
        self.port = settings.port or _free_port(settings.host)
        """Where the pages are served."""
        url = KafkaUrl.parse(settings.log_url)
        session_s = settings.session_timeout.total_seconds()
        self._app = app = faust.App(
            GROUP,
            broker=[URL(f"kafka://{server}") for server in url.servers.split(",")],
            broker_credentials=_credentials(url),
            broker_session_timeout=session_s,
            broker_heartbeat_interval=min(1.0, session_s / _HEARTBEATS),
            broker_rebalance_timeout=session_s,
            broker_request_timeout=max(40.0, 2 * session_s),
            store=URL("memory://"),
            datadir=settings.data_dir / "faust",
            autodiscover=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            stream_wait_empty=False,
            web_bind=settings.host,
            web_host=settings.host,
            web_port=self.port,
        )
        shards = settings.shards
        topic = app.topic(SLOTS_TOPIC, partitions=shards, key_type=str, value_serializer="json")
        changelog = app.topic(  # Faust's tables write keys as JSON
            STATUS_TOPIC,
            partitions=shards,
            compacting=True,
            key_type=str,
            key_serializer="json",
            value_serializer="json",
        )
        table = self._table = app.Table("status", partitions=shards, changelog_topic=changelog, key_type=str)

        async def keep_statuses(stream: Any) -> None:
            async for slot, status in stream.items():
                table[slot] = status

        async def on_assigned(_: Any, partitions: Any, **__: Any) -> None:
            assigned(frozenset(each.partition for each in partitions if each.topic == SLOTS_TOPIC))

        async def on_revoked(_: Any, partitions: Any, **__: Any) -> None:
            revoked()

        app.agent(topic, name="keep_statuses")(keep_statuses)
        app.on_partitions_assigned.connect(cast(Any, on_assigned), weak=False)
        app.on_partitions_revoked.connect(cast(Any, on_revoked), weak=False)
        for path, page in {**pages, "/status": self._status}.items():
            app.page(path, name=path)(_view(page))

    @property
    def failure(self) -> BaseException | None:
        """Why Faust gave up, if it did: it may also end without a word, when its thread dies with a broker."""
        if self._app.crashed:
            return self._app.crash_reason
        return RuntimeError("it stopped by itself") if self._app.should_stop else None

    async def start(self) -> None:
        """Join. Raises `RunnerPortError` (fatal)."""
        try:
            await self._app.start()
        except OSError as error:
            raise RunnerPortError(self._settings.host, self.port) from error

    async def stop(self) -> None:
        """Leave: the others get our shards at once."""
        await self._app.stop()

    def _status(self) -> tuple[int, str, bytes]:
        return 200, "application/json", orjson.dumps(dict(self._table.items()))


def _free_port(host: str) -> int:
    """One that nobody listens on at this moment: Faust takes no 0."""
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])


def _view(page: Page) -> Any:
    async def view(web: Any, request: Any) -> Any:
        status, content_type, body = page()
        return web.bytes(body, content_type=content_type, status=status)

    return view


def _credentials(url: KafkaUrl) -> Any:
    """librdkafka's settings of the log's URL, as Faust wants them; None where there are none."""
    settings, context = url.settings, url.ssl_context()
    if settings.get("security.protocol", "").lower().startswith("sasl"):
        return faust.SASLCredentials(
            username=settings.get("sasl.username"),
            password=settings.get("sasl.password"),
            mechanism=settings.get("sasl.mechanism", settings.get("sasl.mechanisms", "PLAIN")),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None
