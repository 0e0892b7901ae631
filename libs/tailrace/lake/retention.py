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

Where a Table has several partitions, a version goes in all of them or in none: it must have been superseded in each.
Nobody can say in one transaction that a version is gone and know that nobody restores it in another, since the two may
lie in another order in each partition. So it goes in two rounds. The first one's `drop` marker hides it, and after the
grace nobody can be left who saw it before and restores it; whoever did meanwhile has brought it back in all partitions.
The second one says that it is gone, and deletes.

What stays can always be read: a record goes only when it is in the lake, the fold behind it is saved, and it is older
than the retention; a version goes only when it was superseded for longer than that, or when there are very many.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain
from typing import Any, NamedTuple

import orjson

from tailrace.errors import SettingError
from tailrace.lake.errors import lake_errors
from tailrace.lake.location import SUFFIX_CHARS, LakeLocation
from tailrace.lake.staging import StagingArea
from tailrace.log import Append, Log, NewRecord, Offset, Partition, Writer, scan
from tailrace.runtime import SYSTEM, Runtime
from tailrace.tables import Snapshot, TableFold, VersionView, lane_of, message, split_head

__all__ = [
    "GoneVersion",
    "LanePlan",
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
    def grace_ms(self) -> int:
        """`grace`, in milliseconds."""
        return int(self.grace.total_seconds() * 1000)

    @property
    def kept_ms(self) -> int:
        """How long, in milliseconds."""
        return int(max(self.retention, self.grace).total_seconds() * 1000)


class VersionFacts(NamedTuple):
    """One superseded version, in one lane or over all."""

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
    dropped_ms: int | None = None
    """When a `drop` marker has hidden it; None: it can be restored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicFacts:
    """What was found about one topic, or one of its several partitions."""

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
    active: str | None = None
    newest_ms: int = 0
    """When the newest version began that the fold knows; for ever where the log never had a record."""

    def has_passed(self, version: VersionFacts) -> bool:
        """Whether the version is superseded here, or will never be here."""
        if version.name == self.active:
            return False
        return any(each.name == version.name for each in self.superseded) or version.begun_ms < self.newest_ms


class GoneVersion(NamedTuple):
    """A version that goes."""

    name: str
    folder: str | None
    why: str
    rows: int
    size_bytes: int


class LanePlan(NamedTuple):
    """What goes of the records of one partition."""

    decided_at: int
    """The position as of which none of the versions that go was active."""
    log_start: int
    trim_before: int
    """The log's start afterwards; not above `log_start` where no record goes."""
    why_trim: str = ""
    files: tuple[str, ...] = ()
    """Staged files that go, below the staging folder."""

    @property
    def trims(self) -> bool:
        """Whether records go."""
        return self.trim_before > self.log_start

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LanePlan:
        """The inverse of `_asdict`; what else is there is passed over."""
        wanted = {name: data[name] for name in cls._fields}
        return cls(**{**wanted, "files": tuple(data["files"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPlan:
    """What goes of one topic."""

    topic: str
    versions: tuple[GoneVersion, ...] = ()
    hidden: tuple[GoneVersion, ...] = ()
    """Versions of a topic with several partitions that nobody can restore any more, and that go in a later round."""
    lanes: tuple[LanePlan, ...] = ()
    """By partition."""

    @property
    def empty(self) -> bool:
        """Whether nothing goes."""
        return not (self.versions or self.hidden or any(lane.trims for lane in self.lanes))

    def to_json(self) -> dict[str, Any]:
        """For people and for the note."""
        return {
            "topic": self.topic,
            "versions": [each._asdict() for each in self.versions],
            "hidden": [each._asdict() for each in self.hidden],
            "lanes": [lane._asdict() for lane in self.lanes],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RetentionPlan:
        """The inverse of `to_json`; a note that is older than lanes has what is of its only one in itself."""
        return cls(
            topic=data["topic"],
            versions=tuple(GoneVersion(**each) for each in data["versions"]),
            hidden=tuple(GoneVersion(**each) for each in data.get("hidden", ())),
            lanes=tuple(LanePlan.from_json(each) for each in data.get("lanes", [data])),
        )


# -- the decision ---------------------------------------------------------------------------------------------------


def decide(lanes: Sequence[TopicFacts], now_ms: int, limits: RetentionLimits) -> RetentionPlan:
    """What goes of a topic, given what was found of each of its partitions, and why."""
    superseded, forgotten = _over_all(lanes)
    going = dict(_versions_going(superseded, now_ms, limits))
    versions: list[GoneVersion] = []
    hidden: list[GoneVersion] = []
    for each in superseded:
        why = going.get(each)
        if each.dropped_ms is not None:  # nobody can restore it, whatever is said by now
            if now_ms - each.dropped_ms > limits.grace_ms:
                versions.append(_gone(each, why or "dropped"))
        elif why is not None and each.folder is not None:
            (versions if len(lanes) == 1 else hidden).append(_gone(each, why))
    versions += [_gone(each, "forgotten: of many versions the newest stay, and one an hour") for each in forgotten]
    # Those without a Delta table have nothing but their records, which nobody can ask for any more.
    let_go = {each.name for each in versions} | {each.name for each in going if each.folder is None}
    return RetentionPlan(
        topic=lanes[0].topic,
        versions=tuple(versions),
        hidden=tuple(hidden),
        lanes=tuple(_trim(lane, let_go, limits) for lane in lanes),
    )


def _over_all(lanes: Sequence[TopicFacts]) -> tuple[Sequence[VersionFacts], Sequence[VersionFacts]]:
    """The versions that are superseded in all partitions, and those that all have forgotten."""
    if len(lanes) == 1:
        return lanes[0].superseded, lanes[0].forgotten
    superseded = [
        _as_one(found)
        for found in _grouped(lambda each: each.name, (lane.superseded for lane in lanes))
        if all(lane.has_passed(found[0]) for lane in lanes)
    ]
    forgotten = [
        _as_one(sorted(found, key=lambda each: each.name == _folder_name(each.folder or "")))
        for found in _grouped(lambda each: LakeLocation.suffix(each.folder or ""), (lane.forgotten for lane in lanes))
        if len(found) == len(lanes)
    ]
    return superseded, forgotten


def _grouped(
    key: Callable[[VersionFacts], str], lanes: Iterable[Iterable[VersionFacts]]
) -> Iterable[list[VersionFacts]]:
    found: dict[str, list[VersionFacts]] = {}
    for each in chain.from_iterable(lanes):
        found.setdefault(key(each), []).append(each)
    return found.values()


def _folder_name(folder: str) -> str:
    """What a version is called of which nothing but its folder is known."""
    return LakeLocation.version_folder(folder).rpartition("/")[2]


def _as_one(found: Sequence[VersionFacts]) -> VersionFacts:
    """One version, given what it is in the partitions that know it."""
    folders = [each.folder for each in found if each.folder is not None]
    dropped_ms = [each.dropped_ms for each in found if each.dropped_ms is not None]
    return VersionFacts(
        found[0].name,
        found[0].begun_ms,
        max(each.superseded_ms for each in found),
        None,
        LakeLocation.version_folder(folders[0]) if folders else None,
        sum(each.rows for each in found),
        sum(each.size_bytes for each in found),
        max(dropped_ms) if len(dropped_ms) == len(found) else None,
    )


def _gone(version: VersionFacts, why: str) -> GoneVersion:
    return GoneVersion(version.name, version.folder, why, version.rows, version.size_bytes)


def _trim(facts: TopicFacts, let_go: Container[str], limits: RetentionLimits) -> LanePlan:
    # A version that stays may have never come into the lake, or, where two snapshotters were at work, not to its end.
    staying = [each.in_log_from for each in facts.superseded if each.name not in let_go]
    in_log = [offset for offset in staying if offset is not None]
    before = min([facts.in_lake, facts.old_before, *in_log])
    return LanePlan(
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
    for each in newest_first:
        age_ms = now_ms - each.superseded_ms
        if age_ms > limits.kept_ms:
            yield each, f"superseded for more than {_text(limits.kept_ms)}"
        elif age_ms > limits.grace_ms and each in older and first_of_hour[each.begun_ms // _HOUR_MS] != each.name:
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
    partition: Partition,
    fold: TableFold,
    snapshots: Mapping[str, Snapshot],
    *,
    folders: Iterable[str] = (),
    in_lake: int,
    now_ms: int,
    limits: RetentionLimits,
) -> TopicFacts:
    """What log and index say about a topic, or one of its several partitions.

    Args:
        fold: the saved one.
        snapshots: the newest of each version that has a Delta table.
        folders: all Delta tables of the topic, those too that the index does not know.
        in_lake: the lower of the fold's position and the group's place.
    """
    start, end = log.starts([partition])[partition], log.ends([partition])[partition]
    active = fold.active.name if fold.active is not None else None
    dropped_ms = {name: ms for name, (ms, _) in fold.dropped.items()}
    dropped = [version for _, version in fold.dropped.values()]
    views = [version.view(fold.position) for version in (*fold.versions.values(), *dropped)]
    begun = {view.segments[0][0]: view.begun_ms for view in views if view.segments}
    superseded = [
        _facts(log, partition, start, view, snapshots.get(view.name), begun)._replace(
            dropped_ms=dropped_ms.get(view.name)
        )
        for view in views
        if view.name != active and view.segments
    ]
    known = {view.name[-SUFFIX_CHARS:] for view in views}
    newest = max(known, default="")
    by_folder = {snapshot.folder: name for name, snapshot in snapshots.items()}
    forgotten = [
        VersionFacts(by_folder.get(folder, _folder_name(folder)), 0, 0, None, folder, 0, 0)
        for folder in sorted({*folders, *by_folder})
        if LakeLocation.suffix(folder) not in known
        and LakeLocation.suffix(folder) < newest  # a newer one that we do not know is another's, who is ahead of us
    ]
    return TopicFacts(
        topic=partition.topic,
        log_start=start,
        in_lake=in_lake,
        folded=fold.position,
        old_before=_first_since(log, partition, start, end, now_ms - limits.kept_ms),
        superseded=tuple(superseded),
        forgotten=tuple(forgotten),
        active=active,
        newest_ms=max((view.begun_ms for view in views), default=0) if end > 0 else _NEVER_MS,
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
    lanes = []
    for number, lane in enumerate(plan.lanes):
        before = min(lane.trim_before, lane.log_start + limits.round_records_max)
        files = _files_before(log, Partition(plan.topic, number), lane.log_start, before, staging)
        lanes.append(lane._replace(trim_before=before, files=tuple(files)))
    going = replace(plan, lanes=tuple(lanes))
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
    there = plan.topic in log.topics(plan.topic)
    for number, lane in enumerate(plan.lanes):
        start, before = lane.log_start, -1
        while there and before < start < lane.trim_before:
            before, start = start, log.trim(Partition(plan.topic, number), Offset(lane.trim_before))
    runtime.probe.reached("retention-trimmed")
    for lane in plan.lanes:
        for path in lane.files:
            staging.delete(path)
    runtime.probe.reached("retention-files-gone")
    writer.commit([Append(index, [NewRecord(None, _NOTE + plan.topic.encode())])])
    runtime.probe.reached("retention-closed")
    return plan


def _drop(log: Log, plan: RetentionPlan, index: Partition, writer: Writer) -> RetentionPlan:
    """Say in the topic that the versions go, from where on nobody can restore them; the plan without those that somebody
    had restored before that."""
    names, hidden = [each.name for each in plan.versions], [each.name for each in plan.hidden]
    if not (names or hidden) or plan.topic not in log.topics(plan.topic):
        return plan
    lanes = [(Partition(plan.topic, number), lane.decided_at) for number, lane in enumerate(plan.lanes)]
    # What is said already need not be said again: a version may have been restored since it was hidden.
    if not all(_active_at_drop(log, *lane, names, hidden) for lane in lanes):
        marks = [{"names": names, "gone": True}] if names else []
        marks += [{"names": hidden}] if hidden else []
        records = [NewRecord(message({"kind": "drop", **mark, "quiet": True})) for mark in marks]
        writer.commit([Append(partition, records) for partition, _ in lanes])
    restored = set()
    for lane in lanes:
        found = _active_at_drop(log, *lane, names, hidden)
        assert found is not None, "it was dropped just now"
        restored.add(found.active)
    versions = tuple(each for each in plan.versions if each.name not in restored)
    keys = [lane_of(plan.topic, number) for number in range(len(lanes))]
    gone = [NewRecord(None, f"{key}@{each.name}".encode()) for key in keys for each in versions]
    if gone:
        writer.commit([Append(index, gone)])
    return replace(plan, versions=versions)


class _AtDrop(NamedTuple):
    active: str | None
    """The version that a marker had made active since it was decided."""


def _active_at_drop(
    log: Log, partition: Partition, start: int, names: Sequence[str], hidden: Sequence[str]
) -> _AtDrop | None:
    """How it was when these versions were dropped, at or after `start`; None where they were not."""
    active = None
    for batch in scan(log, partition, Offset(start), log.settled_ends([partition])[partition]):
        for record in batch.records:
            head = split_head(record.value)
            said = head.get("names") if head.get("kind") == "drop" else None
            if said == (names or hidden) and bool(head.get("gone")) == bool(names):
                return _AtDrop(active)
            if head.get("kind") in ("activate", "version", "reset"):
                active = str(head["name"]) if head["kind"] == "activate" else None
    return None


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
