"""What all tests share: the real broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tailrace.testing.kafka import LocalKafka


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[LocalKafka]:
    """A real Kafka for this session (with pytest-xdist: one a worker); tests use fresh names on it."""
    with LocalKafka() as broker:
        yield broker
