"""The gateway: webhooks come in over HTTP and are in the log before they are answered."""

from __future__ import annotations

from tailrace.gateway.access import AccessLog, AccessLogSettings
from tailrace.gateway.app import Gateway
from tailrace.gateway.bodies import BodyLimits
from tailrace.gateway.limits import RateLimit
from tailrace.gateway.refusals import RefusedError
from tailrace.gateway.route import WebhookRoute
from tailrace.gateway.settings import GatewaySettings

__all__ = [
    "AccessLog",
    "AccessLogSettings",
    "BodyLimits",
    "Gateway",
    "GatewaySettings",
    "RateLimit",
    "RefusedError",
    "WebhookRoute",
]
