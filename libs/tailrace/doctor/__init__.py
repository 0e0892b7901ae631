"""What is wrong with a deployment, and the command that mends it: facts in, findings out."""

from __future__ import annotations

from tailrace.doctor.checks import CHECKS, Finding, examine_all, hanging_writers, topic_mends
from tailrace.doctor.facts import Facts, MachineFacts

__all__ = ["CHECKS", "Facts", "Finding", "MachineFacts", "examine_all", "hanging_writers", "topic_mends"]
