"""What apps and their authors test with: `tailrace.testing.kafka` starts a real Apache Kafka on this machine."""

from __future__ import annotations

__all__: list[str] = []
