"""The lake: Delta tables that hold the rows of table versions, so that the log need not keep them. The only user of
deltalake and obstore."""

from __future__ import annotations

from tailrace.lake.delta import TableMeta, VersionTable
from tailrace.lake.errors import LakeConflictError, LakeDamagedError, LakeUnavailableError, LakeUrlError
from tailrace.lake.facts import LakeFacts, examine_lake
from tailrace.lake.files import SnapshotFiles
from tailrace.lake.limits import LakeLimits
from tailrace.lake.location import LakeLocation
from tailrace.lake.objects import LakeObjects
from tailrace.lake.rebuild import rebuild_fold
from tailrace.lake.retention import (
    RetentionLimits,
    RetentionPlan,
    TopicFacts,
    carry_out,
    decide,
    find_facts,
    finish_notes,
)
from tailrace.lake.snapshot import Snapshotted, TopicSource, snapshot_version
from tailrace.lake.staging import StagingArea
from tailrace.lake.upkeep import Tidied, compact, files_to_join, tidy

__all__ = [
    "LakeConflictError",
    "LakeDamagedError",
    "LakeFacts",
    "LakeLimits",
    "LakeLocation",
    "LakeObjects",
    "LakeUnavailableError",
    "LakeUrlError",
    "RetentionLimits",
    "RetentionPlan",
    "SnapshotFiles",
    "Snapshotted",
    "StagingArea",
    "TableMeta",
    "Tidied",
    "TopicFacts",
    "TopicSource",
    "VersionTable",
    "carry_out",
    "compact",
    "decide",
    "examine_lake",
    "files_to_join",
    "find_facts",
    "finish_notes",
    "rebuild_fold",
    "snapshot_version",
    "tidy",
]
