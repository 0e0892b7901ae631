"""A gateway's door: how many connections it lets in, how long it waits for their heads, and what it says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tailrace.gateway import Door, Gateway, GatewaySettings, Ops, PortTakenError, WebhookRoute
from tailrace.log import Log, TopicSpec, open_log
from tailrace.runtime import SYSTEM

POST = b"POST /webhooks/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
SETTINGS = GatewaySettings(idle_timeout=timedelta(milliseconds=200), connections_max=3)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = open_log(f"sqlite:///{tmp_path / 'log.db'}")
    log.create_topics([TopicSpec("shop.orders")])
    yield log
    log.close()


@pytest.fixture
async def gateway(log: Log) -> Gateway:
    gateway = Gateway(log, runtime=SYSTEM, settings=SETTINGS)
    gateway.set_routes({"orders": WebhookRoute(webhook="orders", topic="shop.orders")})
    return gateway


@pytest.fixture
async def port(gateway: Gateway, log: Log) -> AsyncIterator[int]:
    app = gateway.new_app()
    Ops(gateway, log).add_to(app)
    door = Door(app, connections_max=SETTINGS.connections_max, stop_timeout_s=5)
    yield await door.open("127.0.0.1", 0)
    await door.close()
    assert door.connections == 0


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return answer


async def test_connections_past_the_limit_are_told_to_come_later(port: int) -> None:
    """Those that are in go on; when one leaves, another may come."""
    inside = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    for reader, writer in inside:
        writer.write(POST)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    refused = await reader.read()
    assert refused.startswith(b"HTTP/1.1 503")
    assert b"Retry-After" in refused
    head, _, body = refused.partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
    writer.close()
    for _, other in inside:
        other.close()
    async with asyncio.timeout(10):
        while not (await ask(port, POST)).startswith(b"HTTP/1.1 200"):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("start", [b"", b"POST /webhooks/orders HTTP/1.1\r\nX-Slow: "])
async def test_a_head_that_does_not_come_ends_the_connection(port: int, start: bytes) -> None:
    """Also where some bytes of it come all the time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(start)
    dribbling = asyncio.create_task(dribble(writer)) if start else None
    assert await asyncio.wait_for(reader.read(), 10) == b""
    if dribbling is not None:
        dribbling.cancel()
    writer.close()


async def dribble(writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():
        writer.write(b"x")
        await asyncio.sleep(0.02)


async def test_readiness_follows_the_log_and_the_stop(gateway: Gateway, log: Log, port: int) -> None:
    """A load balancer is told before posts are refused; the process lives all the while."""
    assert (await ask(port, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200")
    gateway.draining = True
    assert (await ask(port, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 503")
    post = await ask(port, POST)
    assert post.startswith(b"HTTP/1.1 200")
    assert b"Connection: close" in post
    gateway.draining = False
    log.close()
    async with asyncio.timeout(10):
        while not (await ask(port, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 503"):
            await asyncio.sleep(0.05)
    assert (await ask(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_an_empty_answer_is_whole_http(port: int) -> None:
    """It has its length and date, keeps the connection or ends it as was asked, and pipelined posts have one each."""
    head = await ask(port, POST)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 0\r\n" in head
    assert b"GMT\r\n" in head
    assert b"Connection" not in head
    for request in (POST.replace(b"HTTP/1.1", b"HTTP/1.0"), POST.replace(b"Host: x", b"Connection: close\r\nHost: x")):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        assert b" 200 OK\r\n" in await asyncio.wait_for(reader.read(), 10)  # to its end
        writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(POST * 5)
    for _ in range(5):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_taken_port_is_told(gateway: Gateway, port: int) -> None:
    door = Door(gateway.new_app(), connections_max=1, stop_timeout_s=1)
    with pytest.raises(PortTakenError, match="cannot be listened on"):
        await door.open("127.0.0.1", port)
    await door.close()
