"""The door of one webhook: addresses, signatures and handshakes, from its route and its secrets."""

from __future__ import annotations

import os
from collections.abc import Callable
from ipaddress import ip_address, ip_network

from tailrace.gateway.custom import provider_of
from tailrace.gateway.deliveries import Delivery
from tailrace.gateway.handshakes import Reply, Visit, handshake
from tailrace.gateway.keys import KeyStore, KeyUnavailableError
from tailrace.gateway.refusals import RefusedError
from tailrace.gateway.route import WebhookRoute
from tailrace.gateway.verify import KeyNeeded, Refusal, address_refusal, verify
from tailrace.process import secret_variable

__all__ = ["Guard", "SecretOf", "environment_secret", "guard_of", "sender_address"]

SecretOf = Callable[[str], str | None]
"""The value of a secret by its name; None while it has none."""


def environment_secret(name: str) -> str | None:
    """The secret in `TAILRACE_SECRET_<NAME>`."""
    return os.environ.get(secret_variable(name))


def guard_of(route: WebhookRoute, secret_of: SecretOf, keys: KeyStore, *, retry_after_s: int) -> Guard | None:
    """The guard of a webhook; None where it takes posts from all."""
    if route.provider is None and not route.allow_ips and route.broken is None:
        return None
    return Guard(route, secret_of, keys, retry_after_s=retry_after_s)


def sender_address(peer: str, forwarded_for: str | None, trusted: tuple[str, ...]) -> str:
    """Who sent a request: the peer, or whom the last trusted proxy names in `X-Forwarded-For`."""
    address = peer
    for before in reversed((forwarded_for or "").split(",")[-20:]):
        if not _within(address, trusted) or not before.strip():
            break
        address = before.strip()
    return address


def _within(address: str, networks: tuple[str, ...]) -> bool:
    try:
        return any(ip_address(address) in ip_network(network, strict=False) for network in networks)
    except ValueError:
        return False


class Guard:
    """Lets genuine requests through.

    Args:
        secret_of: asked at each request, so that a secret that is set or changed counts at once.
    """

    def __init__(self, route: WebhookRoute, secret_of: SecretOf, keys: KeyStore, *, retry_after_s: int) -> None:
        self.url = route.url
        self.provider = None if route.provider is None else provider_of(route.provider, route.provider_settings)
        self._route = route
        self._secret_of = secret_of
        self._keys = keys
        self._headers = {"Retry-After": str(retry_after_s)}

    @property
    def shut(self) -> str | None:
        """Why it lets nobody through, for the webhook's owner; None where it lets somebody."""
        if self._route.broken is not None:
            return f"its options in graph.yml cannot be used: {self._route.broken}"
        if self.provider is not None and not self._secrets():
            names = ", ".join(secret_variable(name) for name in self._route.secret_names)
            return f"its secret is missing: set {names or 'one'}"
        return None

    def check_address(self, sender: Callable[[], str]) -> None:
        """Before the body is read. Raises RefusedError."""
        if self._route.broken is not None:
            raise RefusedError(
                503, "broken", "this webhook is not set up as it should be: tell its owner", self._headers
            )
        if self._route.allow_ips:
            refusal = address_refusal(self._route.allow_ips, sender())
            if refusal is not None:
                raise self._refused(refusal)

    async def admit(self, delivery: Delivery, now_ms: int) -> Reply | None:
        """None where `delivery` is a genuine post; an answer where it is a handshake. Raises RefusedError."""
        provider = self.provider
        if provider is None:
            return None
        secrets = self._secrets()
        if provider.handshakes:
            reply = await self._shake(delivery, secrets, verified=False)
            if reply is not None:
                return reply
        if delivery.method != "POST":
            raise RefusedError(405, "method", "post to this webhook", {"Allow": "POST"})
        verdict = verify(provider.scheme, secrets, delivery, now_ms)
        if isinstance(verdict, KeyNeeded):
            try:
                keys = await self._keys.get(verdict, secrets)
            except KeyUnavailableError as error:
                raise RefusedError(503, "key", str(error), self._headers) from error
            verdict = verify(provider.scheme, secrets, delivery, now_ms, keys)
        if verdict is not None:
            assert isinstance(verdict, Refusal), "the key was handed over"
            raise self._refused(verdict)
        return await self._shake(delivery, secrets, verified=True) if provider.handshakes else None

    async def _shake(self, delivery: Delivery, secrets: list[str], *, verified: bool) -> Reply | None:
        assert self.provider is not None
        name = self._route.verify_token_name
        token = None if name is None else self._secret_of(name)
        answer = handshake(self.provider, secrets, delivery, verified=verified, verify_token=token)
        if isinstance(answer, Refusal):
            raise self._refused(answer)
        if isinstance(answer, Visit):
            try:
                await self._keys.visit(answer.url)
            except KeyUnavailableError as error:
                raise RefusedError(503, "key", str(error), self._headers) from error
            return Reply(b"", "text/plain")
        return answer

    def _secrets(self) -> list[str]:
        secrets = [value for name in self._route.secret_names if (value := self._secret_of(name))]
        secrets += self._route.public_keys
        return secrets

    def _refused(self, refusal: Refusal) -> RefusedError:
        headers = self._headers if refusal.status == 503 else None
        return RefusedError(refusal.status, refusal.code, refusal.reason, headers)
