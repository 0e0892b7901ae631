"""Answers that travel by the log: they find the gateway that holds the request, and look as the node wants them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from tailrace.gateway import Gateway, GatewaySettings, WebhookRoute
from tailrace.gateway.answers import answer_response
from tailrace.log import Log, Partition, TopicSpec, open_log
from tailrace.runner.answers import AnswerSender
from tailrace.runtime import SYSTEM
from tailrace.tables import Answer, answer_message, answers_topic, read_answer, split_head

ASKS = Partition("shop.asks")
SETTINGS = GatewaySettings(respond_timeout=timedelta(seconds=10))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = open_log(f"sqlite:///{tmp_path / 'log.db'}")
    log.create_topics([TopicSpec(ASKS.topic)])
    yield log
    log.close()


@pytest.fixture
async def sender(log: Log) -> AsyncIterator[AnswerSender]:
    """What a host uses; on a handle of its own, as it is another process."""
    sender = AnswerSender(log, SYSTEM.clock, asyncio.to_thread)
    yield sender
    await sender.close()


@pytest.fixture
async def doors(log: Log) -> AsyncIterator[list[TestClient[web.Request, web.Application]]]:
    """Two gateways over one log."""
    clients = []
    for _ in range(2):
        gateway = Gateway(log, runtime=SYSTEM, settings=SETTINGS)
        gateway.set_routes({"asks": WebhookRoute(webhook="asks", topic=ASKS.topic, respond=True)})
        clients.append(TestClient(TestServer(gateway.new_app())))
        await clients[-1].start_server()
    yield clients
    for client in clients:
        await client.close()


async def asked(log: Log, count: int) -> dict[Any, str]:
    """What was posted, and its request key, once `count` are there."""
    found: dict[Any, str] = {}
    while len(found) < count:
        await asyncio.sleep(0.01)
        batch = log.read(ASKS, log.starts([ASKS])[ASKS])
        found = {record.value.rpartition(b"[")[2]: split_head(record.value)["request_key"] for record in batch.records}  # type: ignore[union-attr]
    return found


async def test_an_answer_finds_its_gateway(
    log: Log, doors: list[TestClient[web.Request, web.Application]], sender: AnswerSender
) -> None:
    """Each gateway sees all answers, and takes those that somebody waits for there."""
    posts: list[asyncio.Task[ClientResponse]] = [
        asyncio.create_task(doors[number % 2].post("/webhooks/asks", json=number)) for number in range(40)
    ]
    keys = await asked(log, 40)
    assert len(set(keys.values())) == 40
    await asyncio.gather(
        *(sender.send("shop", Answer(key=key, payload={"to": value[:-2].decode()})) for value, key in keys.items())
    )
    for number, post in enumerate(posts):
        assert await (await post).json() == {"to": str(number)}


async def test_the_first_answer_wins_and_others_harm_nobody(
    log: Log, doors: list[TestClient[web.Request, web.Application]], sender: AnswerSender
) -> None:
    post = asyncio.create_task(doors[0].post("/webhooks/asks", json=1))
    (key,) = (await asked(log, 1)).values()
    log.append(Partition(answers_topic("shop")), [])
    await sender.send("shop", Answer(key="of nobody", payload=0))
    await sender.send("shop", Answer(key=key, payload="first", status=202, headers={"X-Own": "yes"}))
    await sender.send("shop", Answer(key=key, payload="second"))
    response = await post
    assert (response.status, response.headers["X-Own"], await response.json()) == (202, "yes", "first")


async def test_many_may_wait_at_once(log: Log, sender: AnswerSender) -> None:
    """A waiting request is a future and a connection."""
    gateway = Gateway(log, runtime=SYSTEM, settings=SETTINGS)
    gateway.set_routes({"asks": WebhookRoute(webhook="asks", topic=ASKS.topic, respond=True)})
    count = 300
    async with TestClient(TestServer(gateway.new_app())) as client:
        client.session.connector._limit = 0  # type: ignore[union-attr]
        posts = [asyncio.create_task(client.post("/webhooks/asks", json=number)) for number in range(count)]
        keys = await asked(log, count)
        await asyncio.gather(*(sender.send("shop", Answer(key=key, payload=1)) for key in keys.values()))
        assert {(await post).status for post in posts} == {200}


@pytest.mark.parametrize(
    ("answer", "status", "body", "kind"),
    [
        (Answer(key="k", payload={"a": [1]}), 200, b'{"a":[1]}', "application/json"),
        (Answer(key="k", payload="text"), 200, b'"text"', "application/json"),
        (Answer(key="k", payload="<p>", headers={"content-type": "text/html"}), 200, b"<p>", "text/html"),
        (Answer(key="k", payload={"a": 1}, headers={"Content-Type": "text/html"}), 200, b'{"a":1}', "application/json"),
        (Answer(key="k", payload=None, status=404), 404, b"null", "application/json"),
        (Answer(key="k", payload=1, status=99), 200, b"1", "application/json"),
        (Answer(key="k", payload=1, status=204), 204, None, "application/octet-stream"),
    ],
)
def test_an_answer_looks_as_the_node_wants_it(answer: Answer, status: int, body: bytes | None, kind: str) -> None:
    response = answer_response(answer)
    assert (response.status, response.body, response.content_type) == (status, body, kind)


def test_an_answer_cannot_break_out_of_its_headers() -> None:
    """What a node puts into a header may come from a stranger; what frames the answer is the gateway's."""
    headers = {"X-Bad": "a\r\nSet-Cookie: b", "Bad Name": "x", "Content-Length": "3", "Connection": "x", "X-Good": "é"}
    response = answer_response(Answer(key="k", payload=1, headers=headers))
    assert set(response.headers) == {"X-Good", "Content-Type"}


@pytest.mark.parametrize(
    "value", [None, b"", b"[]", b"{}", b'{"kind":"answer"}', b'{"kind":"answer","key":"a"}', b"\xff"]
)
def test_what_is_no_answer_is_passed_over(value: bytes | None) -> None:
    assert read_answer(value) is None


def test_an_answer_comes_back_as_it_was() -> None:
    answer = Answer(key="k", payload={"a": "é"}, status=418, headers={"X": "y"})
    assert read_answer(answer_message(answer, 1)) == answer
