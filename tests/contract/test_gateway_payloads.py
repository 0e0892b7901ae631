"""Real posts: all of GitHub's example payloads, signed as GitHub signs, arrive byte for byte."""

from __future__ import annotations

import asyncio
import hmac
import json
import lzma
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from table_reading import fold_topic, reader_of

from tailrace.gateway import Gateway, WebhookRoute
from tailrace.log import Offset, Partition, TopicSpec, open_log, scan
from tailrace.runtime import SYSTEM

PAYLOADS = Path(__file__).parents[1] / "data" / "github-payloads.json.xz"
SECRET = "It's a Secret to Everybody"
TOPIC = Partition("hub.events")


def payloads() -> list[tuple[str, bytes]]:
    """Name and body of each, as GitHub writes them: without spaces, other letters than ASCII as they are."""
    return [(name, text.encode()) for name, text in json.loads(lzma.decompress(PAYLOADS.read_bytes()))]


def spelled(body: bytes, spelling: str) -> bytes:
    if spelling == "compact":
        return body
    indent = 2 if spelling == "indented" else None
    return json.dumps(json.loads(body), indent=indent, ensure_ascii=spelling == "escaped").encode()


@pytest.mark.parametrize("spelling", ["compact", "indented", "escaped"])
async def test_real_payloads_arrive_byte_for_byte(tmp_path: Path, spelling: str) -> None:
    """What was signed is what is kept, however it is spelled, and what `record` shows."""
    posts = [(name, spelled(body, spelling)) for name, body in payloads()]
    assert len(posts) == 329
    log = open_log(f"sqlite:///{tmp_path / 'log.db'}")
    log.create_topics([TopicSpec(TOPIC.topic)])
    gateway = Gateway(log, runtime=SYSTEM, secret_of={"hub": SECRET}.get)
    route = WebhookRoute(webhook="hub", topic=TOPIC.topic, provider="github", secret_names=("hub",))
    gateway.set_routes({"hub": route})
    async with TestClient(TestServer(gateway.new_app())) as client:

        async def post(number: int, name: str, body: bytes) -> int:
            headers = {
                "Content-Type": "application/json",
                "User-Agent": "GitHub-Hookshot/044aadd",
                "X-GitHub-Delivery": f"72d3162e-cc78-11e3-81ab-{number:012x}",
                "X-GitHub-Event": name,
                "X-Hub-Signature-256": "sha256=" + hmac.new(SECRET.encode(), body, "sha256").hexdigest(),
            }
            async with client.post("/webhooks/hub", data=body, headers=headers) as response:
                return response.status

        for _ in range(2):  # GitHub sends again what it had no answer to
            for start in range(0, len(posts), 50):
                some = list(enumerate(posts))[start : start + 50]
                statuses = await asyncio.gather(*(post(number, *each) for number, each in some))
                assert set(statuses) == {200}
    (batch,) = list(scan(log, TOPIC, Offset(0), log.ends([TOPIC])[TOPIC]))
    kept = [(record.value or b"").partition(b',"rows":[')[2].removesuffix(b"]}") for record in batch.records]
    assert sorted(kept) == sorted(body for _, body in posts), "the log has the posted bytes"
    reader = reader_of(log, TOPIC, fold_topic(log, TOPIC))
    assert reader is not None
    records = [row["record"].encode() for row in reader.table().to_pylist()]
    log.close()
    assert records == kept, "and the table shows them"
