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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With pytest-xdist (`--dist loadgroup`) what needs a broker goes to one process: one broker for all."""
    for item in items:
        if item.get_closest_marker("kafka"):
            item.add_marker(pytest.mark.xdist_group("kafka"))
