"""What all tests share: the real broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tailrace.testing.kafka import LocalKafka

# Before any test file imports it: its assertions then tell what they compared.
pytest.register_assert_rewrite("log_contract")


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[LocalKafka]:
    """A real Kafka for this session (with pytest-xdist: one a worker); tests use fresh names on it."""
    with LocalKafka() as broker:
        yield broker
