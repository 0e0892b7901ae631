"""What the gateway knows of one webhook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tailrace.gateway.limits import RateLimit

__all__ = ["Rule", "SuccessAnswer", "WebhookRoute"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Where the posts go that it fits; the first rule that fits counts."""

    where: Mapping[str, tuple[str | int | float | bool | None, ...]]
    """Values by a JSON pointer into the row, or by `header:NAME`; one of each must be there. None: nothing is there,
    or null."""
    topic: str | None = None
    """None: such a row is dropped; its sender is told that it was taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessAnswer:
    """What the sender of an accepted post is told, instead of 200 and nothing."""

    status: int = 200
    body: str = ""
    content_type: str = "text/plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRoute:
    """Where the posts of one webhook go, and what is asked of them. Made once, at a deployment."""

    webhook: str
    """The id in the URL."""
    topic: str
    respond: bool = False
    """Hold the request until a node answers it (`respond_to_request`)."""
    rate_limit: RateLimit | None = None
    """Posts that come faster get 429."""
    broken: str | None = None
    """What is wrong with its options; it takes nothing then. Better shut than open to all."""

    provider: str | None = None
    """Who posts, a name of `PROVIDERS`; None: whoever knows the URL."""
    provider_settings: Mapping[str, str | int] = field(default_factory=dict)
    """What is other than in the provider's row."""
    secret_names: tuple[str, ...] = ()
    """Names of the live secrets; their values are looked up where they are used, and are in no file of ours."""
    public_keys: tuple[str, ...] = ()
    """Keys that are no secrets: public keys, topics."""
    verify_token_name: str | None = None
    """Name of the secret that handshakes send."""
    url: str | None = None
    """The URL that the sender knows, where the request does not show it (behind a proxy) and signatures cover it."""
    allow_ips: tuple[str, ...] = ()
    """Addresses and networks that may post; empty: all."""

    dedupe: bool = True
    """A repeat of a post with the same id adds no row."""
    dedupe_id: str | None = None
    """Where the id stands: a header's name, or a JSON pointer. None: `Idempotency-Key`, else the provider's."""
    dedupe_window_s: float = 86_400.0
    """How long ids are remembered."""

    flatten: bool = False
    """The keys of each posted object become columns, instead of one column `record`."""
    headers: tuple[str, ...] = ()
    """Headers kept in a column `headers`."""
    partition_key: str | None = None
    """JSON pointer to what keeps its order: rows of one value lie in one partition."""
    partitions: int = 1
    """Of the topic."""
    rules: tuple[Rule, ...] = ()
    answer: SuccessAnswer | None = None
