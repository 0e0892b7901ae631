"""The log's contract on a real Kafka, and what Kafka alone has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from log_contract import LogContract, MakeLog

from tailrace.log import Log, LogLimits, open_log
from tailrace.runtime import SYSTEM, Runtime
from tailrace.testing.kafka import LocalKafka


@pytest.mark.kafka
class TestKafkaLog(LogContract):
    """On new topics of the session's broker."""

    @pytest.fixture
    def log_url(self, kafka_broker: LocalKafka) -> str:
        return kafka_broker.url

    @pytest.fixture
    def commit_points(self) -> tuple[str, str]:
        return "kafka-commit-before", "kafka-commit-after"

    @pytest.fixture
    def make_log(self, log_url: str) -> Iterator[MakeLog]:
        handles: list[Log] = []

        def make(*, limits: LogLimits | None = None, runtime: Runtime = SYSTEM) -> Log:
            handles.append(open_log(log_url, limits=limits, runtime=runtime))
            return handles[-1]

        yield make
        for handle in handles:
            handle.close()
