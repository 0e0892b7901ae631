"""All benchmarks by name."""

from __future__ import annotations

from importlib import import_module

from benchmarks.result import Result

__all__ = ["BENCHMARKS", "run"]

BENCHMARKS = {
    "stream-embedded": "stream:embedded",
    "stream-kafka": "stream:kafka",
    "live-embedded": "live:embedded",
    "live-kafka": "live:kafka",
    "fire": "live:fire",
    "gateway-embedded": "gateway:embedded",
    "gateway-kafka": "gateway:kafka",
    "gateway-capacity": "gateway_capacity:capacity",
    "parallel": "parallel:parallel",
    "bulk": "bulk:bulk",
    "bulk-lake": "bulk_lake:bulk_lake",
    "read": "read:read",
    "open": "opening:opening",
    "upkeep": "upkeep:upkeep",
    "snapshot": "snapshot:snapshot",
    "snapshot-memory": "snapshot:snapshot_memory",
    "freshness": "snapshot:freshness",
    "memory": "memory:memory",
    "fanout": "fanout:fanout",
    "rebalance": "rebalance:rebalance",
    "idle": "rest:idle",
    "start": "rest:start",
}
"""Module and function of each."""


def run(name: str, *, quick: bool) -> Result:
    """Run one benchmark."""
    module, function = BENCHMARKS[name].split(":")
    result: Result = getattr(import_module(f"benchmarks.{module}"), function)(quick=quick)
    return result
