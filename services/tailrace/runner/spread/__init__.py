"""Runners that share a Kafka log: which of them hosts which shards follows the membership of a consumer group."""

from __future__ import annotations

from tailrace.runner.spread.claims import ClaimLimits, Claims
from tailrace.runner.spread.group import RunnerPortError
from tailrace.runner.spread.service import DataFolderTakenError, GroupLostError, SpreadRunner
from tailrace.runner.spread.settings import NotSharedError, SpreadSettings

__all__ = [
    "ClaimLimits",
    "Claims",
    "DataFolderTakenError",
    "GroupLostError",
    "NotSharedError",
    "RunnerPortError",
    "SpreadRunner",
    "SpreadSettings",
]
