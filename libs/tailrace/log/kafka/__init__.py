"""The distributed log: Apache Kafka. The only room that knows confluent-kafka."""

from __future__ import annotations

from tailrace.log.kafka._log import KafkaLog
from tailrace.log.kafka._restore import KafkaRestore
from tailrace.log.kafka._url import KafkaUrl

__all__ = ["KafkaLog", "KafkaRestore", "KafkaUrl"]
