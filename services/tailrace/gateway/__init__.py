"""The gateway: webhooks come in over HTTP and are in the log before they are answered."""

from __future__ import annotations

from tailrace.gateway.app import Gateway
from tailrace.gateway.route import WebhookRoute
from tailrace.gateway.settings import GatewaySettings

__all__ = ["Gateway", "GatewaySettings", "WebhookRoute"]
