"""The control log: which apps are to run, in which version, and which ran before.

Deployments are events that carry the app's files; gateways, runners and snapshotters follow them.
"""

from __future__ import annotations

from tailrace.control.archive import AppTooLargeError, ArchiveLimits, BadArchiveError, content_hash, pack, unpack
from tailrace.control.changes import Changes, changes
from tailrace.control.controllog import ControlLog, DeployConflictError, DeployedApp, Outcome
from tailrace.control.deployments import VERSIONS_KEPT, AppVersion, Deployments, NoSuchDeploymentError
from tailrace.control.events import CONTROL, CONTROL_TOPIC, Deployed, Undeployed
from tailrace.control.folders import place_files
from tailrace.control.following import follow_deployments

__all__ = [
    "CONTROL",
    "CONTROL_TOPIC",
    "VERSIONS_KEPT",
    "AppTooLargeError",
    "AppVersion",
    "ArchiveLimits",
    "BadArchiveError",
    "Changes",
    "ControlLog",
    "DeployConflictError",
    "Deployed",
    "DeployedApp",
    "Deployments",
    "NoSuchDeploymentError",
    "Outcome",
    "Undeployed",
    "changes",
    "content_hash",
    "follow_deployments",
    "pack",
    "place_files",
    "unpack",
]
