"""What apps and their authors test with.

`run_node` runs one node file over rows, `TestApp` a whole app over tables in memory; `tailrace.testing.kafka` starts a
real Apache Kafka on this machine.
"""

from __future__ import annotations

from tailrace.testing.app import TestApp, TestRun, run_node

__all__ = ["TestApp", "TestRun", "run_node"]
