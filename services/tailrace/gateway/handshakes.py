"""Answers to the requests by which providers find out whether we are there. Pure; the rows are in `providers`."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from tailrace.gateway.deliveries import Delivery
from tailrace.gateway.schemes import Handshake, Provider
from tailrace.gateway.verify import Refusal, is_amazon_sns, same

__all__ = ["Reply", "Visit", "handshake", "slack_challenge"]

_ASKED_MAX = 1_024
"""Longest text that is handed back; providers send a few dozen characters."""


class Reply(NamedTuple):
    """What is answered, instead of taking the request as a post."""

    body: bytes
    content_type: str = "application/json"
    """Send it with `X-Content-Type-Options: nosniff`: the text is whatever a stranger sent."""


class Visit(NamedTuple):
    """A URL of the provider's that is to be fetched; then the answer is empty."""

    url: str


def handshake(
    provider: Provider, secrets: Sequence[str], delivery: Delivery, *, verified: bool, verify_token: str | None = None
) -> Reply | Visit | Refusal | None:
    """The answer, if the request is a handshake; None if it is a post like any other.

    Called twice: with `verified=False` before a request is checked, with True after it was found genuine.

    Args:
        verify_token: the text agreed upon for handshakes that send one; None: any of the secrets.
    """
    for row in provider.handshakes:
        if row.verified != verified or row.method != delivery.method:
            continue
        if any(delivery.read(source)[:1] != [value] for source, value in row.where):
            continue
        asked = delivery.read(row.asks)[:1] if row.asks is not None else [""]
        if asked and len(asked[0]) <= _ASKED_MAX:
            return _answer(row, asked[0], secrets, delivery, verify_token)
    return None


def slack_challenge(rows: list[Any]) -> Reply | None:
    """Slack's handshake, at a webhook that asks nobody who they are: apps of the original count on it."""
    if len(rows) != 1 or type(rows[0]) is not dict or rows[0].get("type") != "url_verification":
        return None
    asked = rows[0].get("challenge")
    return Reply(orjson.dumps({"challenge": asked})) if type(asked) is str and len(asked) <= _ASKED_MAX else None


def _answer(
    row: Handshake, asked: str, secrets: Sequence[str], delivery: Delivery, verify_token: str | None
) -> Reply | Visit | Refusal:
    live = [secret for secret in secrets if secret]
    if row.token is not None:
        tokens = [verify_token] if verify_token else live
        if not same(tokens, delivery.read(row.token)):
            return Refusal("signature_wrong", f"{row.token.name} is not this webhook's verify token")
    if row.visit is not None:
        url = next(iter(delivery.read(row.visit)), "")
        if not is_amazon_sns(url):
            return Refusal("signature_wrong", f"{row.visit.name} does not lead to the provider")
        return Visit(url)
    if row.answer is None:
        return Reply(asked.encode(), "text/plain")
    if "{hmac" in str(row.answer) and not live:
        return Refusal("secret_missing", "this webhook has no secret yet: its owner must set one")
    digest = hmac.digest(live[0].encode(), asked.encode(), "sha256") if live else b""
    texts = {"{asked}": asked, "{hmac-hex}": digest.hex(), "{hmac-base64}": base64.b64encode(digest).decode()}
    return Reply(orjson.dumps({key: _filled(value, texts) for key, value in row.answer.items()}))


def _filled(value: Any, texts: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for name, text in texts.items():
            if name in value:  # once: what is asked may itself look like a name
                return value.replace(name, text)
    return value
