"""`tailrace webhooks` and `tailrace webhook ...` over a running `up`: looking at posts, signing them, posting again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from up_process import UpProcess

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
GRAPH = f"""
title: Shop
functions:
  - {{webhook: orders, id: wh000001, headers: [X-Event]}}
  - {{webhook: copies, id: wh000002, dedupe: /n}}
  - webhook: chats
    id: wh000003
    provider: discord
    secret: {KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()}
  - {{webhook: hub, id: wh000004, provider: github, secret: '${{{{ hub }}}}'}}
stores:
  - {{table: orders, id: st000001}}
  - {{table: copies, id: st000002}}
  - {{table: chats, id: st000003}}
  - {{table: hub, id: st000004}}
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpProcess]:
    app = tmp_path_factory.mktemp("apps") / "shop"
    app.mkdir()
    (app / "graph.yml").write_text(GRAPH)
    with UpProcess(tmp_path_factory.mktemp("data"), app) as process:
        yield process


def rows(up: UpProcess, table: str) -> int:
    return len(up.rows(table))


def test_a_body_is_sent_and_shown(up: UpProcess, tmp_path: Path) -> None:
    """As text, from a file, from standard input; `tail` shows the very bytes."""
    bodies = ['{"n":  1.50}', '[{"n": 2}, {"n": 3}]']
    (tmp_path / "body.json").write_text(bodies[1])
    assert up.json("webhook", "send", "copies", bodies[0]) == [{"status": 200, "answer": ""}]
    assert up.cli("webhook", "send", "wh000002", f"@{tmp_path / 'body.json'}").stdout == "200\n"
    posts = [line for line in up.cli("webhook", "tail", "copies", "--json").stdout.splitlines() if line]
    import orjson

    shown = [orjson.loads(post) for post in posts]
    assert [post["body"] for post in shown] == bodies
    assert [post["rows"] for post in shown] == [1, 2]
    assert "1.50" in up.cli("webhook", "tail", "copies", "-n", "2").stdout


def test_a_post_is_signed_as_its_provider_signs(up: UpProcess, tmp_path: Path) -> None:
    """With the provider's key it is taken, as a stranger's it is not, and without a key nothing is sent."""
    key = tmp_path / "key.pem"
    key.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    sent = up.json("webhook", "send", "chats", '{"type": 2}', "--key", str(key))
    assert sent == [{"status": 200, "answer": '{"type":5}'}]
    stranger = up.cli("webhook", "send", "chats", '{"type": 2}', "--unsigned")
    assert stranger.returncode == 1 and stranger.stdout.startswith("401")
    nobody = up.cli("webhook", "send", "chats", "{}")
    assert nobody.returncode == 2 and "--key" in nobody.stderr
    missing = up.cli("webhook", "send", "hub", "{}")
    assert missing.returncode == 2 and "TAILRACE_SECRET_HUB" in missing.stderr
    assert rows(up, "chats") == 1


def test_posts_are_replayed_although_their_ids_came_before(up: UpProcess) -> None:
    """To the webhook itself and to another; options that shaped the rows do not show in what is posted again."""
    url = up.webhooks["orders"]
    assert requests.post(url, json={"n": 7}, headers={"X-Event": "made", "Idempotency-Key": "k"}, timeout=30).ok
    before = rows(up, "orders"), rows(up, "copies")
    assert up.cli("webhook", "replay", "orders", "-n", "1").stdout.strip().endswith("200")
    assert up.cli("webhook", "replay", "orders", "--to", "copies").returncode == 0
    assert up.cli("webhook", "replay", "orders", "--to", up.webhooks["copies"]).returncode == 0
    assert (rows(up, "orders"), rows(up, "copies")) == (before[0] + 1, before[1] + 2)
    (post,) = [line for line in up.cli("webhook", "tail", "copies", "-n", "1", "--json").stdout.splitlines() if line]
    assert '"body":"{\\"n\\":7}"' in post
    assert up.cli("webhook", "replay", "orders", "--offset", "999999").returncode == 2


def test_webhooks_tell_of_what_came_and_what_was_refused(up: UpProcess) -> None:
    """No header's value and nothing of a body is shown."""
    url = up.webhooks["orders"]
    assert requests.post(url, data=b"secret body", headers={"X-Secret": "hidden"}, timeout=30).status_code == 400
    hooks = {hook["webhook"]: hook for hook in up.json("webhooks")}
    assert hooks["orders"]["url"] == url
    assert hooks["orders"]["refused"] and "no JSON" in hooks["orders"]["last_refusal"]["reason"]
    assert hooks["hub"]["shut"] == "its secret is missing: set TAILRACE_SECRET_HUB"
    shown = up.cli("webhooks")
    assert "no JSON" in shown.stdout and "hub takes nothing: its secret is missing" in shown.stderr
    refused = up.json("webhook", "refused", "orders")[-1]
    assert (refused["status"], refused["body_bytes"], refused["body"]) == (400, 11, "")
    assert "X-Secret" in refused["headers"] and "hidden" not in str(refused)
    assert "no JSON" in up.cli("webhook", "refused").stdout
    assert up.cli("webhook", "refused", "nothing").returncode == 2
