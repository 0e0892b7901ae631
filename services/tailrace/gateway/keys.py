"""Keys that must be fetched before a post can be checked: Amazon's certificates, Plaid's public keys.

Only fixed hosts are asked, redirects are not followed, answers are bounded, and what came is kept for a day. A key that
could not be had is not asked for again for a minute, so that forged posts cannot make us ask without end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import aiohttp
import orjson

from tailrace.errors import RetriableError
from tailrace.gateway.verify import KeyNeeded, is_amazon_sns
from tailrace.runtime import Clock

__all__ = ["KeyStore", "KeyUnavailableError"]

_KEYS_MAX = 256
"""Most keys kept; the oldest goes. Senders name the keys, so without a bound they would fill our memory."""
_KEPT_S = 86_400.0
_REFUSED_S = 60.0
_TIMEOUT_S = 5.0
_BYTES_MAX = 65_536
_ASKING_MAX = 4
"""Most requests under way; others wait their turn."""
_PLAID_URLS = {
    name: f"https://{name}.plaid.com/webhook_verification_key/get" for name in ("production", "sandbox", "development")
}


class KeyUnavailableError(RetriableError):
    """A key could not be fetched."""

    def __init__(self, host: str, why: str) -> None:
        self.host, self.why = host, why
        super().__init__(f"the key to check this post could not be had from {host} ({why}): send it again later")


class KeyStore:
    """Fetches keys and keeps them. Belongs to one event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[tuple[str, ...], tuple[float, bytes | KeyUnavailableError]] = {}
        self._session: aiohttp.ClientSession | None = None
        self._turn = asyncio.Semaphore(_ASKING_MAX)

    async def get(self, needed: KeyNeeded, secrets: Sequence[str]) -> Mapping[str, bytes]:
        """The key by its name, for `verify`; empty where its owner says that there is none.

        Raises:
            KeyUnavailableError: retriable.
        """
        asks = (needed.kind, needed.name, *(secrets if needed.kind == "plaid" else ()))
        kept = self._kept.get(asks)
        if kept is None or self._clock.monotonic_s() >= kept[0]:
            async with self._turn:
                kept = self._kept.get(asks)
                if kept is None or self._clock.monotonic_s() >= kept[0]:
                    kept = await self._fetch(needed, secrets)
                    self._keep(asks, kept)
        if isinstance(kept[1], KeyUnavailableError):
            raise kept[1]
        return {needed.name: kept[1]}

    async def visit(self, url: str) -> None:
        """Fetch a URL of Amazon SNS: so a subscription is confirmed. Raises KeyUnavailableError."""
        assert is_amazon_sns(url), "the handshake looked"
        await self._ask("GET", url, None)

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()

    async def _fetch(self, needed: KeyNeeded, secrets: Sequence[str]) -> tuple[float, bytes | KeyUnavailableError]:
        try:
            if needed.kind == "certificate":
                assert is_amazon_sns(needed.name), "the check looked"
                key = await self._ask("GET", needed.name, None)
            else:
                key = await self._plaid(needed.name, secrets)
        except KeyUnavailableError as error:
            return self._clock.monotonic_s() + _REFUSED_S, error
        return self._clock.monotonic_s() + (_KEPT_S if key else _REFUSED_S), key

    async def _plaid(self, kid: str, secrets: Sequence[str]) -> bytes:
        """The key as JSON, of the first secret (`client_id:secret`, or `client_id:secret@sandbox`) that Plaid knows."""
        for secret in secrets:
            client, _, rest = secret.partition(":")
            value, _, environment = rest.partition("@")
            url = _PLAID_URLS.get(environment or "production")
            if url is None or not value:
                continue
            answer = await self._ask("POST", url, {"client_id": client, "secret": value, "key_id": kid})
            try:
                key = orjson.loads(answer)["key"]
            except (orjson.JSONDecodeError, KeyError, TypeError):
                continue
            if isinstance(key, dict) and not key.get("expired_at"):
                return orjson.dumps(key)
        return b""

    async def _ask(self, method: str, url: str, body: Mapping[str, str] | None) -> bytes:
        """The answer's body; empty where the host refuses (4xx)."""
        host = url.split("/")[2]
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S))
        try:
            async with self._session.request(method, url, json=body, allow_redirects=False) as response:
                if 400 <= response.status < 500:
                    return b""
                if response.status != 200:
                    raise KeyUnavailableError(host, f"status {response.status}")
                data = await response.content.read(_BYTES_MAX + 1)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise KeyUnavailableError(host, type(error).__name__) from error
        if len(data) > _BYTES_MAX:
            raise KeyUnavailableError(host, f"over {_BYTES_MAX} bytes")
        return data

    def _keep(self, asks: tuple[str, ...], kept: tuple[float, bytes | KeyUnavailableError]) -> None:
        self._kept.pop(asks, None)
        while len(self._kept) >= _KEYS_MAX:
            del self._kept[next(iter(self._kept))]
        self._kept[asks] = kept
