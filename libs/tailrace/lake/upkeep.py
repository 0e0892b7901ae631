"""Keeping a Delta table quick: small files joined, the Delta log short, files away that nobody can ask for any more."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tailrace.lake.delta import VersionTable
from tailrace.lake.errors import LakeConflictError, LakeDamagedError, lake_errors
from tailrace.lake.limits import LakeLimits
from tailrace.lake.parts import Part, PartWriter, conform
from tailrace.runtime import SYSTEM, Runtime
from tailrace.tables import SnapshotFile

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Tidied", "compact", "files_to_join", "tidy"]

_COMMIT = re.compile(r"(\d{20})\.(json|checkpoint(\.\d+\.\d+)?\.parquet)\Z").match


@dataclass(frozen=True, slots=True)
class Tidied:
    """What `tidy` did."""

    checkpoint: bool = False
    """Whether a Delta checkpoint was written."""
    commits_deleted: int = 0
    files_deleted: int = 0


def files_to_join(files: Sequence[SnapshotFile], limits: LakeLimits) -> list[Sequence[SnapshotFile]]:
    """Runs of neighbours to be joined, each to one file, in order.

    A file's tier tells its size, by powers of `files_joined_min`. A run has that many files of one tier, and none of a
    higher one; the smallest tier that has runs is joined. So a row is written again about once for each tier, and of each
    tier less than `files_joined_min` neighbours stay. Full files stay as they are.
    """
    tiers = [_tier(file.size_bytes, limits) for file in files]
    for tier in sorted({each for each in tiers if each is not None}):
        runs = list(_runs(files, tiers, tier, limits))
        if runs:
            return runs
    return []


def _runs(
    files: Sequence[SnapshotFile], tiers: Sequence[int | None], tier: int, limits: LakeLimits
) -> Iterator[Sequence[SnapshotFile]]:
    """Neighbours of `tier` and below, as many as one file may hold; those with too few of `tier` itself left out."""
    run: list[SnapshotFile] = []
    alike = size_bytes = 0
    for file, its_tier in [*zip(files, tiers, strict=True), (None, None)]:
        fits = its_tier is not None and its_tier <= tier
        if file is None or not fits or size_bytes + file.size_bytes > limits.file_bytes_target * 5 // 4:
            if alike >= limits.files_joined_min:
                yield run
            run, alike, size_bytes = [], 0, 0
        if file is not None and fits:
            run.append(file)
            alike += its_tier == tier
            size_bytes += file.size_bytes


def _tier(size_bytes: int, limits: LakeLimits) -> int | None:
    """None for a file that is full."""
    if size_bytes * 2 > limits.file_bytes_target:
        return None
    tier = 0
    while size_bytes > _TIER_0_BYTES:
        size_bytes //= limits.files_joined_min
        tier += 1
    return tier


_TIER_0_BYTES = 64 << 10
"""Files up to this size are alike: most of the work with them is to open them."""


def compact(table: VersionTable, *, limits: LakeLimits | None = None, runtime: Runtime = SYSTEM) -> int:
    """Join neighbouring small files; the number of files that went. The rows and their order stay.

     1. `compact-read`        the joined files lie there, named by no state; `tidy` takes them away.
     2. `compact-committed`   the point of no return: the joined files stand for the small ones.

    Rivals may append meanwhile. Where one took a file away, perhaps so long ago that it is deleted, nothing is done: the next
    time will do.

    Raises:
        LakeUnavailableError: retriable; the lake cannot be reached or written.
        LakeDamagedError: rejected; a file is not as we left it.

    Memory is bounded by a row group.
    """
    limits = limits or LakeLimits()
    snapshot = table.snapshot()
    removed: list[SnapshotFile] = []
    parts: list[Part] = []
    schema = table.file_schema()
    for run in files_to_join(snapshot.files, limits):
        writer = PartWriter(
            table.location, table.folder, schema, snapshot.id_column, limits=limits, runtime=runtime, one_file=True
        )
        try:
            for chunk in _rows(table, run):
                writer.write(conform(chunk, schema))
            parts += writer.finish()
        except Exception as error:
            writer.discard()
            if isinstance(error, LakeDamagedError) and _are_replaced(table, run):
                return 0
            raise
        removed += run
    if not removed:
        return 0
    runtime.probe.reached("compact-read")
    try:
        table.replace(parts, removed, now_ms=runtime.clock.now_ms())
    except LakeConflictError:
        table.reload()
        return 0
    runtime.probe.reached("compact-committed")
    return len(removed)


def _are_replaced(table: VersionTable, files: Sequence[SnapshotFile]) -> bool:
    """Whether a rival replaced some of them: `table` was behind, and is not any more."""
    table.reload()
    return not {file.path for file in files} <= {file.path for file in table.snapshot().files}


def _rows(table: VersionTable, files: Sequence[SnapshotFile]) -> Iterator[pa.Table]:
    import pyarrow.parquet as pq

    with table.location.local_files(table.folder, [file.path for file in files]) as folder:
        for file in files:
            with lake_errors(table.folder, file.path), pq.ParquetFile(folder / file.path) as parquet:
                for group in range(parquet.num_row_groups):
                    yield parquet.read_row_group(group)


def tidy(table: VersionTable, *, limits: LakeLimits | None = None, runtime: Runtime = SYSTEM) -> Tidied:
    """Write a Delta checkpoint where it is time, shorten the Delta log, and delete what no state names any more.

     1. `tidy-checkpoint`   the Delta checkpoint is there; nothing has gone yet.
     2. `tidy-log`          the commits before the Delta checkpoint before the last are gone.
     3. `tidy-files`        so are files that were removed, or left behind by a crash, `limits.removed_kept` ago.

    Raises:
        LakeUnavailableError: retriable; the lake cannot be reached or written.
        LakeDamagedError: rejected; the Delta table is not as we left it.
    """
    limits = limits or LakeLimits()
    table.reload()
    checkpoints, commits = _delta_log(table)
    # By multiples, as whoever calls this goes by them: else one that came a little late puts off the next by a whole round.
    every = limits.checkpoint_every
    checkpoint = table.delta_version // every > max(checkpoints, default=0) // every
    if checkpoint:
        table.checkpoint()
        checkpoints.append(table.delta_version)
    runtime.probe.reached("tidy-checkpoint")
    covered = [version for version in checkpoints if version <= table.delta_version - limits.commits_kept]
    deleted = 0
    if covered:
        old = [path for version, path in commits if version < max(covered)]
        with lake_errors(table.folder):
            for start in range(0, len(old), 1_000):  # oldest first: what is left has no holes
                table.store.delete(old[start : start + 1_000])
        deleted = len(old)
    runtime.probe.reached("tidy-log")
    files = table.vacuum(limits.removed_kept)
    runtime.probe.reached("tidy-files")
    return Tidied(checkpoint, deleted, files)


def _delta_log(table: VersionTable) -> tuple[list[int], list[tuple[int, str]]]:
    """Versions that have a Delta checkpoint, and all files of the Delta log with their versions, in order."""
    checkpoints: list[int] = []
    files: list[tuple[int, str]] = []
    with lake_errors(table.folder):
        for batch in table.store.list("_delta_log"):
            for entry in batch:
                name = entry["path"].rpartition("/")[2]
                found = _COMMIT(name)
                if found:
                    files.append((int(found[1]), entry["path"]))
                    if found[2] != "json":
                        checkpoints.append(int(found[1]))
    return sorted(checkpoints), sorted(files)
