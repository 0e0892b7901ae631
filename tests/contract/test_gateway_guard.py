"""Who may post, over HTTP: only genuine requests become rows, handshakes are answered and become none."""

from __future__ import annotations

import base64
import hmac
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from table_reading import fold_topic, reader_of

from tailrace.gateway import Gateway, GatewaySettings, WebhookRoute
from tailrace.gateway.keys import KeyStore
from tailrace.gateway.verify import KeyNeeded
from tailrace.log import Log, Partition, TopicSpec, open_log
from tailrace.runtime import ManualClock, Runtime

TOPIC = "shop.hooks"
NOW_MS = 1_750_000_000_000
DISCORD = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
DISCORD_KEY = DISCORD.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
SECRETS = {"one": "first secret", "two": "second secret", "agreed": "token"}


class Doorway:
    """A gateway that listens, its log, and its secrets, which may be changed."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.secrets = dict(SECRETS)
        self.gateway = Gateway(
            log,
            runtime=Runtime(clock=ManualClock(NOW_MS)),
            settings=GatewaySettings(trusted_proxies=("127.0.0.1",)),
            secret_of=self.secrets.get,
        )

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        given = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
        response = await self.client.request(method, f"/webhooks/{path}", data=body, headers=given)
        self.headers = response.headers
        return response.status, await response.read()

    def records(self) -> list[object]:
        partition = Partition(TOPIC)
        reader = reader_of(self.log, partition, fold_topic(self.log, partition))
        return [] if reader is None else [orjson.loads(row["record"]) for row in reader.table().to_pylist()]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = open_log(f"sqlite:///{tmp_path / 'log.db'}")
    log.create_topics([TopicSpec(TOPIC)])
    yield log
    log.close()


@pytest.fixture
async def door(log: Log) -> AsyncIterator[Doorway]:
    door = Doorway(log)
    names = ("one", "two")
    routes = [
        WebhookRoute(webhook="github", topic=TOPIC, provider="github", secret_names=names),
        WebhookRoute(webhook="slack", topic=TOPIC, provider="slack", secret_names=names),
        WebhookRoute(webhook="meta", topic=TOPIC, provider="meta", secret_names=names, verify_token_name="agreed"),
        WebhookRoute(webhook="discord", topic=TOPIC, provider="discord", public_keys=(DISCORD_KEY,)),
        WebhookRoute(webhook="square", topic=TOPIC, provider="square", secret_names=names, url="https://x.example/w"),
        WebhookRoute(webhook="unset", topic=TOPIC, provider="github", secret_names=("three",)),
        WebhookRoute(webhook="broken", topic=TOPIC, broken="the options"),
        WebhookRoute(webhook="near", topic=TOPIC, allow_ips=("192.0.2.0/24",)),
        WebhookRoute(webhook="open", topic=TOPIC),
    ]
    door.gateway.set_routes({route.webhook: route for route in routes})
    async with TestClient(TestServer(door.gateway.new_app())) as client:
        door.client: TestClient[web.Request, web.Application] = client  # type: ignore[misc]
        yield door


def github(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()


async def test_genuine_posts_become_rows_under_each_live_secret(door: Doorway) -> None:
    body = b'{"n":  1}'
    for secret in ("first secret", "second secret"):
        assert await door.ask("POST", "github", body, X_Hub_Signature_256=github(secret, body)) == (200, b"")
    assert door.records() == [{"n": 1}, {"n": 1}]


async def test_forged_posts_become_none(door: Doorway) -> None:
    """Whatever is wrong: 401 with a reason that helps the sender, and counted by its code."""
    body = b'{"n": 1}'
    signature = github("first secret", body)
    for forged, given in ((b'{"n": 2}', signature), (body, github("third", body)), (body, "sha256="), (body, "")):
        status, answer = await door.ask("POST", "github", forged, X_Hub_Signature_256=given)
        assert status == 401 and "X-Hub-Signature-256" in orjson.loads(answer)["detail"]
    assert door.records() == []
    assert door.gateway.metrics.of("github", TOPIC).refused == {"signature_wrong": 3, "signature_missing": 1}


async def test_the_body_is_checked_as_it_was_sent(door: Doorway) -> None:
    """A signature covers the compressed bytes where a sender compresses."""
    import gzip

    body = gzip.compress(b'{"n": 1}')
    headers = {"Content_Encoding": "gzip", "X_Hub_Signature_256": github("first secret", body)}
    assert await door.ask("POST", "github", body, **headers) == (200, b"")
    assert door.records() == [{"n": 1}]


async def test_a_webhook_without_its_secret_takes_nothing_until_it_has_one(
    door: Doorway, caplog: pytest.LogCaptureFixture
) -> None:
    """503: senders keep their posts. Its owner reads of it in the log, by the name of the variable."""
    body = b"{}"
    headers = {"X_Hub_Signature_256": github("third secret", body)}
    status, answer = await door.ask("POST", "unset", body, **headers)
    assert status == 503 and door.headers["Retry-After"] and b"its owner must set one" in answer
    with caplog.at_level(logging.WARNING, "tailrace.gateway"):
        door.gateway.set_routes(
            {"unset": WebhookRoute(webhook="unset", topic=TOPIC, provider="github", secret_names=("three",))}
        )
    assert "set TAILRACE_SECRET_THREE" in caplog.text
    door.secrets["three"] = "third secret"
    assert await door.ask("POST", "unset", body, **headers) == (200, b"")


async def test_a_webhook_with_broken_options_takes_nothing(door: Doorway) -> None:
    """Better shut than open: what was meant may have been a signature."""
    assert (await door.ask("POST", "broken", b"{}"))[0] == 503
    assert door.records() == []


async def test_addresses_count_as_the_trusted_proxy_tells_them(door: Doorway) -> None:
    assert (await door.ask("POST", "near", b"{}", X_Forwarded_For="192.0.2.9"))[0] == 200
    assert (await door.ask("POST", "near", b"{}", X_Forwarded_For="192.0.2.9, 198.51.100.1"))[0] == 403
    assert (await door.ask("POST", "near", b"{}"))[0] == 403
    assert len(door.records()) == 1


async def test_the_url_is_the_one_that_the_sender_knows(door: Doorway) -> None:
    """Behind a proxy the request does not show it; its query is the request's."""
    body = b'{"n": 1}'
    for query in ("", "?a=%20b"):
        text = f"https://x.example/w{query}".encode() + body
        signature = base64.b64encode(hmac.digest(b"first secret", text, "sha256")).decode()
        assert (await door.ask("POST", f"square{query}", body, x_square_hmacsha256_signature=signature))[0] == 200
    assert len(door.records()) == 2


async def test_slack_is_answered_once_it_is_known_for_slack(door: Doorway) -> None:
    body = b'{"type": "url_verification", "challenge": "abc"}'
    now = str(NOW_MS // 1000)
    text = f"v0:{now}:".encode() + body
    signature = "v0=" + hmac.new(b"first secret", text, "sha256").hexdigest()
    headers = {"X_Slack_Signature": signature, "X_Slack_Request_Timestamp": now}
    assert await door.ask("POST", "slack", body, **headers) == (200, b'{"challenge":"abc"}')
    assert door.headers["X-Content-Type-Options"] == "nosniff"
    assert (await door.ask("POST", "slack", body))[0] == 401
    assert door.records() == []


async def test_slack_is_answered_by_an_open_webhook_too(door: Doorway) -> None:
    """Apps of the original name no provider (interfaces 3.8)."""
    body = b'{"token": "t", "type": "url_verification", "challenge": "abc"}'
    assert await door.ask("POST", "open", body) == (200, b'{"challenge":"abc"}')
    assert await door.ask("POST", "open", b'{"type": "event_callback", "challenge": "abc"}') == (200, b"")
    assert door.records() == [{"type": "event_callback", "challenge": "abc"}]


async def test_meta_asks_by_get(door: Doorway) -> None:
    query = "?hub.mode=subscribe&hub.challenge=42&hub.verify_token="
    assert await door.ask("GET", f"meta{query}token") == (200, b"42")
    assert (await door.ask("GET", f"meta{query}other"))[0] == 401


async def test_others_do_not_answer_to_get(door: Doorway) -> None:
    """A person who opens the URL reads what to do; a provider that asks for the head finds it there."""
    for name in ("open", "github"):
        status, answer = await door.ask("GET", name)
        assert status == 405 and b"post to this webhook" in answer and door.headers["Allow"] == "POST"
    assert (await door.ask("HEAD", "open"))[0] == 200
    assert (await door.ask("GET", "nothing"))[0] == 404


async def test_discord(door: Doorway) -> None:
    """A ping gets its pong, a command is a row and is told to wait, a forgery gets 401 (interfaces 3.8)."""
    now = str(NOW_MS // 1000)
    for body, answer in ((b'{"type": 1}', b'{"type":1}'), (b'{"type": 2}', b'{"type":5}')):
        signature = DISCORD.sign(now.encode() + body).hex()
        headers = {"X_Signature_Ed25519": signature, "X_Signature_Timestamp": now}
        assert await door.ask("POST", "discord", body, **headers) == (200, answer)
    assert (await door.ask("POST", "discord", b'{"type": 3}', **headers))[0] == 401
    assert door.records() == [{"type": 2}]


class Shop:
    """A web server in the place of Amazon's and Plaid's."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.answers: list[tuple[int, bytes]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json() if request.can_read_body else str(request.rel_url))
        status, body = self.answers.pop(0)
        return web.Response(status=status, body=body)


async def test_keys_are_fetched_once_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that there is none is kept, for a while; what fails is told, and tried again later."""
    clock, shop = ManualClock(NOW_MS), Shop()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", shop.answer)
    keys = KeyStore(clock)
    async with TestServer(app) as server:
        url = str(server.make_url("/key"))
        monkeypatch.setattr("tailrace.gateway.keys._PLAID_URLS", {"production": url})
        monkeypatch.setattr("tailrace.gateway.keys.is_amazon_sns", lambda _: True)
        shop.answers = [(200, b'{"key": {"kid": "k1", "expired_at": null}}'), (400, b"{}"), (500, b""), (200, b"pem")]
        for _ in range(2):
            found = await keys.get(KeyNeeded("plaid", "k1"), ["client:secret"])
            assert orjson.loads(found["k1"])["kid"] == "k1"
            assert await keys.get(KeyNeeded("plaid", "k2"), ["client:secret"]) == {"k2": b""}
        assert shop.asked == [
            {"client_id": "client", "secret": "secret", "key_id": "k1"},
            {"client_id": "client", "secret": "secret", "key_id": "k2"},
        ]
        for _ in range(2):
            with pytest.raises(Exception, match="send it again later"):
                await keys.get(KeyNeeded("certificate", url), [])
        clock.advance_ms(61_000)
        assert await keys.get(KeyNeeded("certificate", url), []) == {url: b"pem"}
        assert len(shop.asked) == 4
    await keys.close()
