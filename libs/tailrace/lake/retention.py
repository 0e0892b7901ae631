"""What may go, and how it goes: old table versions with their Delta tables, old records of the log, staged files.

The decision is a pure function of what was found. Carrying it out survives a crash after each of its steps:

 1. `retention-decided`        nothing has changed.
 2. `retention-noted`          the point of no return: a note in the app's index names all that goes. The next round
                               finishes what a note names before it decides anything new.
 3. `retention-dropped`        a `drop` marker in the table's topic says which versions go, and tombstones in the index that
                               their snapshots are gone. A version that somebody had restored before the marker stays; after
                               it nobody can.
 4. `retention-folders-gone`   the versions' Delta tables are deleted; nobody has found them since step 3.
 5. `retention-trimmed`        the log begins where it is to begin.
 6. `retention-files-gone`     staged files are deleted whose last message was trimmed.
 7. `retention-closed`         the note is taken away.

What stays can always be read: a record goes only when it is in the lake, the fold behind it is saved, and it is older
than the retention; a version goes only when it was superseded for longer than that, or when there are very many.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, NamedTuple

import orjson

from tailrace.errors import SettingError
from tailrace.lake.errors import lake_errors
from tailrace.lake.location import LakeLocation
from tailrace.lake.staging import StagingArea
from tailrace.log import Append, Log, NewRecord, Offset, Partition, Writer, scan
from tailrace.runtime import SYSTEM, Runtime
from tailrace.tables import Snapshot, VersionView, message, split_head

__all__ = [
    "GoneVersion",
    "RetentionLimits",
    "RetentionPlan",
    "TopicFacts",
    "VersionFacts",
    "carry_out",
    "decide",
    "find_facts",
    "finish_notes",
]

_HOUR_MS = 3_600_000
_NOTE = b"retention:"
_NEVER_MS = 1 << 62
_SUFFIX = 10
"""Characters at the end of a version's name, and of its folder's, that grow with time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionLimits:
    """How long what stays."""

    retention: timedelta = timedelta(days=7)
    """How long superseded versions stay readable, and records in the log that are in the lake."""

    grace: timedelta = timedelta(minutes=70)
    """Nothing goes that was readable so recently, whatever else is said: a run reads the version that it pinned. The
    longest run limit, and an hour."""

    versions_max: int = 100
    """Superseded versions of a table that all stay; of older ones one an hour does. A table that is replaced all day makes
    thousands."""

    round_records_max: int = 200_000
    """Records of a topic that are trimmed in one round, because each is looked at once more for the files that it names."""

    def __post_init__(self) -> None:
        if self.versions_max < 1 or self.round_records_max < 1:
            raise SettingError("versions_max", self.versions_max, "at least 1, and round_records_max as well")

    @property
    def kept_ms(self) -> int:
        """How long, in milliseconds."""
        return int(max(self.retention, self.grace).total_seconds() * 1000)


class VersionFacts(NamedTuple):
    """One superseded version."""

    name: str
    begun_ms: int
    superseded_ms: int
    """0 where the log does not tell any more: long ago."""
    in_log_from: int | None
    """From this offset on its rows are in the log alone; None: all of them are in the lake."""
    folder: str | None
    """Of its Delta table; None where it has none."""
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicFacts:
    """What was found about one topic."""

    topic: str
    log_start: int
    in_lake: int
    """Every record before this offset is in the lake, and the fold up to here is saved."""
    folded: int
    """The position of the saved fold."""
    old_before: int
    """Every record before this offset is older than the retention."""
    superseded: tuple[VersionFacts, ...] = ()
    """Without the active version."""
    forgotten: tuple[VersionFacts, ...] = ()
    """Delta tables of versions that the fold does not know any more, because of many it keeps some."""


class GoneVersion(NamedTuple):
    """A version that goes."""

    name: str
    folder: str | None
    why: str
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPlan:
    """What goes of one topic."""

    topic: str
    versions: tuple[GoneVersion, ...] = ()
    decided_at: int = 0
    """The position as of which none of these versions was active."""
    log_start: int = 0
    trim_before: int = 0
    """The log's start afterwards; not above `log_start` where no record goes."""
    why_trim: str = ""
    files: tuple[str, ...] = field(default=())
    """Staged files that go, below the staging folder."""

    @property
    def empty(self) -> bool:
        """Whether nothing goes."""
        return not self.versions and self.trim_before <= self.log_start

    def to_json(self) -> dict[str, Any]:
        """For people and for the note."""
        return {
            "topic": self.topic,
            "versions": [each._asdict() for each in self.versions],
            "decided_at": self.decided_at,
            "log_start": self.log_start,
            "trim_before": self.trim_before,
            "why_trim": self.why_trim,
            "files": list(self.files),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RetentionPlan:
        """The inverse of `to_json`."""
        return cls(
            topic=data["topic"],
            versions=tuple(GoneVersion(**each) for each in data["versions"]),
            decided_at=data["decided_at"],
            log_start=data["log_start"],
            trim_before=data["trim_before"],
            why_trim=data["why_trim"],
            files=tuple(data["files"]),
        )


# -- the decision ---------------------------------------------------------------------------------------------------


def decide(facts: TopicFacts, now_ms: int, limits: RetentionLimits) -> RetentionPlan:
    """What goes, and why."""
    gone = {each.name: why for each, why in _versions_going(facts.superseded, now_ms, limits)}
    versions = [
        GoneVersion(each.name, each.folder, gone[each.name], each.rows, each.size_bytes)
        for each in facts.superseded
        if each.name in gone and each.folder is not None
    ]
    versions += [
        GoneVersion(
            each.name,
            each.folder,
            "forgotten: of many versions the newest stay, and one an hour",
            each.rows,
            each.size_bytes,
        )
        for each in facts.forgotten
    ]
    # A version that stays may have never come into the lake, or, where two snapshotters were at work, not to its end.
    staying = [each.in_log_from for each in facts.superseded if each.name not in gone]
    in_log = [offset for offset in staying if offset is not None]
    before = min([facts.in_lake, facts.old_before, *in_log])
    return RetentionPlan(
        topic=facts.topic,
        versions=tuple(versions),
        decided_at=facts.folded,
        log_start=facts.log_start,
        trim_before=max(before, facts.log_start),
        why_trim=f"older than {_text(limits.kept_ms)} and in the lake" if before > facts.log_start else "",
    )


def _versions_going(
    superseded: Sequence[VersionFacts], now_ms: int, limits: RetentionLimits
) -> Iterable[tuple[VersionFacts, str]]:
    newest_first = sorted(superseded, key=lambda each: each.begun_ms, reverse=True)
    older = newest_first[limits.versions_max :]
    # The first of an hour stays, so that the one that stays is the same in each round.
    first_of_hour = {each.begun_ms // _HOUR_MS: each.name for each in older}
    grace_ms = int(limits.grace.total_seconds() * 1000)
    for each in newest_first:
        age_ms = now_ms - each.superseded_ms
        if age_ms > limits.kept_ms:
            yield each, f"superseded for more than {_text(limits.kept_ms)}"
        elif age_ms > grace_ms and each in older and first_of_hour[each.begun_ms // _HOUR_MS] != each.name:
            yield each, f"one of many: {limits.versions_max} newer ones stay, and of its hour another"


def _text(ms: int) -> str:
    seconds = ms / 1000
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} seconds"


# -- what it goes by ------------------------------------------------------------------------------------------------


def find_facts(
    log: Log,
    topic: str,
    views: Sequence[VersionView],
    active: str | None,
    snapshots: Mapping[str, Snapshot],
    *,
    folders: Iterable[str] = (),
    folded: int,
    in_lake: int,
    now_ms: int,
    limits: RetentionLimits,
) -> TopicFacts:
    """What log and index say about a topic.

    Args:
        views: all versions of a saved fold.
        snapshots: the newest of each version that has a Delta table.
        folders: all Delta tables of the topic, those too that the index does not know.
        folded: that fold's position.
        in_lake: the lower of it and the group's place.
    """
    partition = Partition(topic)
    start, end = log.starts([partition])[partition], log.ends([partition])[partition]
    begun = {view.segments[0][0]: view.begun_ms for view in views if view.segments}
    superseded = [
        _facts(log, partition, start, view, snapshots.get(view.name), begun)
        for view in views
        if view.name != active and view.segments
    ]
    known = {view.name[-_SUFFIX:] for view in views}
    newest = max(known, default="")
    by_folder = {snapshot.folder: name for name, snapshot in snapshots.items()}
    forgotten = [
        VersionFacts(by_folder.get(folder, folder.rpartition("/")[2]), 0, 0, None, folder, 0, 0)
        for folder in sorted({*folders, *by_folder})
        if folder[-_SUFFIX:] not in known
        and folder[-_SUFFIX:] < newest  # a newer one that we do not know is another's, who is ahead of us
    ]
    return TopicFacts(
        topic=topic,
        log_start=start,
        in_lake=in_lake,
        folded=folded,
        old_before=_first_since(log, partition, start, end, now_ms - limits.kept_ms),
        superseded=tuple(superseded),
        forgotten=tuple(forgotten),
    )


def _facts(
    log: Log,
    partition: Partition,
    start: int,
    view: VersionView,
    snapshot: Snapshot | None,
    begun: Mapping[int, int],
) -> VersionFacts:
    """`begun`: first offset of each version, and when it began: most are superseded by the beginning of another."""
    _, stop = view.segments[-1]
    superseded_ms = begun.get(stop, 0)
    if not superseded_ms and stop >= start:
        batch = log.read(partition, Offset(stop), records_max=1)
        superseded_ms = batch.records[0].ts_ms if batch.records else _NEVER_MS
    in_log_from: int | None = view.segments[0][0]
    if snapshot is not None:
        in_log_from = snapshot.position if snapshot.position < stop else None
    return VersionFacts(
        view.name,
        view.begun_ms,
        superseded_ms,
        in_log_from,
        snapshot.folder if snapshot is not None else None,
        snapshot.rows if snapshot is not None else view.appended,
        _size(snapshot) if snapshot is not None else 0,
    )


def _size(snapshot: Snapshot) -> int:
    return sum(file.size_bytes for file in snapshot.files)


def _first_since(log: Log, partition: Partition, start: int, end: int, since_ms: int) -> int:
    """The offset before which every record is older; records come in the order of their times, more or less."""
    low, high = start, end
    first = log.read(partition, Offset(start), stop=Offset(end), records_max=1).records
    if first and first[0].ts_ms >= since_ms:
        return start
    while low < high:
        middle = (low + high) // 2
        batch = log.read(partition, Offset(middle), stop=Offset(high), records_max=1)
        if batch.records and batch.records[0].ts_ms < since_ms:
            low = batch.records[0].offset + 1
        else:  # what lies there is younger, or nothing does
            high = middle
    return low


# -- carrying it out ------------------------------------------------------------------------------------------------


def carry_out(
    log: Log,
    location: LakeLocation,
    plan: RetentionPlan,
    *,
    index: Partition,
    staging: StagingArea,
    writer: Writer,
    limits: RetentionLimits,
    runtime: Runtime = SYSTEM,
) -> RetentionPlan:
    """Let go of what the plan says, as far as one round goes; returns what went.

    Args:
        writer: one of this app's retention alone: whoever opens it later fences whoever is still at it.
    """
    runtime.probe.reached("retention-decided")
    before = min(plan.trim_before, plan.log_start + limits.round_records_max)
    files = _files_before(log, Partition(plan.topic), plan.log_start, before, staging)
    going = replace(plan, trim_before=before, files=tuple(files))
    note = NewRecord(orjson.dumps(going.to_json()), _NOTE + going.topic.encode())
    writer.commit([Append(index, [note])])
    runtime.probe.reached("retention-noted")
    return _finish(log, location, going, index, staging, writer, runtime)


def finish_notes(
    log: Log,
    location: LakeLocation,
    *,
    index: Partition,
    staging: StagingArea,
    writer: Writer,
    runtime: Runtime = SYSTEM,
) -> list[RetentionPlan]:
    """Finish what rounds have begun that did not get to their ends."""
    start, end = log.starts([index])[index], log.settled_ends([index])[index]
    notes: dict[bytes, bytes | None] = {}
    for batch in scan(log, index, start, end):
        notes.update((r.key, r.value) for r in batch.records if r.key is not None and r.key.startswith(_NOTE))
    plans = [RetentionPlan.from_json(orjson.loads(value)) for value in notes.values() if value is not None]
    return [_finish(log, location, plan, index, staging, writer, runtime) for plan in plans]


def _finish(
    log: Log,
    location: LakeLocation,
    plan: RetentionPlan,
    index: Partition,
    staging: StagingArea,
    writer: Writer,
    runtime: Runtime,
) -> RetentionPlan:
    plan = _drop(log, plan, index, writer)
    runtime.probe.reached("retention-dropped")
    for version in plan.versions:
        if version.folder is not None:
            _delete_folder(location, version.folder)
    runtime.probe.reached("retention-folders-gone")
    partition = Partition(plan.topic)
    if plan.trim_before > plan.log_start and plan.topic in log.topics(plan.topic):
        start, before = plan.log_start, -1
        while before < start < plan.trim_before:
            before, start = start, log.trim(partition, Offset(plan.trim_before))
    runtime.probe.reached("retention-trimmed")
    for path in plan.files:
        staging.delete(path)
    runtime.probe.reached("retention-files-gone")
    writer.commit([Append(index, [NewRecord(None, _NOTE + plan.topic.encode())])])
    runtime.probe.reached("retention-closed")
    return plan


def _drop(log: Log, plan: RetentionPlan, index: Partition, writer: Writer) -> RetentionPlan:
    """Say in the topic that the versions go, from where on nobody can restore them; the plan without one that somebody
    had restored before that."""
    names = [each.name for each in plan.versions]
    infos = log.topics(plan.topic)
    if not names or plan.topic not in infos:
        return plan
    marker = NewRecord(message({"kind": "drop", "names": names, "quiet": True}))
    writer.commit([Append(Partition(plan.topic, number), [marker]) for number in range(infos[plan.topic].partitions)])
    restored = _active_at_drop(log, Partition(plan.topic), plan.decided_at, names)
    versions = tuple(each for each in plan.versions if each.name != restored)
    gone = [NewRecord(None, f"{plan.topic}@{each.name}".encode()) for each in versions]
    if gone:
        writer.commit([Append(index, gone)])
    return replace(plan, versions=versions)


def _active_at_drop(log: Log, partition: Partition, start: int, names: Sequence[str]) -> str | None:
    """The version that a marker at or after `start` had made active when the versions were dropped."""
    active = None
    for batch in scan(log, partition, Offset(start), log.settled_ends([partition])[partition]):
        for record in batch.records:
            head = split_head(record.value)
            if head.get("kind") == "drop" and set(names) <= set(head.get("names") or ()):
                return active
            if head.get("kind") in ("activate", "version", "reset"):
                active = str(head["name"]) if head["kind"] == "activate" else None
    raise AssertionError("it was dropped just now")


def _files_before(log: Log, partition: Partition, start: int, before: int, staging: StagingArea) -> list[str]:
    """The staged files whose last message lies before `before`: that of their last row group."""
    found: dict[str, int] = {}
    for batch in scan(log, partition, Offset(start), Offset(before)):
        for record in batch.records:
            if record.value is not None and b'"file"' in record.value[:64]:
                head = split_head(record.value)
                if head.get("kind") == "file":
                    found[str(head["path"])] = int(head["row_group"])
    groups = {path: staging.row_groups(path) for path in found}
    return [path for path, last in found.items() if (groups[path] or sys.maxsize) <= last + 1]


def _delete_folder(location: LakeLocation, folder: str) -> None:
    with lake_errors(folder, "the folder"):
        if location.is_local:
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(location.local_path(folder))
            return
        store = location.store(folder)
        for chunk in store.list():
            store.delete([each["path"] for each in chunk])
