"""Snapshots of versions: what a step does, whom the tables are open to, and what goes wrong from outside."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake
from tables_model import BORN_MS, MemoryTopic

import tailrace.lake.delta
import tailrace.lake.plan
import tailrace.lake.snapshot
from tailrace.lake import (
    LakeDamagedError,
    LakeLimits,
    LakeLocation,
    LakeUnavailableError,
    Snapshotted,
    TopicSource,
    VersionTable,
    compact,
    rebuild_fold,
    snapshot_version,
    tidy,
)
from tailrace.log import OffsetGapError, OffsetRange
from tailrace.runtime import Crash, CrashAt, Probe, Runtime
from tailrace.tables import BadRow, IdMaker, Messages, SnapshotFileError, SnapshotReader, VersionReader

FIELDS = {
    "n": "Integer",
    "price": "Decimal(precision=12, scale=2)",
    "at": "DateTime",
    "seen": "DateTime(timezone=True)",
    "day": "Date",
    "name": "Text",
    "doc": "Json",
    "ok": "Boolean",
    "ratio": "Float",
    "vector": "Array(items=Float)",
    "raw": "Binary",
}
ROW = {
    "n": 2**60,
    "price": "12.50",
    "at": "2024-05-01T10:00:00.000001",
    "seen": "2024-05-01T10:00:00+00:00",
    "day": "2024-05-01",
    "name": "Ada",
    "doc": {"a": [1, "ü"]},
    "ok": True,
    "ratio": 0.1,
    "vector": [1.5, 2.0],
    "raw": "AAE=",
}


class Setting:
    """A topic in memory, a lake in a folder, and the snapshotter's way from one to the other."""

    def __init__(self, folder: Path) -> None:
        self.topic = MemoryTopic()
        self.lake = LakeLocation.parse(str(folder / "lake"))
        self.limits = LakeLimits(removed_kept=timedelta(0))
        self.table: VersionTable | None = None
        self.buried: list[BadRow] = []
        self.log_start = 0

    def version(self) -> str:
        active = self.topic.fold().active
        assert active is not None
        return active.name

    def snapshot(self, version: str | None = None, *, probe: Probe | None = None, fresh: bool = False) -> Snapshotted:
        source = TopicSource(
            self.topic.name, BORN_MS, _From(self.topic, self.log_start), self.topic.files, self.log_start
        )
        result = snapshot_version(
            self.lake,
            source,
            self.topic.fold(),
            version or self.version(),
            table=None if fresh else self.table,
            bury=self.buried.extend,
            limits=self.limits,
            runtime=Runtime(probe=probe or Probe()),
        )
        self.table = result.table
        return result

    @property
    def folder(self) -> Path:
        assert self.table is not None
        return self.lake.local_path(self.table.folder)

    def delta(self) -> DeltaTable:
        return DeltaTable(str(self.folder))

    def lake_rows(self) -> list[dict[str, Any]]:
        """Rows of the Delta table by id."""
        rows = pa.table(self.delta().to_pyarrow_table()).to_pylist()
        return sorted(rows, key=lambda row: row["patterns_id"])

    def reader(self) -> VersionReader:
        """Of the snapshot and what came after it."""
        view = self.topic.fold().view()
        assert self.table is not None and view is not None
        past = SnapshotReader(self.table.snapshot(), self.folder)
        return VersionReader(view, IdMaker(self.topic.name, BORN_MS), self.topic, self.topic.files, snapshot=past)

    def table_rows(self) -> list[dict[str, Any]]:
        """Rows as the fold of the topic has them."""
        return self.topic.reader().table(id_column="patterns_id").to_pylist()


class _From:
    """A topic whose beginning is trimmed."""

    def __init__(self, topic: MemoryTopic, start: int) -> None:
        self._topic, self._start = topic, start

    def scan(self, start: int, stop: int) -> Iterator[Messages]:
        if start < min(self._start, stop):
            raise OffsetGapError(OffsetRange(start, self._start))  # type: ignore[arg-type]
        return self._topic.scan(start, stop)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(tmp_path)


# -- steps -----------------------------------------------------------------------------------------------------------


def test_an_append_adds_files_and_keeps_the_others(setting: Setting) -> None:
    setting.topic.rows({"a": 1}, {"a": 2}, fields={"a": "Integer"})
    first = setting.snapshot()
    setting.topic.rows({"a": 3}, fields={"a": "Integer"})
    second = setting.snapshot()
    assert (first.kind, second.kind) == ("rewrite", "append")
    assert second.snapshot.files[:1] == first.snapshot.files
    assert second.snapshot.rows == 3
    assert setting.lake_rows() == setting.table_rows()
    assert setting.snapshot().kind == "nothing"


def test_new_columns_are_added_and_empty_before(setting: Setting) -> None:
    setting.topic.rows({"a": 1}, fields={"a": "Integer"})
    setting.snapshot()
    setting.topic.rows({"a": 2, "b": "10:30:00"}, fields={"a": "Integer", "b": "Time"})
    assert setting.snapshot().kind == "append"
    assert [(row["a"], row["b"]) for row in setting.lake_rows()] == [(1, None), (2, "10:30:00")]


def test_a_wider_type_rewrites_all(setting: Setting) -> None:
    """Never appended to the narrow column, where 1.5 would become 1."""
    setting.topic.rows({"a": 1}, fields={"a": "Integer"})
    setting.snapshot()
    setting.topic.rows({"a": 1.5}, fields={"a": "Float"})
    done = setting.snapshot()
    assert done.kind == "rewrite" and done.rows == 2
    assert [row["a"] for row in setting.lake_rows()] == [1.0, 1.5]
    assert str(setting.delta().schema().fields[0].type) == 'PrimitiveType("double")'


def test_a_longer_text_does_not(setting: Setting) -> None:
    """What lies in the files is the same."""
    setting.topic.rows({"a": "x"}, fields={"a": "Text(length=5)"})
    setting.snapshot()
    setting.topic.rows({"a": "xx"}, fields={"a": "Text"})
    assert setting.snapshot().kind == "append"


def test_a_merge_leaves_one_row_a_key_and_files_without_them_alone(setting: Setting) -> None:
    setting.topic.rows({"k": 1, "v": "a"}, {"k": 2, "v": "b"}, fields={"k": "Integer", "v": "Text"}, key=["k"])
    setting.snapshot()
    setting.topic.rows({"k": 3, "v": "c"}, {"k": None, "v": "n"}, fields={"k": "Integer", "v": "Text"})
    kept = setting.snapshot().snapshot.files[-1]
    setting.topic.rows({"k": 2, "v": "B"}, {"k": None, "v": "n"}, fields={"k": "Integer", "v": "Text"})
    done = setting.snapshot()
    assert done.kind == "merge"
    assert kept in done.snapshot.files
    assert [(row["k"], row["v"]) for row in setting.lake_rows()] == [
        (1, "a"),
        (3, "c"),
        (None, "n"),
        (2, "B"),
        (None, "n"),
    ]
    assert setting.lake_rows() == setting.table_rows()


def test_deleted_rows_go_and_what_a_deleted_row_superseded_too(setting: Setting) -> None:
    ids = IdMaker(setting.topic.name, BORN_MS)
    setting.topic.rows({"k": 1}, {"k": 2}, {"k": 3}, fields={"k": "Integer"}, key=["k"])
    setting.snapshot()
    again = setting.topic.rows({"k": 1}, fields={"k": "Integer"})
    setting.topic.marker("delete", ids=[ids.id_at(again, 0), ids.id_at(0, 2), "nonsense"])
    assert setting.snapshot().kind == "merge"
    assert [row["k"] for row in setting.lake_rows()] == [2]
    assert setting.lake_rows() == setting.table_rows()


def test_a_truncated_table_is_empty_and_begins_again(setting: Setting) -> None:
    setting.topic.rows({"k": 1}, fields={"k": "Integer"})
    setting.snapshot()
    setting.topic.marker("truncate")
    assert setting.snapshot().snapshot.files == ()
    setting.topic.rows({"k": 2}, fields={"k": "Integer"})
    setting.snapshot()
    assert [row["k"] for row in setting.lake_rows()] == [2]


def test_each_version_has_its_own_table_and_tells_whether_it_is_active(setting: Setting) -> None:
    setting.topic.rows({"k": 1}, fields={"k": "Integer"})
    first = setting.version()
    setting.snapshot()
    setting.topic.marker("version", settings={"id": None})
    setting.topic.rows({"k": 2}, fields={"k": "Integer"})
    second = setting.version()
    old = setting.snapshot(first)
    assert old.kind == "note" and not old.table.meta.active
    new = setting.snapshot(second, fresh=True)
    assert new.table.meta.active and new.snapshot.id_column == "_patterns_id"
    assert old.snapshot.folder != new.snapshot.folder
    fold, snapshots = rebuild_fold(setting.lake, setting.topic.name)
    assert fold.to_json() == setting.topic.fold().to_json()
    assert {each.version for each in snapshots} == {first, second}


def test_a_lake_knows_nothing_of_a_topic_that_it_never_saw(setting: Setting) -> None:
    fold, snapshots = rebuild_fold(setting.lake, "shop.other")
    assert (fold.position, snapshots) == (0, [])


def test_a_trimmed_log_is_no_loss_behind_a_snapshot_and_is_told_of_without_one(setting: Setting) -> None:
    setting.topic.rows({"k": 1}, fields={"k": "Integer"})
    setting.snapshot()
    end = setting.topic.end
    setting.topic.rows({"k": 2.5}, fields={"k": "Float"})
    setting.log_start = end
    done = setting.snapshot()
    assert done.kind == "rewrite" and done.lost is None
    assert [row["k"] for row in setting.lake_rows()] == [1.0, 2.5]
    folder = setting.folder
    folder.rename(folder.with_name("away"))
    anew = setting.snapshot(fresh=True)
    assert anew.lost == (0, end)
    assert [row["k"] for row in setting.lake_rows()] == [2.5]


def test_a_version_that_was_active_in_between_and_got_no_rows_has_lost_none(setting: Setting) -> None:
    setting.topic.rows({"k": 1}, fields={"k": "Integer"})
    first = setting.version()
    setting.topic.marker("version", fields={"k": "Integer"})
    for name in (first, setting.version()):
        setting.snapshot(name, fresh=True)
    setting.topic.marker("activate", name=first)
    setting.topic.marker("reset")
    setting.topic.rows({"k": 2}, fields={"k": "Integer"})
    assert setting.snapshot(first, fresh=True).kind == "note"
    setting.log_start = setting.topic.end
    done = setting.snapshot(first, fresh=True)
    assert (done.kind, done.lost) == ("nothing", None)


def test_rows_whose_values_fit_no_type_are_buried_and_the_rest_goes_on(setting: Setting) -> None:
    setting.topic.rows({"k": 1}, fields={"k": "Integer"})
    setting.snapshot()
    bad = setting.topic.rows({"k": 2}, {"k": "many"}, {"k": 3}, fields={"k": "Integer"})
    done = setting.snapshot()
    assert [(row.offset, row.row) for row in setting.buried] == [(bad, 1)]
    assert "'k'" in str(setting.buried[0].error) and setting.buried[0].value == {"k": "many"}
    assert done.bad_rows == 1
    assert [row["k"] for row in setting.lake_rows()] == [1, 2, 3]
    setting.topic.rows({"k": 4}, {"k": "more"}, fields={"k": "Integer"})
    assert setting.reader().count() == len(setting.reader().table()) == len(setting.table_rows()) == 4
    setting.topic.rows({"k": 0.5}, fields={"k": "Float"})
    setting.snapshot()
    setting.topic.rows({"k": "0.75"}, fields={"k": "Text"})
    assert setting.snapshot().bad_rows == 0, "a rewrite buries nobody twice"


def test_declared_fields_are_not_null_until_a_null_comes(setting: Setting) -> None:
    settings = {"nullable": {"k": False}}
    setting.topic.rows({"k": 1, "v": 1}, fields={"k": "Integer", "v": "Integer"}, settings=settings)
    setting.snapshot()
    nullable = {field.name: field.nullable for field in setting.delta().schema().fields}
    assert nullable == {"k": False, "v": True, "patterns_id": False}
    setting.topic.rows({"k": None, "v": 2}, fields={"k": "Integer", "v": "Integer"})
    assert setting.snapshot().kind == "rewrite"
    assert setting.table is not None and setting.table.columns["k"]
    assert setting.lake_rows() == setting.table_rows()


def test_large_tables_have_several_files_with_ranges_of_their_own(setting: Setting) -> None:
    setting.limits = LakeLimits(file_bytes_target=2_000, row_group_rows_max=50)
    for _ in range(6):
        setting.topic.rows(*({"k": os.urandom(20).hex()} for _ in range(100)), fields={"k": "Text"})
    done = setting.snapshot()
    assert len(done.snapshot.files) > 3
    assert setting.lake_rows() == setting.table_rows()
    for file in done.snapshot.files:
        ids = pq.read_table(setting.folder / file.path, columns=["patterns_id"]).column(0).to_pylist()
        assert (ids[0], ids[-1], len(ids)) == (file.first_id, file.last_id, file.rows)
        assert ids == sorted(ids)


# -- other readers ---------------------------------------------------------------------------------------------------


HISTORIES: dict[str, list[dict[str, Any]]] = {
    "appended": [{}, {"n": 7}],
    "upserted": [{"key": ["name"]}, {"n": 7, "key": ["name"]}],
    "replaced": [{}, {"n": 7, "marker": "version"}],
    "widened": [{}, {"ratio": "x", "fields": {**FIELDS, "ratio": "Text", "more": "Integer"}, "more": 5}],
}
"""What each of two steps writes, besides a row that has it all and one that has nothing."""


@pytest.mark.parametrize("history", HISTORIES)
def test_other_programs_read_the_same_rows_and_types(setting: Setting, history: str) -> None:
    """deltalake, DuckDB and polars: values, types, what may be NULL, and how many there are."""
    for step in HISTORIES[history]:
        own = {name: value for name, value in step.items() if name not in ("key", "marker", "fields")}
        if "marker" in step:
            setting.topic.marker(step["marker"], fields=FIELDS)
        head = {"key": step["key"]} if "key" in step else {}
        setting.topic.rows({**ROW, **own}, {"name": f"nothing {len(own)}"}, fields=step.get("fields", FIELDS), **head)
        setting.snapshot(fresh=True)
    shown = setting.topic.reader().table(id_column="patterns_id")
    expected = shown.to_pylist()
    assert len(expected) == {"appended": 4, "upserted": 3, "replaced": 2, "widened": 4}[history]

    delta = setting.delta()
    assert setting.lake_rows() == expected
    assert pa.schema(delta.schema().to_arrow()).types == shown.schema.types
    assert {field.name: field.nullable for field in delta.schema().fields} == {
        name: name != "patterns_id" for name in shown.column_names
    }
    frame = polars.read_delta(str(setting.folder)).sort("patterns_id")
    assert frame.to_dicts() == expected and (frame.schema["price"], frame.schema["seen"]) == (
        polars.Decimal(12, 2),
        polars.Datetime("us", "UTC"),
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        paths = [str(setting.folder / file.path) for file in setting.snapshot().snapshot.files]
        connection.register("dataset", delta.to_pyarrow_dataset())
        for source in ("dataset", f"read_parquet({paths}, union_by_name=true)"):
            found = connection.sql(f"SELECT * FROM {source} ORDER BY patterns_id")
            assert found.to_arrow_table().to_pylist() == expected
            types = dict(zip(found.columns, map(str, found.types), strict=True))
            assert (types["n"], types["price"], types["day"], types["at"], types["seen"], types["ok"]) == (
                *("BIGINT", "DECIMAL(12,2)", "DATE", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "BOOLEAN"),
            )
            assert connection.execute(f"SELECT count(*) FROM {source}").fetchall() == [(len(expected),)]


def test_upkeep_changes_nothing_for_any_reader(setting: Setting) -> None:
    """Files joined, the Delta log cut behind a Delta checkpoint, columns of all types with their statistics."""
    setting.limits = LakeLimits(files_joined_min=2, checkpoint_every=2, commits_kept=4, removed_kept=timedelta(0))
    for number in range(9):
        setting.topic.rows({**ROW, "n": number}, {"n": None}, fields=FIELDS)
        setting.snapshot()
    assert setting.table is not None
    assert compact(setting.table, limits=setting.limits) == 9
    assert compact(setting.table, limits=setting.limits) == 0
    first = tidy(setting.table, limits=setting.limits)
    assert first.checkpoint and first.files_deleted >= 9
    for number in range(9, 16):
        setting.topic.rows({**ROW, "n": number}, fields=FIELDS)
        setting.snapshot()
        tidied = tidy(setting.table, limits=setting.limits)
    assert not (setting.folder / "_delta_log" / f"{0:020}.json").exists(), tidied
    assert setting.lake_rows() == setting.table_rows()
    assert polars.read_delta(str(setting.folder)).sort("patterns_id").to_dicts() == setting.table_rows()
    opened = VersionTable.open(setting.lake, setting.table.folder, limits=setting.limits)
    assert opened is not None and opened.snapshot() == setting.table.snapshot()
    assert rebuild_fold(setting.lake, setting.topic.name)[0].to_json() == setting.topic.fold().to_json()


def test_one_that_is_behind_joins_nothing_where_the_files_are_gone(setting: Setting) -> None:
    """A rival joined and deleted them long ago; it is no damage."""
    setting.limits = LakeLimits(files_joined_min=2, removed_kept=timedelta(0))
    for number in range(3):
        setting.topic.rows({"k": number}, fields={"k": "Integer"})
        setting.snapshot()
    assert setting.table is not None
    behind = VersionTable.open(setting.lake, setting.table.folder, limits=setting.limits)
    assert behind is not None
    assert compact(setting.table, limits=setting.limits) == 3
    assert tidy(setting.table, limits=setting.limits).files_deleted >= 3
    assert compact(behind, limits=setting.limits) == 0
    assert behind.snapshot() == setting.table.snapshot()


def test_a_late_checkpoint_does_not_put_off_the_next(setting: Setting) -> None:
    setting.limits = LakeLimits(files_joined_min=99, checkpoint_every=4, commits_kept=8, removed_kept=timedelta(0))
    made = []
    for number in range(12):
        setting.topic.rows({"k": number}, fields={"k": "Integer"})
        table = setting.snapshot().table
        if table.delta_version in (3, 5, 8):
            made.append(tidy(table, limits=setting.limits).checkpoint)
    assert made == [False, True, True]


def test_what_was_removed_of_late_stays(setting: Setting) -> None:
    """Runs that pinned their cut before a merge read the files of then."""
    setting.limits = LakeLimits(files_joined_min=2)
    for number in (1, 2):
        setting.topic.rows({"k": number}, fields={"k": "Integer"})
        pinned = setting.snapshot().snapshot
    assert setting.table is not None
    assert compact(setting.table, limits=setting.limits) == 2
    assert tidy(setting.table, limits=setting.limits).files_deleted == 0
    reader = SnapshotReader(pinned, setting.folder)
    assert [row["k"] for table in reader.tables() for row in table.to_pylist()] == [1, 2]


@pytest.mark.parametrize(
    "name", ["first name", "a,b;c{}()=", "tab\there", "a.b", "", '`q"', "min.k", "ünï", "Patterns_ID"]
)
def test_columns_may_have_any_name(setting: Setting, name: str) -> None:
    for kind, value in (("Integer", 1), ("Integer", 2), ("Float", 1.5)):
        setting.topic.rows({name: value, "all": [value]}, fields={name: kind, "all": "Array(items=Float)"})
        setting.snapshot()
    found = [{"patterns_id": row.pop("patterns_id"), "rest": list(row.values())} for row in setting.lake_rows()]
    expected = [{"patterns_id": row.pop("patterns_id"), "rest": list(row.values())} for row in setting.table_rows()]
    assert found == expected


def test_delta_prunes_files_by_our_statistics(setting: Setting) -> None:
    """A filter on ids, numbers or dates opens only the files that may hold such rows; and finds all of them."""
    for day in range(1, 6):
        setting.topic.rows({"n": day, "day": f"2024-05-0{day}"}, {"n": None}, fields={"n": "Integer", "day": "Date"})
        setting.snapshot()
    dataset = setting.delta().to_pyarrow_dataset()
    import pyarrow.dataset as ds

    wanted = ds.field("n") == 3
    assert len(list(dataset.get_fragments(wanted))) == 1
    assert dataset.to_table(filter=wanted).num_rows == 1
    actions = pa.table(setting.delta().get_add_actions(flatten=True))
    assert actions.column("null_count.n").to_pylist() == [1] * 5


# -- rivals ----------------------------------------------------------------------------------------------------------


class AtOnce(Probe):
    """Lets two snapshotters come to one point together."""

    def __init__(self, point: str) -> None:
        self.point, self.barrier = point, threading.Barrier(2, timeout=30)
        self._met = threading.local()

    def reached(self, point: str) -> None:
        if point == self.point and not getattr(self._met, "yes", False):
            self._met.yes = True
            self.barrier.wait()


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_two_snapshotters_write_each_row_once(setting: Setting, first: bool, columns: bool, keyed: bool) -> None:
    """The loser of the race opens the table again, and finds nothing to do; with a new column as well."""
    head = {"key": ["k"]} if keyed else {}
    setting.topic.rows({"k": 1}, {"k": 2}, fields={"k": "Integer"}, **head)
    if not first:
        setting.snapshot()
        more = {"w": "Text"} if columns else {}
        setting.topic.rows({"k": 2, **dict.fromkeys(more, "x")}, {"k": 3}, fields={"k": "Integer", **more})
    probe = AtOnce("lake-read")
    results: list[Snapshotted] = []
    threads = [
        threading.Thread(target=lambda: results.append(setting.snapshot(probe=probe, fresh=True))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.kind == "nothing" for result in results) == [False, True]
    assert setting.lake_rows() == setting.table_rows()


class RivalAt(Probe):
    """At a point, once, a rival does its whole step."""

    def __init__(self, setting: Setting, point: str) -> None:
        self._setting, self._point = setting, point

    def reached(self, point: str) -> None:
        if point == self._point:
            self._point = ""
            self._setting.snapshot(fresh=True)


@pytest.mark.parametrize("point", ["lake-opened", "lake-created", "lake-read", "lake-columns"])
@pytest.mark.parametrize("step", ["create", "append", "merge", "rewrite"])
def test_a_rival_that_commits_in_between_wins(setting: Setting, point: str, step: str) -> None:
    """Wherever it comes in, the commit prepared before it fails."""
    setting.topic.rows({"k": 1}, {"k": 2}, fields={"k": "Integer"}, **({"key": ["k"]} if step == "merge" else {}))
    if step != "create":
        setting.snapshot()
        setting.topic.rows({"k": 2, "w": 1}, fields={"k": "Float" if step == "rewrite" else "Integer", "w": "Integer"})
    setting.snapshot(probe=RivalAt(setting, point), fresh=True)
    assert setting.lake_rows() == setting.table_rows()


def test_a_snapshotter_that_is_behind_and_whose_files_are_gone_opens_again(setting: Setting) -> None:
    setting.topic.rows({"k": 1}, {"k": 2}, fields={"k": "Integer"}, key=["k"])
    behind = setting.snapshot().table
    setting.topic.rows({"k": 1}, fields={"k": "Integer"})
    ahead = setting.snapshot(fresh=True).table
    tidy(ahead, limits=setting.limits)
    setting.topic.rows({"k": 2}, fields={"k": "Integer"})
    setting.table = behind
    assert setting.snapshot().kind == "merge"
    assert setting.lake_rows() == setting.table_rows()


# -- planted faults: what the tests above must notice ----------------------------------------------------------------


def faulty_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tail is read from the start of the log, not from the Delta table's position."""
    monkeypatch.setattr(tailrace.lake.snapshot._Work, "_floor", 0)


def faulty_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The write goes through a fresh handle, not the one that was asked for the position."""
    commit = VersionTable.commit

    def through_a_fresh_one(self: VersionTable, meta: Any, **more: Any) -> None:
        self._delta = DeltaTable(self.location.uri(self.folder))
        commit(self, meta, **more)

    monkeypatch.setattr(VersionTable, "commit", through_a_fresh_one)


def faulty_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """The group's position, a lower bound, is taken for the Delta table's."""
    init = tailrace.lake.snapshot._Work.__init__

    def from_the_group(self: Any, *args: Any, **more: Any) -> None:
        init(self, *args, **more)
        self._done = 0

    monkeypatch.setattr(tailrace.lake.snapshot._Work, "__init__", from_the_group)


@pytest.mark.parametrize("fault", [faulty_overlap, faulty_handle, faulty_position])
def test_a_planted_fault_is_noticed(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None]
) -> None:
    fault(monkeypatch)
    with pytest.raises((AssertionError, LakeDamagedError)):
        test_an_append_adds_files_and_keeps_the_others(setting)
        again = Setting(Path(setting.lake.url).parent / "again")
        test_a_rival_that_commits_in_between_wins(again, "lake-columns", "append")


# -- bad input -------------------------------------------------------------------------------------------------------


def test_a_folder_without_write_permission(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lake may come back: retriable, and it names table and file. Nothing is half done when it does."""
    setting.topic.rows({"k": 1}, fields={"k": "Integer"})
    setting.snapshot()
    setting.topic.rows({"k": 2}, fields={"k": "Integer"})

    def refused(*args: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refused)
        with pytest.raises(LakeUnavailableError, match=r"shop/orders_.*part-.*\.parquet.*Permission denied"):
            setting.snapshot()
    setting.snapshot()
    assert setting.lake_rows() == setting.table_rows()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    setting.topic.rows({"k": 1}, fields={"k": "Integer"})
    setting.snapshot()
    before = sorted(setting.folder.rglob("*.parquet"))
    setting.topic.rows({"k": 2}, fields={"k": "Integer"})
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device"))
        )
        with pytest.raises(LakeUnavailableError, match="No space left"):
            setting.snapshot()
    assert sorted(setting.folder.rglob("*.parquet")) == before, "what was written is taken back, to make room"
    setting.snapshot()
    assert setting.lake_rows() == setting.table_rows()


def test_a_lake_that_is_no_folder(setting: Setting, tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("")
    setting.topic.rows({"k": 1}, fields={"k": "Integer"})
    with pytest.raises(LakeUnavailableError, match="shop/orders_"):
        setting.snapshot()


def _append(table: DeltaTable) -> None:
    write_deltalake(table, pa.table({"k": [9], "patterns_id": ["x"]}), mode="append")


CHANGES: dict[str, Callable[[DeltaTable], object]] = {
    "WRITE": _append,
    "DELETE": lambda table: table.delete(),  # takes files away, and adds none
    "RESTORE": lambda table: table.restore(1),
    "OPTIMIZE": lambda table: table.optimize.compact(),
    "SET TBLPROPERTIES": lambda table: table.alter.set_table_properties({"delta.appendOnly": "false"}),
}


@pytest.mark.parametrize("operation", CHANGES)
@pytest.mark.parametrize("open_before", [True, False])
def test_a_commit_of_somebody_else(setting: Setting, operation: str, open_before: bool) -> None:
    """Said with the commit's file, and how to take it back, until it is taken back; then all is well."""
    for number in (1, 2):
        setting.topic.rows({"k": number}, fields={"k": "Integer"})
        setting.snapshot()
    theirs = setting.table.delta_version + 1 if setting.table else 0
    CHANGES[operation](setting.delta())
    setting.topic.rows({"k": 3}, fields={"k": "Integer"})
    for fresh in (not open_before, False, True):
        with pytest.raises(LakeDamagedError, match=rf"shop/orders_.*_delta_log/0+{theirs}\.json.*{operation}.*delete"):
            setting.snapshot(fresh=fresh)
    for commit in (setting.folder / "_delta_log").glob("*.json"):
        if int(commit.name[:20]) >= theirs:  # what was prepared before theirs may have come after it
            commit.unlink()
    setting.snapshot(fresh=True)
    assert setting.lake_rows() == setting.table_rows()


def test_a_vacuum_of_somebody_else_does_no_harm(setting: Setting) -> None:
    setting.topic.rows({"k": 1}, fields={"k": "Integer"}, key=["k"])
    setting.snapshot()
    setting.topic.rows({"k": 1}, fields={"k": "Integer"})
    setting.snapshot()
    setting.delta().vacuum(0, dry_run=False, enforce_retention_duration=False, commit_properties=CommitProperties())
    setting.topic.rows({"k": 2}, fields={"k": "Integer"})
    setting.snapshot(fresh=True)
    assert setting.lake_rows() == setting.table_rows()


def test_a_removed_table_is_written_anew(setting: Setting) -> None:
    setting.topic.rows({"k": 1}, fields={"k": "Integer"})
    setting.snapshot()
    setting.folder.rename(setting.folder.with_name("away"))
    setting.topic.rows({"k": 2}, fields={"k": "Integer"})
    setting.snapshot()
    assert setting.lake_rows() == setting.table_rows()


@pytest.mark.parametrize("how", ["cut", "removed", "garbage"])
@pytest.mark.parametrize("step", ["merge", "rewrite", "compact"])
def test_a_damaged_file(setting: Setting, how: str, step: str) -> None:
    setting.limits = LakeLimits(files_joined_min=2, removed_kept=timedelta(0))
    for number in (1, 2):
        setting.topic.rows({"k": number}, fields={"k": "Integer"}, key=["k"])
        file = setting.snapshot().snapshot.files[0]
    path = setting.folder / file.path
    if how == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9] if how == "cut" else b"PAR1 nothing of the kind PAR1")
    setting.topic.rows({"k": 1 if step == "merge" else 1.5}, fields={"k": "Integer" if step == "merge" else "Float"})
    with pytest.raises((LakeDamagedError, SnapshotFileError), match=file.path):
        if step == "compact":
            assert setting.table is not None
            compact(setting.table, limits=setting.limits)
        else:
            setting.snapshot()


def test_a_folder_of_an_earlier_topic_of_the_name(setting: Setting) -> None:
    setting.topic.rows({"k": 1}, fields={"k": "Integer"})
    setting.snapshot()
    source = TopicSource(setting.topic.name, BORN_MS + 1, setting.topic, setting.topic.files)
    with pytest.raises(LakeDamagedError, match="born"):
        snapshot_version(setting.lake, source, setting.topic.fold(), setting.version())


# -- deaths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["lake-opened", "lake-created", "lake-read", "lake-columns", "lake-committed"])
@pytest.mark.parametrize("step", ["create", "append", "merge", "rewrite"])
def test_each_row_is_there_once_whatever_the_crash(setting: Setting, point: str, step: str) -> None:
    """Die at `point`, let more rows arrive, start again: the rows equal the fold."""
    setting.topic.rows({"k": 1}, {"k": 2}, fields={"k": "Integer"}, **({"key": ["k"]} if step == "merge" else {}))
    if step != "create":
        setting.snapshot()
    kind = "Float" if step == "rewrite" else "Integer"
    setting.topic.rows({"k": 2, "w": "x"}, fields={"k": kind, "w": "Text"})
    reached = {"create": {"lake-created"}, "append": {"lake-columns"}, "merge": {"lake-columns"}}.get(step, set())
    if point in reached | {"lake-opened", "lake-read", "lake-committed"}:
        with pytest.raises(Crash):
            setting.snapshot(probe=CrashAt(point))
    setting.topic.rows({"k": 5}, fields={"k": "Integer"})
    setting.snapshot(fresh=True)
    assert setting.lake_rows() == setting.table_rows()
    assert setting.table is not None
    tidy(setting.table, limits=setting.limits)
    named = {file.path for file in setting.table.snapshot().files}
    assert {path.name for path in setting.folder.glob("*.parquet")} == named, "what the death left is gone"
