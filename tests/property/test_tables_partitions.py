"""A Table with several partitions against a model: any writes, its partitions brought into the lake and trimmed at any time
between, read whole, streamed, and as of cuts that split the last transaction."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.lake import LakeLocation, TopicSource, compact, snapshot_version
from tailrace.node.table import Table
from tailrace.tables import StagedFiles, parse_id, partition_of_key
from tailrace.testing.app import MemoryTable, TestApp

STORE = "orders"
WRITES = ("append", "upsert", "replace", "reset", "truncate", "delete", "widen", "activate")
LAKE = ("snapshot", "trim")

rows = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=5)
writes = st.lists(st.tuples(st.sampled_from((*WRITES, *LAKE, *LAKE)), rows), max_size=9)
last_writes = st.tuples(st.sampled_from(WRITES), rows)


class Model:
    """What a table holds: the rows of its active version in the order of writing; None where there is none."""

    def __init__(self, *, keyed: bool) -> None:
        self.keyed = keyed
        self.rows: list[tuple[int, float]] | None = None
        self.versions: dict[str, list[tuple[int, float]]] = {}
        """What each version held when it was last active."""

    def note(self, active: str | None) -> None:
        """The version that holds the rows now has this name."""
        assert (active is None) == (self.rows is None)
        if active is not None:
            self.versions[active] = list(self.rows or [])

    def choose(self, number: int) -> str | None:
        """One of the versions there were."""
        return list(self.versions)[number % len(self.versions)] if self.versions else None

    def write(self, kind: str, given: Sequence[tuple[int, int]]) -> None:
        if kind == "widen":
            given = wider(given)
        if kind == "activate":
            name = self.choose(len(given))
            self.rows = self.rows if name is None else list(self.versions[name])
        elif kind == "replace":
            self.rows = list(given) or None
        elif kind == "reset":
            self.rows = None
        elif kind == "truncate":
            self.rows = None if self.rows is None else []
        elif kind == "delete":
            gone = {k for k, _ in given}
            self.rows = None if self.rows is None else [row for row in self.rows if row[0] not in gone]
        elif given:
            self.rows = [*(self.rows or []), *given]

    @property
    def seen(self) -> list[tuple[int, float]] | None:
        """What readers see."""
        if self.rows is None or not self.keyed:
            return self.rows
        last = {k: at for at, (k, _) in enumerate(self.rows)}
        return [row for at, row in enumerate(self.rows) if last[row[0]] == at]


def wider(given: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Rows that make the type of `v` wider in the partitions that they come to."""
    return [(k, v + 0.5) for k, v in given]


class Lake:
    """What a snapshotter and retention do, by hand: each partition by itself."""

    def __init__(self, app: TestApp, folder: Path) -> None:
        self.app, self.location = app, LakeLocation.parse(str(folder / "lake"))
        self.trimmed: dict[str, list[tuple[int, int, bytes]]] = {}
        """By lane, the records that are in its log no more."""

    def take(self, kind: str, given: Sequence[tuple[int, int]]) -> None:
        """Snapshot the partitions of the keys that are given, or all; with `trim` let go of what their logs had."""
        lanes = self.app.lanes[STORE]
        for number in {k % len(lanes) for k, _ in given} or range(len(lanes)):
            lane = lanes[number]
            self._snapshot(lane, number)
            if kind == "trim":
                self.trimmed[lane.key] = self.history(lane)
                lane.trim(lane.end)

    def _snapshot(self, lane: MemoryTable, number: int) -> None:
        staged, ref = StagedFiles(self.app.staging), lane.ref
        source = TopicSource(ref.topic, ref.born_ms, lane, staged, lane.log_start, number)
        for name in list(lane.fold.versions) if lane.end else ():
            made = snapshot_version(self.location, source, lane.fold, name)
            assert made.lost is None
            compact(made.table)
            lane.snapshots[name] = made.snapshot, self.location.local_path(made.snapshot.folder)

    def history(self, lane: MemoryTable) -> list[tuple[int, int, bytes]]:
        """All that was ever written to a lane."""
        return [*self.trimmed.get(lane.key, []), *lane.records]


def write(
    app: TestApp, kind: str, given: Sequence[tuple[int, int]], *, keyed: bool, version: str | None = None
) -> None:
    """One write as one run; `version`: the one that is to be made active."""
    records: list[dict[str, float]] = [{"k": k, "v": v} for k, v in (wider(given) if kind == "widen" else given)]
    with app.inside("writer"):
        table = Table(STORE, "w")
        if keyed:
            table.init(unique_on="k")
        if kind == "reset":
            table.reset()
        elif kind == "activate":
            if version is not None:
                assert table._store is not None
                table._store.activate(version)
        elif kind == "truncate":
            table.truncate()
        elif kind == "delete":
            if given and table.exists:
                table.execute_sql(f"delete from {table} where k in ({', '.join(str(k) for k, _ in given)})")
        elif kind == "replace":
            table.replace(records)
        elif kind == "upsert" and keyed:
            table.upsert(records)
        else:
            table.append(records)
        inside = None if not table.exists else read(table)
    with app.inside("reader"):
        table = Table(STORE)
        assert (None if not table.exists else read(table)) == inside, (
            "a run sees what it wrote as readers do afterwards"
        )


def read(table: Table) -> list[tuple[int, float]]:
    rows = table.read()
    found = [(row["k"], row["v"]) for row in rows]
    assert table.record_count == len(found)
    assert table._store is not None
    partitions = table._store.ref.partitions
    ids = [(row["patterns_id"], row["k"]) for row in rows if row["patterns_id"] is not None]
    assert all(parse_id(each).partition == partition_of_key(k, partitions) for each, k in ids), "wherever rows lie"
    return sorted(found, key=lambda row: row[0])


def by_key(found: Sequence[tuple[int, float]] | None) -> list[tuple[int, float]] | None:
    """Order is promised for each key."""
    return None if found is None else sorted(found, key=lambda row: row[0])


def ends(app: TestApp) -> list[int]:
    return [lane.end for lane in app.lanes[STORE]]


def as_of(app: TestApp, cuts: Sequence[int], folder: Path, lake: Lake | None = None) -> TestApp:
    """The app as somebody sees it whose partitions are known up to these offsets, none of which is in the lake."""
    lake = lake or Lake(app, folder)
    then = TestApp(folder, staging=app.staging)
    ref = app.table(STORE).ref
    then.table(STORE, partitions=ref.partitions, partition_key=ref.partition_key)
    for lane, known, cut in zip(then.lanes[STORE], app.lanes[STORE], cuts, strict=True):
        object.__setattr__(lane.ref, "born_ms", ref.born_ms)
        lane.records = [record for record in known.records if record[0] < cut]
        lane.end = cut
        lane.fold.advance([record for record in lake.history(known) if record[0] < cut], cut)
        lane.snapshots, lane.log_start = known.snapshots, known.log_start
    return then


@settings(max_examples=40)
@given(
    writes=writes,
    last=last_writes,
    partitions=st.integers(2, 4),
    keyed=st.booleans(),
    ahead=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_partitions_hold_what_one_would(
    writes: list[tuple[str, list[tuple[int, int]]]],
    last: tuple[str, list[tuple[int, int]]],
    partitions: int,
    keyed: bool,
    ahead: list[bool],
) -> None:
    """Whatever is written, and whichever partitions are in the lake, readers see what a table of one partition would show,
    and a stream hands out the same. A cut that splits the last transaction shows the version before or the new one as a
    whole, never some of each."""
    with tempfile.TemporaryDirectory() as folder, TestApp(folder) as app:
        app.table(STORE, partitions=partitions, partition_key="k")
        model, lake = Model(keyed=keyed), Lake(app, Path(folder))
        before, earlier = ends(app), model.seen
        for kind, given_rows in [*writes, last]:
            if kind in LAKE:
                lake.take(kind, given_rows)
                continue
            before, earlier = ends(app), model.seen
            write(app, kind, given_rows, keyed=keyed, version=model.choose(len(given_rows)))
            model.write(kind, given_rows)
            with app.inside("reader"):
                active = Table(STORE).get_active_version()
                model.note(active.name if active is not None else None)
        after = ends(app)
        with app.inside("reader"):
            table = Table(STORE)
            assert (read(table) if table.exists else None) == by_key(model.seen)
            if table.exists:
                queried = [(row["k"], row["v"]) for row in table.read_sql(f"select * from {table}")]
                assert sorted(queried) == sorted(model.seen or [])
            streamed = [(row["k"], row["v"]) for row in table.as_stream()]
            assert by_key(streamed) == by_key(model.seen or [])
        with app.inside("reader"):
            assert not list(Table(STORE).as_stream()), "once"

        chosen = [late if there else early for early, late, there in zip(before, after, ahead, strict=False)]
        with as_of(app, chosen, Path(folder), lake).inside("reader") as host:
            table = Table(STORE)
            seen = read(table) if table.exists else None
            if last[0] == "activate":  # which of the two depends on which of them began first
                assert (seen or []) in (by_key(earlier) or [], by_key(model.seen) or []), host.logs
                return
            expected = split(partitions, chosen, before, after, earlier, model.seen, last[0])
            assert (seen or []) == expected, host.logs


def split(
    partitions: int,
    cuts: Sequence[int],
    before: Sequence[int],
    after: Sequence[int],
    earlier: list[tuple[int, float]] | None,
    later: list[tuple[int, float]] | None,
    kind: str,
) -> list[tuple[int, float]]:
    """What is seen where some partitions know the last transaction and others do not."""
    if list(cuts) == list(after):
        return by_key(later) or []
    if kind in ("replace", "reset"):
        return by_key(earlier) or []
    known = {number for number in range(partitions) if cuts[number] == after[number]}
    new = [row for row in later or [] if partition_of_key(row[0], partitions) in known]
    old = [row for row in earlier or [] if partition_of_key(row[0], partitions) not in known]
    return by_key([*new, *old]) or []


def test_a_version_is_restored_in_partitions_too_that_never_had_a_row_of_it(tmp_path: Path) -> None:
    """What is written to them from then on is of that version."""
    with TestApp(tmp_path) as app:
        app.table(STORE, partitions=4, partition_key="k")
        write(app, "append", [(0, 0)], keyed=False)
        with app.inside("reader"):
            first = Table(STORE).get_active_version()
            assert first is not None
        write(app, "replace", [(k, 1) for k in range(8)], keyed=False)
        write(app, "activate", [], keyed=False, version=first.name)
        write(app, "append", [(k, 2) for k in range(8)], keyed=False)
        with app.inside("reader"):
            assert read(Table(STORE)) == sorted([(0, 0), *((k, 2) for k in range(8))])


def test_of_two_runs_that_begin_versions_at_once_one_wins_in_all_partitions(tmp_path: Path) -> None:
    """On Kafka the records of two transactions may lie in another order in each partition: all agree who is active."""
    with TestApp(tmp_path) as app:
        app.table(STORE, partitions=2, partition_key="k")
        write(app, "append", [(0, 0), (1, 0), (2, 0), (3, 0)], keyed=False)
        begun = ends(app)
        messages: list[list[list[bytes]]] = []
        for number in (1, 2):
            scratch = as_of(app, begun, tmp_path)
            with scratch.inside(f"writer{number}"):
                Table(STORE, "w").replace([{"k": k, "v": number} for k in range(6)])
            messages.append(
                [
                    [value for at, _, value in lane.records if at >= end]
                    for lane, end in zip(scratch.lanes[STORE], begun, strict=True)
                ]
            )
        first, second = messages
        app.lanes[STORE][0].commit(first[0], 0)
        app.lanes[STORE][0].commit(second[0], 0)
        app.lanes[STORE][1].commit(second[1], 0)
        app.lanes[STORE][1].commit(first[1], 0)
        write(app, "append", [(k, 9) for k in range(6)], keyed=False)
        with app.inside("reader"):
            found: dict[int, list[Any]] = {}
            for row in Table(STORE).read():
                found.setdefault(row["k"], []).append(row["v"])
        assert found == {k: [2, 9] for k in range(6)}
