"""`gateway-capacity`: what a gateway process keeps for connections that do nothing, and for requests that wait."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import tempfile
from pathlib import Path

import uvloop

from benchmarks.gateway import post_of, request, server
from benchmarks.houses import pss_bytes, rss_peak_bytes
from benchmarks.result import Result
from tailrace.gateway import WebhookRoute, write_routes
from tailrace.log import Log, Offset, Partition, TopicSpec, open_log
from tailrace.runner.answers import AnswerSender
from tailrace.runtime import SYSTEM
from tailrace.tables import Answer, split_head

__all__ = ["capacity"]

IDLE = 5_000
WAITING = 2_000
MEMORY_BYTES_WANTED = 400 << 20
POSTS = Partition("bench.posts")
ASKS = Partition("bench.asks")


def capacity(*, quick: bool) -> Result:
    """Idle connections that are kept alive, and requests that wait for a node, in one process."""
    share = 10 if quick else 1
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as exits:
        url = f"sqlite:///{name}/tailrace.db"
        log = open_log(url)
        exits.callback(log.close)
        log.create_topics([TopicSpec(POSTS.topic), TopicSpec(ASKS.topic)])
        routes = Path(name) / "gateway.json"
        write_routes(
            routes,
            {
                "posts": WebhookRoute(webhook="posts", topic=POSTS.topic),
                "asks": WebhookRoute(webhook="asks", topic=ASKS.topic, respond=True),
            },
        )
        gateway = ["-m", "tailrace.gateway", "--log", url, "--routes", str(routes), "--port", "0"]
        port, pid = exits.enter_context(server(gateway))
        before_bytes = pss_bytes(pid)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            idle_bytes, waiting_bytes = runner.run(_fill(log, port, pid, IDLE // share, WAITING // share))
        peak_bytes = rss_peak_bytes(pid)
    return Result(
        name="gateway-capacity",
        value=peak_bytes / (1 << 20),
        unit="MB",
        baseline=MEMORY_BYTES_WANTED / (1 << 20),
        what=f"highest resident memory with {IDLE // share:,} idle connections and {WAITING // share:,} waiting requests",
        against="the bound",
        wanted="400 MB, every request answered",
        met=peak_bytes <= MEMORY_BYTES_WANTED,
        extra={
            "at_rest_mb": round(before_bytes / (1 << 20)),
            "idle_connection_kb": round((idle_bytes - before_bytes) / (IDLE // share) / 1024, 1),
            "waiting_request_kb": round((waiting_bytes - idle_bytes) / (WAITING // share) / 1024, 1),
        },
    )


async def _fill(log: Log, port: int, pid: int, idle: int, waiting: int) -> tuple[int, int]:
    """Memory with the idle connections, and with the waiting requests as well; all of them are answered at the end."""
    kept = [await _posted(port, number) for number in range(idle)]
    idle_bytes = pss_bytes(pid)
    asking = []
    for number in range(waiting):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(post_of(number), "asks"))
        asking.append((reader, writer))
    keys = await asyncio.to_thread(_keys, log, waiting)
    waiting_bytes = pss_bytes(pid)
    sender = AnswerSender(log, SYSTEM.clock, asyncio.to_thread)
    await asyncio.gather(*(sender.send("bench", Answer(key=key, payload={"ok": True})) for key in keys))
    for reader, _ in asking:
        assert (await asyncio.wait_for(reader.readline(), 60)).startswith(b"HTTP/1.1 200")
    await sender.close()
    for _, writer in (*kept, *asking):
        writer.close()
    return idle_bytes, waiting_bytes


async def _posted(port: int, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has posted once, and is kept."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request(post_of(number), "posts"))
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    return reader, writer


def _keys(log: Log, count: int) -> list[str]:
    """The keys of so many requests, once all of them are in the log."""
    keys: list[str] = []
    offset = Offset(0)
    while len(keys) < count:
        batch = log.read(ASKS, offset)
        keys += [split_head(record.value)["request_key"] for record in batch.records]
        offset = batch.next
    return keys
