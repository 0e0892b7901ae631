"""`kafka://host:9092,host2:9092?setting=value`: what it names, and how it is shown without its secrets."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from tailrace.log.errors import LogUrlError

__all__ = ["KafkaUrl"]

_SECRET = re.compile(r"password|secret|token|credential|jaas|oauthbearer\.config|key\.pem|private", re.IGNORECASE)
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")
_SAFETY = frozenset(
    (
        *("bootstrap.servers", "metadata.broker.list", "transactional.id", "enable.idempotence", "isolation.level"),
        *("enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset", "enable.partition.eof", "group.id"),
        *("acks", "request.required.acks", "enable.gapless.guarantee", "message.timeout.ms", "delivery.timeout.ms"),
        *("transaction.timeout.ms", "delivery.report.only.error", "plugin.library.paths"),
    )
)
"""Settings that our promises rest on: nobody else sets them."""


@dataclass(frozen=True, slots=True)
class KafkaUrl:
    """A parsed URL. `repr` and `shown` hold no secret."""

    servers: str
    """`host:port,host:port`."""

    settings: dict[str, str] = field(repr=False)
    """librdkafka's settings, from the query."""

    shown: str
    """The URL with its secrets masked: what errors and logs may print."""

    @classmethod
    def parse(cls, url: str) -> KafkaUrl:
        """Raises LogUrlError, whose text masks secrets too."""
        shown = _masked(url)
        scheme, separator, rest = url.partition("://")
        if scheme != "kafka" or not separator:
            raise LogUrlError(shown, "it must begin with kafka://")
        hosts, _, query = rest.partition("?")
        if "@" in hosts:
            raise LogUrlError(
                shown,
                "give the user as ?security.protocol=SASL_SSL&sasl.username=...&sasl.password=..., not before an @",
            )
        servers = [server for server in hosts.rstrip("/").split(",") if server]
        if not servers:
            raise LogUrlError(shown, "it names no host: kafka://host:9092,host2:9092")
        for server in servers:
            if not _SERVER.fullmatch(server):
                raise LogUrlError(shown, f"{server!r} is no host:port")
        try:
            settings = dict(parse_qsl(query, strict_parsing=True)) if query else {}
        except ValueError:
            raise LogUrlError(shown, "what follows ? must be setting=value&setting=value") from None
        for name in settings:
            if name in _SAFETY:
                raise LogUrlError(shown, f"{name} is set by Tailrace, because its promises rest on it: leave it out")
        with_ports = [server if re.search(r":\d+$", server) else f"{server}:9092" for server in servers]
        return cls(",".join(with_ports), settings, shown)

    def ssl_context(self) -> ssl.SSLContext | None:
        """For clients other than librdkafka: what its settings ask for; None where they ask for no TLS."""
        settings = self.settings
        if not settings.get("security.protocol", "").lower().endswith("ssl"):
            return None
        context = ssl.create_default_context(cafile=settings.get("ssl.ca.location"))
        if settings.get("ssl.endpoint.identification.algorithm") == "none":
            context.check_hostname = False
        if certificate := settings.get("ssl.certificate.location"):
            context.load_cert_chain(certificate, settings.get("ssl.key.location"), settings.get("ssl.key.password"))
        return context


def _masked(url: str) -> str:
    head, separator, query = url.partition("?")
    head = re.sub(r"//.*@", "//***@", head)
    parts = []
    for part in query.split("&"):
        name, equals, _ = part.partition("=")
        parts.append(f"{name}=***" if equals and _SECRET.search(name) else part)
    return head + separator + "&".join(parts)
