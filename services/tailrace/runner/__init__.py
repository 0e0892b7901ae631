"""The runner: the host that carries the engine's decisions out, and the workers that run nodes' code."""

from __future__ import annotations

from tailrace.runner.asking import AskError
from tailrace.runner.catalog import UnknownTableError
from tailrace.runner.containment import Containment, containment
from tailrace.runner.deployment import Deployment, ParallelismError, check_parallelism, deploy
from tailrace.runner.environments import EnvironmentBuildError
from tailrace.runner.host import Host, UnknownNodeError
from tailrace.runner.journal import Entry, LogLine, RunEntry, UnknownRunError
from tailrace.runner.letters import BadLetterError, UnknownLetterError
from tailrace.runner.past import PastGoneError
from tailrace.runner.replay import StateNotKeptError, WrittenGoneError
from tailrace.runner.sandbox import ExecutorMissingError
from tailrace.runner.settings import RunnerSettings
from tailrace.runner.slots import SLOTS_TOPIC, agree_on_shards
from tailrace.runner.view import HostView, UnknownAppError

__all__ = [
    "SLOTS_TOPIC",
    "AskError",
    "BadLetterError",
    "Containment",
    "Deployment",
    "Entry",
    "EnvironmentBuildError",
    "ExecutorMissingError",
    "Host",
    "HostView",
    "LogLine",
    "ParallelismError",
    "PastGoneError",
    "RunEntry",
    "RunnerSettings",
    "StateNotKeptError",
    "UnknownAppError",
    "UnknownLetterError",
    "UnknownNodeError",
    "UnknownRunError",
    "UnknownTableError",
    "WrittenGoneError",
    "agree_on_shards",
    "check_parallelism",
    "containment",
    "deploy",
]
