"""The gateway: webhooks come in over HTTP and are in the log before they are answered."""

from __future__ import annotations

from tailrace.gateway.access import AccessLog, AccessLogSettings
from tailrace.gateway.app import Gateway
from tailrace.gateway.bodies import BodyLimits
from tailrace.gateway.limits import RateLimit
from tailrace.gateway.ops import Ops
from tailrace.gateway.refusals import RefusedError
from tailrace.gateway.route import WebhookRoute
from tailrace.gateway.routes import RoutesFileError, write_routes
from tailrace.gateway.routing import DoubleWebhookError, webhook_problems, webhook_route, webhook_routes
from tailrace.gateway.server import Door, PortTakenError
from tailrace.gateway.settings import GatewaySettings, ProcessSettings
from tailrace.gateway.view import GatewayView

__all__ = [
    "AccessLog",
    "AccessLogSettings",
    "BodyLimits",
    "Door",
    "DoubleWebhookError",
    "Gateway",
    "GatewaySettings",
    "GatewayView",
    "Ops",
    "PortTakenError",
    "ProcessSettings",
    "RateLimit",
    "RefusedError",
    "RoutesFileError",
    "WebhookRoute",
    "webhook_problems",
    "webhook_route",
    "webhook_routes",
    "write_routes",
]
