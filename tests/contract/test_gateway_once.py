"""Posts that come again: one row, the same answer, over restarts and over gateways that share a log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st
from table_reading import fold_topic, reader_of

from tailrace.gateway import Gateway, GatewaySettings, WebhookRoute
from tailrace.gateway.dedupe import Repeats, delivery_id
from tailrace.gateway.providers import PROVIDERS
from tailrace.gateway.route import SuccessAnswer
from tailrace.log import Batch, Log, LogUnavailableError, NewRecord, Offset, Partition, TopicSpec, open_log
from tailrace.runtime import Clock, ManualClock, Runtime, SystemClock
from tailrace.tables import Answer, SeenIds
from tailrace.testing.kafka import LocalKafka

TOPIC = "shop.hooks"
NOW_MS = 1_750_000_000_000
ROUTES = [
    WebhookRoute(webhook="plain", topic=TOPIC),
    WebhookRoute(webhook="pointer", topic=TOPIC, dedupe_id="/event/id", answer=SuccessAnswer(status=202, body="ok")),
    WebhookRoute(webhook="short", topic="shop.short", dedupe_window_s=60),
    WebhookRoute(webhook="all", topic=TOPIC, dedupe=False),
    WebhookRoute(webhook="asks", topic="shop.asks", respond=True),
]


def topics(log: Log) -> None:
    names = (TOPIC, "shop.short", "shop.asks", "shop._answers")
    log.create_topics([TopicSpec(name) for name in names])


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = open_log(f"sqlite:///{tmp_path / 'log.db'}")
    topics(log)
    yield log
    log.close()


@contextlib.asynccontextmanager
async def gateway(
    log: Log, clock: Clock | None = None, **limits: Any
) -> AsyncIterator[tuple[Gateway, TestClient[Any, Any]]]:
    gateway = Gateway(log, runtime=Runtime(clock=clock or ManualClock(NOW_MS)), settings=GatewaySettings(**limits))
    gateway.set_routes({route.webhook: route for route in ROUTES})
    async with TestClient(TestServer(gateway.new_app())) as client:
        yield gateway, client


async def post(
    client: TestClient[Any, Any], webhook: str, body: object, key: str | None = None
) -> tuple[int, str, bool]:
    headers = {} if key is None else {"Idempotency-Key": key}
    response = await client.post(f"/webhooks/{webhook}", json=body, headers=headers)
    return response.status, await response.text(), "Idempotent-Replayed" in response.headers


async def known(gateway: Gateway, key: str) -> None:
    """Returns once the gateway has learned of an id."""
    seen = gateway._repeats._topics[TOPIC].seen
    async with asyncio.timeout(30):
        while not seen.has(key, SystemClock().now_ms()):
            await asyncio.sleep(0.01)


def rows(log: Log, topic: str, *, settled: bool = False) -> list[Any]:
    reader = reader_of(log, Partition(topic), fold_topic(log, Partition(topic), settled=settled))
    return [] if reader is None else reader.table().to_pylist()


def records(log: Log, topic: str = TOPIC) -> list[Any]:
    return [orjson.loads(row["record"]) for row in rows(log, topic)]


async def test_a_repeat_adds_no_row_and_is_answered_the_same(log: Log) -> None:
    async with gateway(log) as (_, client):
        assert await post(client, "plain", {"n": 1}, "a") == (200, "", False)
        assert await post(client, "plain", {"n": 1}, "a") == (200, "", True)
        assert await post(client, "plain", {"n": 2}, "b") == (200, "", False)
        body = {"event": {"id": "e-1"}}
        assert await post(client, "pointer", body) == (202, "ok", False)
        assert await post(client, "pointer", body, "of no account") == (202, "ok", True)
    assert records(log) == [{"n": 1}, {"n": 2}, body]


async def test_an_array_has_one_id(log: Log) -> None:
    """The id is the message's: all its rows come once."""
    async with gateway(log) as (_, client):
        for again in (False, True):
            assert await post(client, "plain", [{"n": 1}, {"n": 2}], "a") == (200, "", again)
    assert records(log) == [{"n": 1}, {"n": 2}]


async def test_without_an_id_each_post_counts(log: Log) -> None:
    async with gateway(log) as (_, client):
        for _ in range(2):
            assert await post(client, "plain", {"n": 1}) == (200, "", False)
            assert await post(client, "all", {"n": 2}, "a") == (200, "", False)
    assert len(records(log)) == 4


async def test_repeats_at_the_same_moment_wait_for_the_first(log: Log) -> None:
    async with gateway(log) as (_, client):
        answers = await asyncio.gather(*(post(client, "plain", {"n": 1}, "a") for _ in range(50)))
    assert {status for status, _, _ in answers} == {200}
    assert [again for _, _, again in answers].count(False) == 1
    assert records(log) == [{"n": 1}]


async def test_ids_survive_a_restart(log: Log) -> None:
    """They stand in the log; nothing else is kept."""
    for again in (False, True):
        async with gateway(log) as (_, client):
            assert await post(client, "plain", {"n": 1}, "a") == (200, "", again)
    assert len(records(log)) == 1


async def test_of_a_repeat_that_two_gateways_took_readers_see_the_first(log: Log) -> None:
    """For half a second neither knows of the other's posts; both messages carry the id."""
    async with gateway(log) as (_, one), gateway(log) as (_, two):
        for client in (one, two):  # both have read back what was there
            await post(client, "plain", {"n": 0}, "first")
        for number in range(1, 21):
            await asyncio.gather(*(post(client, "plain", {"n": number}, f"id-{number}") for client in (one, two)))
    assert log.ends([Partition(TOPIC)])[Partition(TOPIC)] > 21, "none slipped through"
    assert records(log) == [{"n": number} for number in range(21)]


async def test_the_window_ends(log: Log) -> None:
    """After it an id may be used anew; a restart does not lengthen it."""
    clock = ManualClock(NOW_MS)
    async with gateway(log, clock) as (_, client):
        assert await post(client, "short", {"n": 1}, "a") == (200, "", False)
        clock.advance_ms(59_000)
        assert await post(client, "short", {"n": 1}, "a") == (200, "", True)
        clock.advance_ms(1_000)
        assert await post(client, "short", {"n": 2}, "a") == (200, "", False)
    clock.advance_ms(59_000)
    async with gateway(log, clock) as (_, client):
        assert await post(client, "short", {"n": 2}, "a") == (200, "", True)
        clock.advance_ms(1_000)
        assert await post(client, "short", {"n": 3}, "a") == (200, "", False)
    assert [record["n"] for record in records(log, "shop.short")] == [1, 2, 3]


async def test_gateways_that_share_a_log_learn_of_each_other(log: Log) -> None:
    """A repeat that comes to another gateway a second later adds no row there."""
    async with gateway(log, SystemClock()) as (_, one), gateway(log, SystemClock()) as (other, two):
        assert await post(two, "plain", {"n": 0}, "first") == (200, "", False)
        assert await post(one, "plain", {"n": 1}, "a") == (200, "", False)
        seen = other._repeats._topics[TOPIC].seen
        async with asyncio.timeout(20):
            while not seen.has("a", SystemClock().now_ms()):
                await asyncio.sleep(0.01)
        assert await post(two, "plain", {"n": 1}, "a") == (200, "", True)
    assert records(log) == [{"n": 0}, {"n": 1}]


@pytest.mark.kafka
async def test_on_kafka_restarts_and_other_gateways_know_the_ids(kafka_broker: LocalKafka) -> None:
    """Read back at the start, and followed."""
    log = open_log(kafka_broker.url)
    topics(log)
    try:
        async with gateway(log, SystemClock()) as (_, client):
            assert await post(client, "plain", {"n": 1}, "a") == (200, "", False)
            assert await post(client, "plain", {"n": 1}, "a") == (200, "", True)
        async with gateway(log, SystemClock()) as (_, one), gateway(log, SystemClock()) as (other, two):
            assert await post(one, "plain", {"n": 1}, "a") == (200, "", True)
            assert await post(two, "plain", {"n": 1}, "a") == (200, "", True)
            assert await post(one, "plain", {"n": 2}, "b") == (200, "", False)
            await known(other, "b")
            assert await post(two, "plain", {"n": 2}, "b") == (200, "", True)
        assert len(rows(log, TOPIC, settled=True)) == 2
    finally:
        log.close()


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("kafka", marks=pytest.mark.kafka)])
async def test_a_gateway_reads_back_no_post_of_its_own(
    kind: str, tmp_path: Path, kafka_broker: LocalKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fetched while more of them come, posts cost the broker as much again as taking them."""
    log = open_log(kafka_broker.url if kind == "kafka" else f"sqlite:///{tmp_path / 'log.db'}")
    topics(log)
    starts: list[Offset] = []
    caught_up: list[Offset] = []
    read, catch_up = log.read, Repeats._catch_up

    def noted_read(partition: Partition, start: Offset, **bounds: Any) -> Batch:
        starts.append(start)
        return read(partition, start, **bounds)

    async def noted_catch_up(repeats: Repeats, partition: Partition, stop: Offset) -> None:
        await catch_up(repeats, partition, stop)
        caught_up.append(stop)

    monkeypatch.setattr(log, "read", noted_read)
    monkeypatch.setattr(Repeats, "_catch_up", noted_catch_up)
    try:
        async with gateway(log, SystemClock()) as (_, client), asyncio.timeout(60):
            await post(client, "plain", {}, "first")  # what others left there is read back before
            starts.clear()

            async def go_on_posting(sender: int) -> None:
                number = 0
                while len(caught_up) < 8:
                    number += 1
                    assert (await post(client, "plain", {}, f"{sender}-{number}"))[0] == 200

            await asyncio.gather(*(go_on_posting(sender) for sender in range(16)))
        assert starts == []
    finally:
        log.delete_topics(list(log.topics("shop.")))
        log.close()


async def test_an_id_whose_append_failed_may_come_again(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 means that nothing is there, so a repeat is no repeat."""
    async with gateway(log) as (server, client):
        appender = server._appender
        assert appender is not None

        class Away:
            async def append(self, partition: Partition, record: NewRecord) -> None:
                raise LogUnavailableError("sqlite", "away")

        monkeypatch.setattr(server, "_appender", Away())
        assert (await post(client, "plain", {"n": 1}, "a"))[0] == 503
        monkeypatch.setattr(server, "_appender", appender)
        assert await post(client, "plain", {"n": 1}, "a") == (200, "", False)
    assert records(log) == [{"n": 1}]


async def test_a_question_that_is_asked_again_is_not_asked_twice(log: Log) -> None:
    """The row is there once; the answer went to who asked first."""
    async with gateway(log) as (server, client):
        asking = asyncio.ensure_future(post(client, "asks", {"q": 1}, "a"))
        async with asyncio.timeout(10):
            while not (waiting := rows(log, "shop.asks")):
                await asyncio.sleep(0.01)
        server.respond(Answer(key=waiting[0]["patterns_request_key"], payload={"a": 2}))
        assert await asking == (200, '{"a":2}', False)
        assert (await post(client, "asks", {"q": 1}, "a"))[0] == 409
    assert len(records(log, "shop.asks")) == 1


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 40)), max_size=60),
    st.integers(1, 5),
)
def test_seen_ids_are_those_of_the_window(steps: list[tuple[str, int]], ids_max: int) -> None:
    """Never one past its window, never more than the bound; where all fit in, every one of the window."""
    seen, taken, now = SeenIds(50, ids_max), dict[str, int](), 0
    for key, later in steps:
        now += later
        known = seen.has(key, now)
        within = key in taken and now - taken[key] < 50
        assert within if known else (not within or ids_max < 4)
        seen.add(key, now)
        if not known:
            taken[key] = now
        assert seen.has(key, now) and len(seen) <= ids_max


def test_where_ids_come_from() -> None:
    """The webhook's own place alone where it names one; else the sender's key, else the provider's id."""
    github, stripe = PROVIDERS["github"], PROVIDERS["stripe"]
    headers = {"Idempotency-Key": '"k-1"', "X-GitHub-Delivery": "d-1", "X-Own": "o-1"}
    rows = [{"id": "evt_1", "n": 7}]
    assert delivery_id(None, github, headers, rows) == "k-1"
    assert delivery_id(None, github, {"X-GitHub-Delivery": "d-1"}, rows) == "d-1"
    assert delivery_id(None, stripe, {}, rows) == "evt_1"
    assert delivery_id("X-Own", stripe, headers, rows) == "o-1"
    assert delivery_id("/n", stripe, headers, rows) == "7"
    assert delivery_id("/1/n", None, {}, [{"n": 1}, {"n": 2}]) == "2"
    assert delivery_id("X-None", stripe, headers, rows) is None
    assert delivery_id(None, None, {"Idempotency-Key": ""}, rows) is None
    long = delivery_id(None, None, {"Idempotency-Key": "x" * 300}, rows)
    assert long is not None and len(long) == 64
