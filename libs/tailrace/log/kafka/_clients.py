"""Producers, consumers and the admin client, with the settings that the promises rest on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from tailrace.log.contract import LogLimits
from tailrace.log.errors import LogUnavailableError, LogUrlError
from tailrace.log.kafka._connections import Connections
from tailrace.log.kafka._failures import DENIED, error_of, reason_of
from tailrace.log.kafka._url import KafkaUrl

__all__ = ["LOGGER", "Clients", "discard", "make_contact"]

LOGGER = _LOGGER = logging.getLogger("tailrace.log.kafka")

_NOISE = ("CONFWARN", "FAIL", "TERMINATE")
"""Lines of librdkafka that say nothing to an operator: that `enable.gapless.guarantee` is experimental (with every
producer), and each try of each client to reach a broker that is away (whoever calls gets an error that tells it)."""

_LOGGER.addHandler(logging.NullHandler())
_LOGGER.addFilter(lambda record: _LOGGER.isEnabledFor(logging.DEBUG) or not record.getMessage().startswith(_NOISE))

_FETCH_BYTES = 1 << 20
"""Most bytes of one fetch of one partition (Kafka's default). With 4 MB long reads are a fifth faster, but what was
fetched ahead in vain makes a jump elsewhere cost 12 ms instead of 4."""


class Clients:
    """Makes clients for one log, and remembers what went wrong on their connections."""

    def __init__(self, url: KafkaUrl, limits: LogLimits) -> None:
        self.url = url
        self.limits = limits
        self.closed = False
        self._last_error = ""

    def admin(self) -> AdminClient:
        client: AdminClient = self._make(AdminClient, {"retry.backoff.ms": 10})
        return client

    def producer(self, connections: Connections | None = None, /, **settings: object) -> Producer:
        """An idempotent producer, acks=all; `connections` hears when it loses one."""
        if connections is not None:
            settings |= {"logger": connections, "log_level": 6}
        client: Producer = self._make(
            Producer,
            {
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 0,
                # After a commit the broker answers CONCURRENT_TRANSACTIONS for some milliseconds, and librdkafka waits
                # this long before it asks again: 105 ms a transaction with the default of 100, 5 ms with 1.
                "retry.backoff.ms": 1,
                "retry.backoff.max.ms": 20,
                "message.max.bytes": self.message_bytes_max,
                # No bounds of its own: what it holds is what our callers wait for, and a full queue in the middle of a
                # batch would take later records before earlier ones.
                "queue.buffering.max.messages": 2_147_483_647,
                "queue.buffering.max.kbytes": 2_147_483_647,
                **settings,
            },
        )
        return client

    def consumer(self, **settings: object) -> Consumer:
        """A consumer that only assigns: it joins no group and commits nothing."""
        client: Consumer = self._make(
            Consumer,
            {
                "group.id": "tailrace-reader",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                "fetch.message.max.bytes": _FETCH_BYTES,
                "fetch.error.backoff.ms": 20,
                "receive.message.max.bytes": 1_000_000_000,
                **settings,
            },
        )
        return client

    @property
    def message_bytes_max(self) -> int:
        """A record of the largest size, with what Kafka adds to it."""
        return self.limits.record_bytes_max + (64 << 10)

    @property
    def timeout_s(self) -> float:
        return self.limits.request_timeout.total_seconds()

    def check_open(self) -> None:
        if self.closed:
            raise LogUnavailableError(self.url.shown, "it is closed")

    def unavailable(self, doing: str, error: object = None) -> LogUnavailableError:
        """What to raise when the time is up: where, what was seen last, what to look at."""
        if self.closed:
            return LogUnavailableError(self.url.shown, "it is closed")
        seen = "; ".join(text for text in (reason_of(error) if error is not None else "", self._last_error) if text)
        known = error_of(error) if isinstance(error, BaseException) else error
        if isinstance(known, KafkaError) and known.code() in DENIED:
            user = self.url.settings.get("sasl.username", "ANONYMOUS")
            return LogUnavailableError(
                self.url.shown,
                f"{doing} is denied to the user {user} at {self.url.servers} ({reason_of(known)}): give it the rights that "
                "docs/operations.md lists; `tailrace doctor` names those that are missing",
            )
        return LogUnavailableError(
            self.url.shown,
            f"{doing} was not done at {self.url.servers} within {self.timeout_s:g} s"
            + (f" ({seen})" if seen else "")
            + ": is Kafka running there, and can its advertised.listeners be reached from here?",
        )

    def _make(self, kind: Callable[..., Any], settings: dict[str, object]) -> Any:
        self.check_open()
        common = {
            "bootstrap.servers": self.url.servers,
            "client.id": "tailrace",
            "logger": _LOGGER,
            "log_level": 4,
            "error_cb": self._heard_error,
            "reconnect.backoff.ms": 20,
            "reconnect.backoff.max.ms": 500,
            "socket.keepalive.enable": True,
            "topic.metadata.refresh.sparse": True,
            "allow.auto.create.topics": False,
            "broker.address.family": "any",
        }
        if kind is not Consumer:
            del common["allow.auto.create.topics"]
        try:
            return kind({**common, **self.url.settings, **settings})
        except (KafkaException, ValueError, TypeError) as error:
            known = error_of(error)
            if known is None or known.code() in (KafkaError._INVALID_ARG, KafkaError._NOT_IMPLEMENTED):
                raise LogUrlError(self.url.shown, reason_of(error)) from error
            raise self.unavailable("making a client", error) from error

    def _heard_error(self, error: KafkaError) -> None:
        self._last_error = error.str()
        _LOGGER.debug("%s: %s", self.url.servers, error)


def make_contact(producer: Producer, topic: str, timeout_s: float) -> None:
    """Wait until `producer` has its connection. Asked for its id before that, librdkafka 2.16 sleeps for half a second. The first
    answer comes from a bootstrap server, which it then drops; the second from a broker it keeps.

    Raises KafkaException where nobody answers in time.
    """
    until_s = time.monotonic() + timeout_s
    for _ in range(2):
        producer.list_topics(topic, timeout=max(until_s - time.monotonic(), 0.001))


def discard(client: object) -> None:
    """Let go of a client without waiting for it: taking one down can take as long as its last request."""
    # The thread holds the last reference, so that the client ends there.
    threading.Thread(target=_hold, args=(client,), name="tailrace-kafka-discard", daemon=True).start()


def _hold(client: object) -> None:
    if isinstance(client, Producer):
        try:
            client.purge()
        except Exception as error:  # it goes away anyway
            _LOGGER.debug("purging a producer: %s", error)
    elif isinstance(client, Consumer):
        client.close()
