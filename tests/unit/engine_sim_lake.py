"""The simulated lake and its snapshotters: they fold the simulated log and bring its tables into Delta, trim behind
themselves, and die between any two steps. What they decide, the real code decides: folds, steps of snapshots, retention.

Each partition of a table is a topic of its own here. What is trimmed can be read in the lake alone from then on.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import orjson
from engine_sim_log import Rec, SimLog

from tailrace.lake import RetentionLimits, TableMeta, decide
from tailrace.lake.plan import next_step
from tailrace.lake.retention import TopicFacts, VersionFacts
from tailrace.tables import Snapshot, TableFold, VersionView, message, rows_message

LAKE_FAULTS = (
    "snapshotter: no overlap cut",
    "snapshotter: group position as truth",
    "snapshotter: trim before snapshot",
    "snapshotter: rival not noticed",
)
"""Mistakes that a simulated snapshotter can make."""

BORN_MS = 1_600_000_000_000
_FIELDS = {"v": "Text"}
_STEP_RECORDS_MAX = 40
Topic = tuple[str, int]


@dataclass(frozen=True)
class Delta:
    """One state of a version's Delta table."""

    number: int
    meta: TableMeta
    rows: tuple[Rec, ...]

    def snapshot(self) -> Snapshot:
        view = self.meta.view
        return Snapshot(
            version=view.name,
            folder=view.name,
            delta_version=self.number,
            position=self.meta.position,
            fields=view.fields,
            unique_on=(),
            id_column="patterns_id",
            files=(),
        )


@dataclass
class Lake:
    """What survives: Delta tables, and of each topic the saved fold and the group's place."""

    rng: random.Random
    log: SimLog
    counts: Counter[str]
    fault: str = ""
    tables: dict[tuple[Topic, str], Delta] = field(default_factory=dict)
    folds: dict[Topic, bytes] = field(default_factory=dict)
    places: dict[Topic, int] = field(default_factory=dict)
    starts: dict[Topic, int] = field(default_factory=dict)
    trimmed: dict[Topic, dict[int, Rec | None]] = field(default_factory=dict)
    """What the log had before its start: for the checks alone."""
    alive: list[Snapshotter] = field(default_factory=list)

    # What may happen

    def happens(self) -> None:
        """A snapshotter goes on by a step, dies, or begins."""
        dice = self.rng.random()
        if dice < 0.75 and self.alive:
            next(self.rng.choice(self.alive).life)
        elif dice < 0.80 and self.alive:
            dead = self.rng.choice(self.alive)
            self.alive.remove(dead)
            self.counts[f"snapshotter dies: {dead.at}"] += 1
        elif len(self.alive) < 2:
            self.alive.append(Snapshotter(self))

    def finish(self) -> None:
        """No more deaths: everything comes into the lake."""
        last = Snapshotter(self)
        for topic in self.topics():
            while last.behind(topic):
                for _ in last.step(topic):
                    pass

    def topics(self) -> list[Topic]:
        return [(table, p) for table in sorted(self.log.partitions) for p in range(len(self.log.table(table)))]

    # The log, as far as it still goes

    def lane(self, topic: Topic) -> list[Rec | None]:
        return self.log.table(topic[0])[topic[1]]

    def messages(self, topic: Topic, start: int, stop: int) -> Iterator[tuple[int, int, bytes]]:
        assert start >= self.starts.get(topic, 0), f"{topic}: reads at {start}, which is trimmed"
        for rec in self.lane(topic)[start:stop]:
            if rec is not None:
                yield rec.key.offset, BORN_MS + rec.key.offset, encoded(rec)

    def trim(self, topic: Topic, before: int) -> None:
        """Cut the log off: what lay there is what the lake has of it."""
        lane, held = self.lane(topic), self.held(topic)
        for offset in range(self.starts.get(topic, 0), before):
            rec = lane[offset]
            self.trimmed.setdefault(topic, {})[offset] = rec
            if rec is not None and rec.value != "marker":  # those of versions stand in the fold
                lane[offset] = held.get(offset)
        self.starts[topic] = max(self.starts.get(topic, 0), before)

    def held(self, topic: Topic) -> dict[int, Rec]:
        return {rec.key.offset: rec for (of, _), delta in self.tables.items() if of == topic for rec in delta.rows}

    # The promise

    def check(self) -> None:
        """Of each version: what the lake holds, and the log after it, is what was written, each row once, in order."""
        for topic in self.topics():
            lane = [self.trimmed.get(topic, {}).get(offset, rec) for offset, rec in enumerate(self.lane(topic))]
            fold = TableFold(topic[0])
            fold.advance(((r.key.offset, BORN_MS + r.key.offset, encoded(r)) for r in lane if r), len(lane))
            start = self.starts.get(topic, 0)
            for name in fold.versions:
                view = fold.view_of(name)
                assert view is not None
                written = rows_of(view, lane, 0)
                delta = self.tables.get((topic, name))
                held = list(delta.rows) if delta else []
                tail = rows_of(view, lane, delta.meta.position if delta else 0)
                assert [*held, *tail] == written, (
                    f"{topic} {name}: {len(held)} rows in the lake and {len(tail)} behind it are not the {len(written)}"
                )
                lost = [rec.key.offset for rec in tail if rec.key.offset < start]
                assert not lost, (
                    f"{topic} {name}: {lost} are neither in the lake nor in the log, which begins at {start}"
                )


class Snapshotter:
    """One process. What it knows besides the lake dies with it."""

    def __init__(self, lake: Lake) -> None:
        self.lake, self.rng, self.fault = lake, lake.rng, lake.fault
        self.folds: dict[Topic, TableFold] = {}
        self.places: dict[Topic, int] = {}
        """The group's, as far as it knows."""
        self.known: dict[tuple[Topic, str], Delta] = {}
        """Handles: as of when they were last looked at."""
        self.at = "idle"
        self.life = self._live()

    def _live(self) -> Iterator[None]:
        while True:
            topics = self.lake.topics()
            behind = [topic for topic in topics if self.behind(topic)]
            if behind:
                topic = self.rng.choice(behind)
                for point in self.step(topic):
                    self.at = point
                    yield
                self.at = "idle"
                if self.rng.random() < 0.3:
                    self.retain(topic)
            yield

    def behind(self, topic: Topic) -> bool:
        known = self.folds.get(topic)
        return (known.position if known else self.lake.places.get(topic, 0)) < len(self.lake.lane(topic))

    def step(self, topic: Topic) -> Iterator[str]:
        """1. `topic-read`  2. for each version `lake-read`, `lake-committed`  3. `lake-written`  4. `place-committed`."""
        lake = self.lake
        fold = self._load(topic)
        start = max(self.places[topic], lake.starts.get(topic, 0))
        end = min(len(lake.lane(topic)), max(fold.position, start) + self.rng.randint(1, _STEP_RECORDS_MAX))
        fold.advance(lake.messages(topic, start, end), end)
        yield "topic-read"
        if self.fault == "snapshotter: group position as truth":
            self._save(topic, fold)
            yield "place-committed"
        for name in self._wanted(topic, fold):
            committed = yield from self._snapshot(topic, fold, name, start)
            if not committed:  # a rival was faster: begin anew from what the lake says
                lake.counts["snapshotter: rival was faster"] += 1
                del self.folds[topic]
                return
        yield "lake-written"
        self._save(topic, fold)
        yield "place-committed"

    def _load(self, topic: Topic) -> TableFold:
        lake = self.lake
        if topic not in self.folds or self.folds[topic].position < lake.starts.get(topic, 0):
            self.places[topic] = lake.places.get(topic, 0)
            saved = lake.folds.get(topic)
            fold = TableFold.from_json(orjson.loads(saved)) if saved else TableFold(topic[0])
            if fold.position < lake.starts.get(topic, 0):
                metas = [delta.meta for (of, _), delta in lake.tables.items() if of == topic]
                fold = max((meta.fold() for meta in metas), key=lambda each: each.position, default=fold)
            assert fold.position >= lake.starts.get(topic, 0), f"{topic}: nobody knows how it was folded"
            self.folds[topic] = fold
        return self.folds[topic]

    def _wanted(self, topic: Topic, fold: TableFold) -> list[str]:
        active = fold.active.name if fold.active else None
        names = []
        for name, version in fold.versions.items():
            delta, stop = self.lake.tables.get((topic, name)), version.segments[-1][1]
            if name == active or (delta is not None and (stop is None or stop >= delta.meta.position)):
                names.append(name)
        return names

    def _snapshot(self, topic: Topic, fold: TableFold, name: str, start: int) -> Generator[str, None, bool]:
        """Bring one version to the fold's position; whether no rival was faster."""
        lake, key = self.lake, (topic, name)
        before = self.known.get(key) or lake.tables.get(key)
        now = TableMeta.of(f"{topic[0]}/{topic[1]}", BORN_MS, fold, name)
        step = next_step(now, before.meta if before else None, before.snapshot() if before else None)
        lake.counts[f"snapshot: {step.kind}"] += 1
        if step.kind == "nothing":
            return True
        first = before.meta.position if before and step.kind != "rewrite" else lake.starts.get(topic, 0)
        if self.fault in {"snapshotter: no overlap cut", "snapshotter: group position as truth"}:
            first = start
        kept = before.rows if before and step.kind != "rewrite" else ()
        made = Delta(
            before.number + 1 if before else 0,
            now,
            (*kept, *rows_of(now.view, self.lake.lane(topic), first, now.position)),
        )
        yield "lake-read"
        if lake.tables.get(key) is not before:
            self.known.pop(key, None)
            if self.fault != "snapshotter: rival not noticed":
                return False
            theirs = lake.tables[key]
            added = made.rows[len(kept) :]
            made = Delta(theirs.number + 1, now, (*theirs.rows, *added))
        lake.tables[key] = self.known[key] = made
        yield "lake-committed"
        return True

    def _save(self, topic: Topic, fold: TableFold) -> None:
        """The fold that came furthest counts; the place is a lower bound, and may go back."""
        saved = self.lake.folds.get(topic)
        if saved is None or orjson.loads(saved)["position"] < fold.position:
            self.lake.folds[topic] = orjson.dumps(fold.to_json())
        self.lake.places[topic] = self.places[topic] = fold.position

    def retain(self, topic: Topic) -> None:
        """Let go of what is old and in the lake."""
        lake = self.lake
        saved = lake.folds.get(topic)
        if saved is None:
            return
        fold = TableFold.from_json(orjson.loads(saved))
        start, end = lake.starts.get(topic, 0), len(lake.lane(topic))
        if self.fault == "snapshotter: trim before snapshot":
            lake.trim(topic, end)
            return
        superseded = []
        for name, version in fold.versions.items():
            delta, stop = lake.tables.get((topic, name)), version.segments[-1][1]
            if version is not fold.active and stop is not None:
                position = delta.meta.position if delta else version.segments[0][0]
                in_log_from = position if position < stop else None
                folder = name if delta else None
                superseded.append(VersionFacts(name, version.begun_ms, BORN_MS, in_log_from, folder, 0, 0))
        facts = TopicFacts(
            topic=f"{topic[0]}/{topic[1]}",
            log_start=start,
            in_lake=min(fold.position, lake.places.get(topic, 0)),
            folded=fold.position,
            old_before=self.rng.randint(start, end),
            superseded=tuple(superseded),
        )
        (plan,) = decide([facts], BORN_MS, RetentionLimits()).lanes
        if plan.trims:
            lake.counts["log trimmed"] += 1
            lake.trim(topic, plan.trim_before)


def encoded(rec: Rec) -> bytes:
    """A record as a message of its table."""
    head: dict[str, object] = {"ts": BORN_MS + rec.key.offset}
    if rec.writer:
        head["node"] = rec.writer
    if rec.quiet:
        head["quiet"] = True
    if rec.value == "marker":
        return message({"kind": "version", **head, "fields": _FIELDS})
    return rows_message({"kind": "rows", **head, "n": 1, "fields": _FIELDS}, b'[{"v":"x"}]')


def rows_of(view: VersionView, lane: list[Rec | None], first: int, position: int = 1 << 60) -> list[Rec]:
    """The rows of a version from offset `first` on, before `position`."""
    return [
        rec
        for start, stop in view.segments
        for rec in lane[max(start, first) : min(stop, position)]
        if rec is not None and rec.value != "marker"
    ]
