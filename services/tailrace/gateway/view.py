"""The gateway as the local HTTP interface shows it: webhooks with their counts, what was refused, what was posted."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from typing import Any

import orjson

from tailrace.errors import RejectedError
from tailrace.gateway.app import Gateway
from tailrace.log import Log, Offset, Partition, Record, scan
from tailrace.tables import split_head

__all__ = ["GatewayView", "UnknownWebhookError"]

_SAMPLE_EVERY_S = 5.0
_SAMPLES = 13
_CHUNK_OFFSETS = 1_000
_LAST_MAX = 10_000
"""Most posts that are looked up at once; they are in memory together."""


class UnknownWebhookError(RejectedError):
    """No webhook of that id is deployed."""

    def __init__(self, webhook: str) -> None:
        self.webhook = webhook
        super().__init__(f"there is no webhook {webhook!r}; `tailrace webhooks` lists them")


class GatewayView:
    """What a gateway of this process knows."""

    def __init__(self, gateway: Gateway, log: Log) -> None:
        self._gateway, self._log = gateway, log
        self._samples: deque[Mapping[str, int]] = deque(maxlen=_SAMPLES)
        self._sampling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to count by the minute."""
        self._sampling = asyncio.ensure_future(self._sample())

    async def close(self) -> None:
        """Stop counting."""
        if self._sampling is not None:
            self._sampling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sampling

    async def _sample(self) -> None:
        while True:
            self._samples.append({name: each.accepted for name, each in self._gateway.metrics.webhooks.items()})
            await asyncio.sleep(_SAMPLE_EVERY_S)

    def webhooks(self) -> list[dict[str, Any]]:
        """Each webhook: how it is checked, what it took, and what it refused last."""
        found = []
        oldest = self._samples[0] if self._samples else {}
        for name, route in self._gateway.routes.items():
            counts = self._gateway.metrics.webhooks.get(name)
            refusals = self._gateway.refusals.newest(name, 1)
            accepted = 0 if counts is None else counts.accepted
            found.append(
                {
                    "id": name,
                    "topic": route.topic,
                    "provider": route.provider,
                    "provider_settings": dict(route.provider_settings),
                    "secrets": list(route.secret_names),
                    "sender_url": route.url,
                    "shut": self._gateway.shut(name),
                    "accepted": accepted,
                    "accepted_last_minute": accepted - oldest.get(name, 0),
                    "rows": 0 if counts is None else counts.rows,
                    "refused": {} if counts is None else dict(counts.refused),
                    "last_accepted_ms": (counts.last_accepted_ms or None) if counts is not None else None,
                    "last_refusal": asdict(refusals[0]) if refusals else None,
                }
            )
        return found

    def refusals(self, webhook: str | None, last: int) -> list[dict[str, Any]]:
        """The newest refused requests, oldest first."""
        return [asdict(each) for each in self._gateway.refusals.newest(webhook, last)]

    async def posts(self, webhook: str, last: int, *, follow: bool) -> AsyncIterator[bytes]:
        """The newest posts, oldest first, a JSON object each, and then those that come.

        Raises:
            UnknownWebhookError: rejected.
        """
        route = self._gateway.routes.get(webhook)
        if route is None:
            raise UnknownWebhookError(webhook)
        positions: dict[Partition, Offset] = {}
        newest: list[tuple[int, bytes]] = []
        for partition in [Partition(route.topic, number) for number in range(route.partitions)]:
            found, positions[partition] = await asyncio.to_thread(self._newest, partition, min(last, _LAST_MAX))
            newest += found
        if len(positions) > 1:  # each is in order
            newest = sorted(newest, key=lambda each: each[0])[-last:] if last else []
        for _, post in newest:
            yield post
        if not follow:
            return
        watch = self._log.watch(list(positions))
        try:
            while True:
                for partition in await watch.wait():
                    found, positions[partition] = await asyncio.to_thread(self._since, partition, positions[partition])
                    for _, post in found:
                        yield post
        finally:
            watch.close()

    def _newest(self, partition: Partition, last: int) -> tuple[list[tuple[int, bytes]], Offset]:
        stop = end = self._log.ends([partition])[partition]
        begin = self._log.starts([partition])[partition]
        found: list[tuple[int, bytes]] = []
        while stop > begin and len(found) < last:
            start = Offset(max(begin, stop - _CHUNK_OFFSETS))
            records = (record for batch in scan(self._log, partition, start, stop) for record in batch.records)
            found = [*((record.ts_ms, post) for record in records if (post := _post(record)) is not None), *found]
            stop = start
        return found[-last:] if last else [], end

    def _since(self, partition: Partition, start: Offset) -> tuple[list[tuple[int, bytes]], Offset]:
        found: list[tuple[int, bytes]] = []
        for batch in scan(self._log, partition, start, self._log.ends([partition])[partition]):
            found += ((record.ts_ms, post) for record in batch.records if (post := _post(record)) is not None)
            start = batch.next
        return found, start


def _post(record: Record) -> bytes | None:
    """What was posted, as text that holds its very bytes; None for what did not come by a webhook."""
    value = record.value
    if value is None:
        return None
    head = split_head(value)
    if head.get("kind") == "webhook":
        body = value.partition(b',"rows":[')[2].removesuffix(b"]}")
        if head.get("n") != 1:
            body = b"[" + body + b"]"
        text = body.decode("utf-8", "replace")
    elif head.get("kind") == "rows" and "node" not in head:
        rows = [_unshaped(row) for row in orjson.loads(value)["rows"]]
        text = orjson.dumps(rows[0] if len(rows) == 1 else rows).decode()
    else:
        return None
    return orjson.dumps(
        {
            "offset": record.offset,
            "at_ms": head.get("ts", record.ts_ms),
            "id": head.get("id"),
            "rows": head.get("n"),
            "body": text,
        }
    )


def _unshaped(row: dict[str, Any]) -> Any:
    """The posted value of a row that a webhook's options have shaped."""
    if "record" in row:
        return row["record"]
    return {name: value for name, value in row.items() if name not in ("timestamp", "headers")}
