"""The gateway over a real log: what is answered with 200 is there, and everything else says why."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from table_reading import fold_topic, reader_of

from tailrace.gateway import Gateway, GatewaySettings, RateLimit, WebhookRoute
from tailrace.log import Log, Partition, TopicSpec, open_log
from tailrace.runtime import SYSTEM, ManualClock, Runtime
from tailrace.tables import Answer, split_head

ORDERS = Partition("shop.orders")
ASKS = Partition("shop.asks")
SETTINGS = GatewaySettings(body_bytes_max=10_000, rows_max=50, respond_timeout=timedelta(seconds=1))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = open_log(f"sqlite:///{tmp_path / 'log.db'}")
    log.create_topics([TopicSpec(ORDERS.topic), TopicSpec(ASKS.topic)])
    yield log
    log.close()


@dataclass
class Door:
    """A gateway that listens, and the log behind it."""

    gateway: Gateway
    client: TestClient[web.Request, web.Application]
    log: Log

    async def post(self, body: bytes, webhook: str = "orders", **headers: str) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        response = await self.client.post(f"/webhooks/{webhook}", data=body, headers=headers)
        return response.status, await response.read()

    def rows(self, partition: Partition = ORDERS) -> list[dict[str, Any]]:
        reader = reader_of(self.log, partition, fold_topic(self.log, partition))
        return [] if reader is None else reader.table().to_pylist()

    def records(self) -> list[Any]:
        return [orjson.loads(row["record"]) for row in self.rows()]


@pytest.fixture
async def door(log: Log) -> AsyncIterator[Door]:
    gateway = Gateway(log, runtime=SYSTEM, settings=SETTINGS)
    gateway.set_routes(
        {
            "orders": WebhookRoute(webhook="orders", topic=ORDERS.topic),
            "asks": WebhookRoute(webhook="asks", topic=ASKS.topic, respond=True),
        }
    )
    async with TestClient(TestServer(gateway.new_app())) as client:
        yield Door(gateway, client, log)


async def test_an_object_is_one_row(door: Door) -> None:
    """200 with an empty body, and the row is there before the answer."""
    assert await door.post(b' {"a": 1, "b": [1.50, "\\u00e9"]} ') == (200, b"")
    (row,) = door.rows()
    assert set(row) == {"timestamp", "record"}
    assert orjson.loads(row["record"]) == {"a": 1, "b": [1.5, "é"]}


async def test_an_array_is_a_row_an_element_in_one_message(door: Door) -> None:
    """All or nothing: one message of the log."""
    assert await door.post(b'[{"n": 1}, {"n": 2} , {"n":3}]') == (200, b"")
    assert door.records() == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert len(door.log.read(ORDERS, door.log.starts([ORDERS])[ORDERS]).records) == 1


async def test_an_empty_array_is_accepted_and_adds_nothing(door: Door) -> None:
    """A sender with nothing to say has made no mistake."""
    assert await door.post(b"[ ]") == (200, b"")
    assert door.rows() == []


async def test_rows_stand_in_the_order_of_the_posts(door: Door) -> None:
    """One sender that waits for each answer sees its order kept."""
    for number in range(30):
        assert (await door.post(b'{"n": %d}' % number))[0] == 200
    assert [record["n"] for record in door.records()] == list(range(30))


async def test_posts_at_once_are_all_there(door: Door) -> None:
    """Group commit loses and doubles none."""
    answers = await asyncio.gather(*(door.post(b'{"n": %d}' % number) for number in range(200)))
    assert {status for status, _ in answers} == {200}
    assert sorted(record["n"] for record in door.records()) == list(range(200))


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "no JSON"),
        (b"{", 400, "no JSON"),
        (b'{"a": NaN}', 400, "no JSON"),
        (b'{"a": 1} {"b": 2}', 400, "no JSON"),
        (b"\xff\xfe", 400, "UTF-16"),
        (b'"\xed\xa0\x80"', 400, "no JSON"),
        (b"[" * 600 + b"]" * 600, 400, "nested deeper"),
        (b'{"a":' * 700 + b"1" + b"}" * 700, 400, "nested deeper"),
        (b'"' + b"x" * 10_000 + b'"', 413, "over 10000 bytes"),
        (b"[" + b",".join([b"1"] * 51) + b"]", 413, "more than 50 elements"),
    ],
)
async def test_what_cannot_be_taken_is_refused_with_a_reason(door: Door, body: bytes, status: int, reason: str) -> None:
    """The sender's developer reads `detail`; nothing is stored."""
    answered, text = await door.post(body)
    assert answered == status
    assert reason in orjson.loads(text)["detail"]
    assert door.rows() == []


async def test_an_unknown_webhook_is_404(door: Door) -> None:
    status, text = await door.post(b"{}", webhook="nothing")
    assert status == 404
    assert "no webhook" in orjson.loads(text)["detail"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/cloudevents+json", 200),
        ("text/json", 200),
        ("application/json; charset=iso-8859-1", 200),
        ("application/x-ndjson", 200),
        ("text/plain", 415),
        ("multipart/form-data; boundary=x", 415),
    ],
)
async def test_other_content_types_are_415(door: Door, kind: str, status: int) -> None:
    """The reason says what to send instead."""
    answered, text = await door.post(b"{}", Content_Type=kind)
    assert answered == status
    if status == 415:
        assert "application/json" in orjson.loads(text)["detail"]


async def test_a_get_is_refused(door: Door) -> None:
    response = await door.client.get("/webhooks/orders")
    assert response.status == 405


async def test_a_log_that_is_away_is_503_with_retry_after(door: Door) -> None:
    """What was not acknowledged is not half kept; the sender is told when to come back."""
    door.log.close()
    response = await door.client.post("/webhooks/orders", json={"a": 1})
    assert response.status == 503
    assert int(response.headers["Retry-After"]) >= 1
    assert "not available" in (await response.json())["detail"]


async def test_a_compressed_body_counts_as_what_it_inflates_to(door: Door) -> None:
    """A bomb must not get past the limit."""
    bomb = gzip.compress(b'"' + b"x" * 1_000_000 + b'"')
    status, _ = await door.post(bomb, Content_Encoding="gzip")
    assert status == 413
    assert (await door.post(gzip.compress(b'{"n": 1}'), Content_Encoding="gzip"))[0] == 200
    assert door.records() == [{"n": 1}]


async def test_lines_are_a_row_each_in_one_message(door: Door) -> None:
    """NDJSON is an array without its brackets."""
    assert await door.post(b'{"n": 1}\r\n\n{"n":2}\n', Content_Type="application/x-ndjson") == (200, b"")
    assert door.records() == [{"n": 1}, {"n": 2}]
    assert len(door.log.read(ORDERS, door.log.starts([ORDERS])[ORDERS]).records) == 1


async def test_a_form_is_one_row_of_texts(door: Door) -> None:
    kind = "application/x-www-form-urlencoded"
    assert await door.post(b"a=1&b=%C3%A9+x&a=2&c=", Content_Type=kind) == (200, b"")
    assert door.records() == [{"a": ["1", "2"], "b": "é x", "c": ""}]


async def test_a_body_that_does_not_come_is_408(log: Log) -> None:
    """A sender that dribbles holds its connection for a bounded time."""
    gateway = Gateway(log, runtime=SYSTEM, settings=GatewaySettings(body_timeout=timedelta(milliseconds=50)))
    gateway.set_routes({"orders": WebhookRoute(webhook="orders", topic=ORDERS.topic)})
    async with TestServer(gateway.new_app()) as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"POST /webhooks/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        assert b"408" in await reader.readline()
        await reader.read()  # it ends
        writer.close()


async def test_bodies_take_no_more_memory_than_they_may(log: Log) -> None:
    """What is over it is told to come later; what is in goes through, and room comes back."""
    gateway = Gateway(log, runtime=SYSTEM, settings=GatewaySettings(bodies_bytes_max=100_000))
    gateway.set_routes({"orders": WebhookRoute(webhook="orders", topic=ORDERS.topic)})
    body = b'"' + b"x" * 60_000 + b'"'
    async with TestClient(TestServer(gateway.new_app())) as client:
        answers = await asyncio.gather(
            *(
                client.post("/webhooks/orders", data=body, headers={"Content-Type": "application/json"})
                for _ in range(20)
            )
        )
        found = [answer.status for answer in answers]
        assert set(found) == {200, 503}
        assert all("Retry-After" in answer.headers for answer in answers if answer.status == 503)
        again = await client.post("/webhooks/orders", data=body, headers={"Content-Type": "application/json"})
        assert again.status == 200
    assert gateway.accepted == found.count(200) + 1


async def test_posts_over_the_rate_limit_are_429(log: Log) -> None:
    """The sender is told its limit and when to come back."""
    clock = ManualClock()
    gateway = Gateway(log, runtime=Runtime(clock=clock))
    route = WebhookRoute(webhook="orders", topic=ORDERS.topic, rate_limit=RateLimit(2, 10))
    gateway.set_routes({"orders": route})
    async with TestClient(TestServer(gateway.new_app())) as client:
        statuses = [(await client.post("/webhooks/orders", json=1)).status for _ in range(2)]
        refused = await client.post("/webhooks/orders", json=1)
        assert [*statuses, refused.status] == [200, 200, 429]
        assert refused.headers["Retry-After"] == "6"
        assert refused.headers["RateLimit"] == '"webhook";r=0;t=10'
        assert refused.headers["RateLimit-Policy"] == '"webhook";q=2;w=10'
        clock.advance_ms(5_000)
        assert (await client.post("/webhooks/orders", json=1)).status == 200


async def test_the_trace_of_a_request_stands_in_its_message(door: Door) -> None:
    """W3C Trace Context; anything else under that name is passed over."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert await door.post(b"{}", traceparent=trace) == (200, b"")
    assert await door.post(b"{}", traceparent="no trace") == (200, b"")
    heads = [split_head(record.value) for record in door.log.read(ORDERS, door.log.starts([ORDERS])[ORDERS]).records]
    assert [head.get("trace") for head in heads] == [trace, None]


async def test_a_request_waits_for_its_answer(door: Door) -> None:
    """Ingest and respond: the row carries the key, and the first answer with it is the body."""
    post = asyncio.create_task(door.post(b'{"q": 1}', webhook="asks"))
    while not (rows := door.rows(ASKS)):
        await asyncio.sleep(0.005)
    key = rows[0]["patterns_request_key"]
    assert door.gateway.respond(Answer(key=key, payload={"answer": 42}))
    door.gateway.respond(Answer(key=key, payload={"answer": "too late"}))
    assert not door.gateway.respond(Answer(key="another", payload={}))
    assert await post == (200, b'{"answer":42}')


async def test_a_request_that_nobody_answers_is_504(door: Door) -> None:
    """The record is stored all the same, and the body says so."""
    status, text = await door.post(b'{"q": 1}', webhook="asks")
    assert status == 504
    assert "was stored" in orjson.loads(text)["detail"]
    assert len(door.rows(ASKS)) == 1
