"""What the gateway knows of one webhook."""

from __future__ import annotations

from dataclasses import dataclass

from tailrace.gateway.limits import RateLimit

__all__ = ["WebhookRoute"]


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
