"""Where the past of a table is: which snapshot a cut is read from, what an index says, which positions belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.log import Offset, Record
from tailrace.runner.indexes import SNAPSHOTS_MAX, AppIndex
from tailrace.runner.journal import RunEntry
from tailrace.runner.moments import together
from tailrace.runner.past import PastGoneError, hold
from tailrace.tables import IdMaker, Settings, Snapshot, SnapshotFile, TableFold, VersionView

IDS = IdMaker("app.t", 1_700_000_000_000)


def snapshot(position: int, **changes: Any) -> Snapshot:
    file = SnapshotFile("a.parquet", position, 1, IDS.id_at(0, 0), IDS.id_at(position - 1, 0))
    values: dict[str, Any] = {
        "version": "t_1",
        "folder": "app/t_1",
        "delta_version": position,
        "position": position,
        "fields": {},
        "files": (file,),
    }
    return Snapshot(**{**values, **changes})


def view(*segments: tuple[int, int], key: tuple[str, ...] = ()) -> VersionView:
    return VersionView("t_1", 0, segments, (), Settings(unique_on=key), (), 0)


def test_the_newest_snapshot_at_or_before_the_cut_is_taken() -> None:
    known = [snapshot(10), snapshot(20), snapshot(30)]
    held = hold("t", view((0, 25)), 25, 5, known, (), IDS)
    assert (held.snapshot, held.before, held.log_start) == (known[1], None, 5)


def test_a_log_that_has_everything_is_asked_where_no_snapshot_is_old_enough() -> None:
    assert hold("t", view((0, 5)), 5, 0, [snapshot(10)], (), IDS).snapshot is None
    assert hold("t", view((7, 9)), 9, 7, [], (), IDS).snapshot is None  # what was trimmed was another version's


def test_of_a_later_snapshot_the_earlier_rows_are_taken() -> None:
    """Where nothing but appending made it."""
    late = snapshot(40)
    files = (late.files[0], SnapshotFile("b.parquet", 1, 1, IDS.id_at(30, 0), IDS.id_at(39, 0)))
    held = hold("t", view((0, 25)), 25, 30, [replace(late, files=files)], (), IDS)
    assert held.snapshot is not None
    assert (held.snapshot.position, held.snapshot.files, held.before) == (25, files[:1], IDS.id_at(25, 0))


@pytest.mark.parametrize("case", ["keyed", "deleted", "nothing"])
def test_what_is_gone_is_an_error_that_names_the_oldest(case: str) -> None:
    key = ("id",) if case == "keyed" else ()
    known = [] if case == "nothing" else [snapshot(40, unique_on=key)]
    with pytest.raises(PastGoneError) as raised:
        hold("t", view((0, 25), key=key), 25, 30, known, (28,) if case == "deleted" else (), IDS)
    assert raised.value.oldest == (30 if case == "nothing" else 40)
    assert "'t'" in str(raised.value)


def test_a_snapshot_with_a_gap_behind_it_is_no_answer() -> None:
    """Its tail was trimmed: only a newer one reaches the log."""
    with pytest.raises(PastGoneError):
        hold("t", view((0, 50), key=("id",)), 50, 30, [snapshot(20, unique_on=("id",))], (), IDS)


def record(offset: int, key: str, value: object) -> Record:
    data = None if value is None else orjson.dumps(value)
    return Record(Offset(offset), 0, key.encode(), data)


def fold_json(position: int, born_ms: int = 1) -> dict[str, object]:
    fold = TableFold("t")
    fold.advance([], position)
    return {**fold.to_json(), "born_ms": born_ms}


def test_of_folds_the_one_that_came_furthest_counts() -> None:
    """Hosts and the snapshotter write them, in any order; those of an older topic of the name are not its."""
    index = AppIndex()
    told = index.take(
        [
            record(0, "app.t", fold_json(7)),
            record(1, "app.t", fold_json(5)),
            record(2, "app.t", fold_json(99, born_ms=2)),
            record(3, "staged/shard-0", ["folder"]),
            Record(Offset(4), 0, None, b"nonsense"),
        ],
        Offset(5),
    )
    fold = index.fold("app.t", 1)
    assert told == {"app.t"} and index.position == 5
    assert fold is not None and fold.position == index.fold_position("app.t", 1) == 7
    assert index.fold("app.u", 1) is None and index.fold_position("app.u", 1) == 0


def test_the_last_few_snapshots_of_a_version_are_known_until_it_is_gone() -> None:
    index = AppIndex()
    for at in range(SNAPSHOTS_MAX + 3):
        index.take([record(at, "app.t@t_1", {**snapshot(10 * at + 10).to_json(), "born_ms": 1})], Offset(at + 1))
    known = [each.position for each in index.snapshots("app.t", 1, "t_1")]
    assert known == [10 * at + 10 for at in range(3, SNAPSHOTS_MAX + 3)]
    assert index.newest_position("app.t", 1) == known[-1]
    again = {**snapshot(known[-1], delta_version=99).to_json(), "born_ms": 1}
    index.take([record(50, "app.t@t_1", again)], Offset(51))
    assert [each.delta_version for each in index.snapshots("app.t", 1, "t_1")][-1] == 99
    index.take([record(51, "app.t@t_1", None)], Offset(52))
    assert index.snapshots("app.t", 1, "t_1") == () and index.newest_position("app.t", 1) == 0


def entry(wrote: Mapping[str, tuple[int, int]], read: Mapping[str, int]) -> RunEntry:
    return RunEntry(
        run="n#1",
        graph="app",
        node="n",
        title="n",
        reasons=(),
        kind="ok",
        started_ms=0,
        duration_ms=0,
        read=dict(read),
        wrote=dict(wrote),
    )


def test_a_run_is_in_all_of_its_tables_or_in_none() -> None:
    """And not without what it had read; what read it goes with it."""
    runs = [entry({"b": (10, 12), "c": (5, 6)}, {"a": 4}), entry({"d": (1, 2)}, {"b": 12})]
    assert together({"a": 4, "b": 12, "c": 6, "d": 2}, runs) == {"a": 4, "b": 12, "c": 6, "d": 2}
    assert together({"a": 4, "b": 12, "c": 5, "d": 2}, runs) == {"a": 4, "b": 10, "c": 5, "d": 1}
    assert together({"a": 3, "b": 12, "c": 6, "d": 2}, runs) == {"a": 3, "b": 10, "c": 5, "d": 1}
    assert together({"b": 9, "d": 0}, runs) == {"b": 9, "d": 0}


_TABLES = ("a", "b", "c")
_RUNS = st.lists(
    st.builds(
        lambda wrote, read: entry({t: (s, s + n) for t, (s, n) in wrote.items()}, read),
        st.dictionaries(st.sampled_from(_TABLES), st.tuples(st.integers(0, 20), st.integers(1, 5)), max_size=3),
        st.dictionaries(st.sampled_from(_TABLES), st.integers(0, 25), max_size=3),
    ),
    max_size=6,
)


@given(st.dictionaries(st.sampled_from(_TABLES), st.integers(0, 25), min_size=1), _RUNS)
def test_whatever_ran_positions_belong_together(cuts: dict[str, int], runs: list[RunEntry]) -> None:
    found = together(cuts, runs)
    assert all(found[table] <= cuts[table] for table in cuts)
    for run in runs:
        if any(found.get(table, start) > start for table, (start, _) in run.wrote.items()):
            assert all(found.get(table, stop) >= stop for table, (_, stop) in run.wrote.items())
            assert all(found.get(table, cut) >= cut for table, cut in run.read.items())


def test_an_earlier_cut_does_not_count_what_came_after_it() -> None:
    """Nobody knows how many rows there were then, without reading them."""
    fold = TableFold("t")
    message = b'{"kind":"rows","ts":1,"run":"t-1","n":3,"fields":{"n":"Integer"},"rows":[1,2,3]}'
    fold.advance([(0, 1, message), (1, 1, message)], 2)
    view = fold.view_of(next(iter(fold.versions)))
    assert view is not None and (view.exact_count, view.before(2).exact_count) == (6, 6)
    earlier = view.before(1)
    assert earlier.exact_count is None
    assert VersionView.from_json(earlier.to_json()).exact_count is None
