"""What a post becomes: filters, columns, kept headers, partitions and answers, read back as nodes read them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st
from table_reading import fold_topic, reader_of

from tailrace.gateway import Gateway, WebhookRoute
from tailrace.gateway.bodies import Posted
from tailrace.gateway.refusals import RefusedError
from tailrace.gateway.route import Rule, SuccessAnswer
from tailrace.gateway.shape import _split, shape
from tailrace.log import Log, Partition, TopicSpec, open_log
from tailrace.runtime import ManualClock, Runtime

NOW_MS = 1_750_000_000_123
RULES = (
    Rule(where={"header:X-Event": ("ping",)}),
    Rule(where={"/action": ("opened", "closed")}, topic="shop.issues"),
    Rule(where={"/level": (1, None), "/flag": (True,)}, topic="shop.flags"),
)
ROUTES = [
    WebhookRoute(webhook="filtered", topic="shop.rest", rules=RULES),
    WebhookRoute(webhook="flat", topic="shop.flat", flatten=True),
    WebhookRoute(webhook="kept", topic="shop.kept", headers=("x-event", "x-none")),
    WebhookRoute(webhook="both", topic="shop.both", flatten=True, headers=("x-event",)),
    WebhookRoute(webhook="keyed", topic="shop.keyed", partition_key="/who/id", partitions=4),
    WebhookRoute(
        webhook="told",
        topic="shop.rest",
        answer=SuccessAnswer(status=202, body='{"ok":1}', content_type="application/json"),
    ),
]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = open_log(f"sqlite:///{tmp_path / 'log.db'}")
    names = ("rest", "issues", "flags", "flat", "kept", "both")
    log.create_topics([*(TopicSpec(f"shop.{name}") for name in names), TopicSpec("shop.keyed", partitions=4)])
    yield log
    log.close()


@pytest.fixture
async def client(log: Log) -> AsyncIterator[TestClient[Any, Any]]:
    gateway = Gateway(log, runtime=Runtime(clock=ManualClock(NOW_MS)))
    gateway.set_routes({route.webhook: route for route in ROUTES})
    async with TestClient(TestServer(gateway.new_app())) as client:
        yield client


async def post(
    client: TestClient[Any, Any], webhook: str, body: bytes, headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    headers = {"Content-Type": "application/json", **(headers or {})}
    response = await client.post(f"/webhooks/{webhook}", data=body, headers=headers)
    return response.status, await response.text()


def rows(log: Log, name: str, number: int = 0) -> list[dict[str, Any]]:
    partition = Partition(f"shop.{name}", number)
    reader = reader_of(log, partition, fold_topic(log, partition))
    return [] if reader is None else reader.table().to_pylist()


def records(log: Log, name: str, number: int = 0) -> list[Any]:
    return [orjson.loads(row["record"]) for row in rows(log, name, number)]


async def test_the_first_rule_that_fits_counts(client: TestClient[Any, Any], log: Log) -> None:
    """What is dropped is answered like any other post: its sender has done nothing wrong."""
    assert await post(client, "filtered", b'{"action": "opened"}', {"X-Event": "ping"}) == (200, "")
    assert await post(client, "filtered", b'{"action": "opened"}') == (200, "")
    assert await post(client, "filtered", b'{"action": "other"}') == (200, "")
    assert await post(client, "filtered", b'{"flag": true}') == (200, "")
    assert await post(client, "filtered", b'{"flag": true, "level": 1.0}') == (200, "")
    assert await post(client, "filtered", b'{"flag": 1, "level": 1}') == (200, "")
    assert await post(client, "filtered", b'{"flag": true, "level": true}') == (200, "")
    assert records(log, "issues") == [{"action": "opened"}]
    assert records(log, "flags") == [{"flag": True}, {"flag": True, "level": 1.0}]
    assert records(log, "rest") == [{"action": "other"}, {"flag": 1, "level": 1}, {"flag": True, "level": True}]


async def test_an_array_goes_to_one_place_or_is_refused(client: TestClient[Any, Any], log: Log) -> None:
    """All or nothing holds for one topic alone; dropped elements are no hindrance."""
    body = b'[{"action":"opened", "n":1.50}, {"action":"closed","t":"],"}]'
    assert await post(client, "filtered", body) == (200, "")
    assert len(records(log, "issues")) == 2
    status, text = await post(client, "filtered", b'[{"action": "opened"}, {}]')
    assert status == 422 and "different tables" in text
    assert records(log, "rest") == []


def test_elements_that_are_left_keep_their_bytes() -> None:
    route = WebhookRoute(webhook="w", topic="t", rules=(Rule(where={"/drop": (True,)}),))
    values = b'{"n": 1.50}, {"drop": true} ,{"a":"}],\\"{"}'
    shaped = shape(route, {}, Posted(values, [{"n": 1.5}, {"drop": True}, {"a": '}],"{'}]))
    assert shaped is not None and shaped.posted.values == b'{"n": 1.50},{"a":"}],\\"{"}'
    assert shape(route, {}, Posted(b'{"drop": true}', [{"drop": True}])) is None


async def test_keys_become_columns(client: TestClient[Any, Any], log: Log) -> None:
    """With the time of the post, unless the post has a column of that name itself."""
    assert await post(client, "flat", b' {"email": "a@b.example", "n": 1, "more": {"x": [1]}} ') == (200, "")
    assert await post(client, "flat", b'[{"n": 2, "timestamp": "2020-01-01T00:00:00"}, {}]') == (200, "")
    first, second, third = rows(log, "flat")
    received = datetime.fromisoformat("2025-06-15T15:06:40.123000")
    assert first == {"timestamp": received, "email": "a@b.example", "n": 1, "more": '{"x":[1]}'}
    assert (second["n"], second["timestamp"], second["email"]) == (2, datetime(2020, 1, 1), None)
    assert (third["n"], third["timestamp"]) == (None, received)
    status, text = await post(client, "flat", b'[{"n": 3}, 4]')
    assert status == 422 and "post objects" in text
    assert len(rows(log, "flat")) == 3


async def test_chosen_headers_are_kept(client: TestClient[Any, Any], log: Log) -> None:
    assert await post(client, "kept", b'[{"n": 1.50}, 2]', {"X-Event": "push", "X-Other": "no"}) == (200, "")
    assert [(orjson.loads(row["record"]), row["headers"]) for row in rows(log, "kept")] == [
        ({"n": 1.5}, '{"x-event":"push"}'),
        (2, '{"x-event":"push"}'),
    ]
    assert await post(client, "both", b'{"n": 1}', {"X-Event": "push"}) == (200, "")
    (row,) = rows(log, "both")
    assert (row["n"], row["headers"]) == (1, '{"x-event":"push"}')


async def test_rows_of_one_key_lie_in_one_partition_in_order(client: TestClient[Any, Any], log: Log) -> None:
    for number in range(40):
        body = orjson.dumps({"who": {"id": number % 7}, "n": number})
        assert await post(client, "keyed", body) == (200, "")
    found: dict[int, list[int]] = {}
    used = 0
    for number in range(4):
        used += bool(rows(log, "keyed", number))
        for record in records(log, "keyed", number):
            assert record["n"] not in found.get(record["who"]["id"], [])
            found.setdefault(record["who"]["id"], []).append(record["n"])
    assert used > 1
    assert found == {key: list(range(key, 40, 7)) for key in range(7)}
    status, text = await post(client, "keyed", orjson.dumps([{"who": {"id": key}} for key in range(7)]))
    assert status == 422 and "different partitions" in text


async def test_an_answer_of_ones_own(client: TestClient[Any, Any]) -> None:
    for body in (b"{}", b"[]"):
        response = await client.post("/webhooks/told", data=body, headers={"Content-Type": "application/json"})
        assert (response.status, await response.text(), response.content_type) == (202, '{"ok":1}', "application/json")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(_JSON, min_size=1, max_size=6), st.booleans())
def test_values_are_split_where_they_end(values: list[Any], spaced: bool) -> None:
    """Whatever stands in their texts; the pieces are the bytes between the commas."""
    pieces = [orjson.dumps(value, option=orjson.OPT_INDENT_2 if spaced else None) for value in values]
    assert _split(b",".join(pieces)) == pieces


@given(st.lists(_JSON, min_size=1, max_size=5), st.booleans(), st.booleans(), st.integers(1, 5))
def test_shaping_takes_whatever_is_json(values: list[Any], flatten: bool, filtered: bool, partitions: int) -> None:
    """It ends in a message or a refusal; no row is lost on the way save by a rule."""
    rules = RULES if filtered else ()
    route = WebhookRoute(
        webhook="w", topic="t", rules=rules, flatten=flatten, partition_key="/id", partitions=partitions
    )
    try:
        shaped = shape(route, {}, Posted(b",".join(map(orjson.dumps, values)), values))
    except RefusedError as refused:
        assert refused.status == 422
        return
    assert shaped is not None and len(shaped.posted.rows) == len(values)
    assert 0 <= shaped.partition.number < partitions
