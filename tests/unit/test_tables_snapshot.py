"""Reading a snapshot's files: only what is asked for is read, and what is damaged is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables_model import BORN_MS, MemoryTopic

from tailrace.tables import (
    HIDDEN_ID,
    BadRow,
    IdMaker,
    Snapshot,
    SnapshotFile,
    SnapshotFileError,
    SnapshotReader,
    VersionReader,
    arrow_message,
    webhook_message,
)
from tailrace.tables.ids import place_number
from tailrace.tables.schema import FieldType, arrow_to_records, parse_type, rows_to_arrow, to_stored

IDS = IdMaker("shop.orders", BORN_MS)
N = {"n": "Integer"}


def write(folder: Path, fields: dict[str, FieldType], rows: list[dict[str, Any]], id_column: str) -> Snapshot:
    """Two files of row groups of two rows; row number i is the only one of message i."""
    ids = IDS.array(np.array([place_number(at, 0) for at in range(len(rows))]))
    table = rows_to_arrow(rows, fields).append_column("id", ids)
    stored = to_stored(table, fields, id_column=id_column)
    files = []
    for at in range(0, len(rows), 6):
        part = stored.slice(at, 6)
        pq.write_table(part, folder / f"{at}.parquet", row_group_size=2)
        texts = part.column(id_column).to_pylist()
        files.append(SnapshotFile(f"{at}.parquet", part.num_rows, 1, texts[0], texts[-1]))
    return Snapshot(
        version="orders_1",
        folder="",
        delta_version=1,
        position=len(rows),
        fields=fields,
        id_column=id_column,
        files=tuple(files),
    )


@pytest.fixture
def reader(tmp_path: Path) -> SnapshotReader:
    fields = {"n": parse_type("Integer"), "N": parse_type("Time"), "a.b": parse_type("Array(items=Integer)")}
    rows = [{"n": at, "N": None, "a.b": [at]} for at in range(12)]
    return SnapshotReader(write(tmp_path, fields, rows, HIDDEN_ID), tmp_path)


def numbers(tables: Any) -> list[int]:
    return [row["n"] for table in tables for row in table.to_pylist()]


@pytest.mark.parametrize("first", range(-1, 13))
@pytest.mark.parametrize("stop", [0, 1, 5, 6, 7, 12, 13])
def test_rows_between_two_ids(reader: SnapshotReader, first: int, stop: int) -> None:
    """Both ends are left out; row groups and files elsewhere are not opened."""
    after = IDS.id_at(first, 0) if first >= 0 else None
    before = IDS.id_at(stop, 0)
    expected = [n for n in range(12) if first < n < stop]
    assert numbers(reader.tables(after=after, before=before)) == expected
    assert numbers(reader.tables(columns=["n"], ids=False, after=after, before=before, rows_max=1)) == expected
    assert (
        numbers(SnapshotReader(reader.snapshot, reader.paths()[0].parent, before=before).tables(after=after))
        == expected
    )


def test_files_elsewhere_are_not_opened(reader: SnapshotReader) -> None:
    """A stream from the past opens the file that holds its place, not all before it."""
    reader.paths()[0].unlink()
    assert numbers(reader.tables(after=IDS.id_at(5, 0))) == list(range(6, 12))


def test_columns_come_in_the_order_of_the_fields(reader: SnapshotReader) -> None:
    """Names that differ by case are two columns; the id comes last, or not at all."""
    (table,) = reader.tables(columns=["a.b", "N"], after=IDS.id_at(9, 0))
    assert table.column_names == ["N", "a.b", HIDDEN_ID]
    assert table.column("a.b").to_pylist() == [[10], [11]]
    (table,) = reader.tables(columns=[], ids=False, after=IDS.id_at(9, 0))
    assert (table.column_names, table.num_rows) == ([], 2)


@pytest.mark.parametrize("damage", [b"", b"PAR1 something PAR1", None])
def test_a_damaged_file_is_named(reader: SnapshotReader, damage: bytes | None) -> None:
    """Whoever is on call must know which file, of which table, and what to do."""
    path = reader.paths()[1]
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    with pytest.raises(SnapshotFileError, match=r"6\.parquet.*orders_1.*rebuild"):
        list(reader.tables())


def test_a_snapshot_before_a_truncation_is_passed_over(tmp_path: Path) -> None:
    """Its rows are gone, and need not be there any more."""
    topic = MemoryTopic()
    topic.rows({"n": 1}, fields=N)
    topic.marker("truncate")
    topic.rows({"n": 2}, fields=N)
    view = topic.fold().view()
    assert view is not None
    past = Snapshot(version=view.name, folder="", delta_version=0, position=1, fields={"n": parse_type("Integer")})
    reader = VersionReader(view, IDS, topic, topic.files, snapshot=SnapshotReader(past, tmp_path / "gone"))
    assert reader.table().to_pylist() == [{"n": 2}]


def test_misfits_break_no_read() -> None:
    """Rows of other producers that no type can hold are told, and left out of every way of reading."""
    topic = MemoryTopic()
    topic.rows({"n": 1}, {"n": "many"}, {"n": 3}, fields=N)
    topic.put(b'{"kind":"arrow","n":1,"ipc":"nonsense"}')
    topic.put(b'{"kind":"rows","rows":"none","fields":7,"key":"n","ts":"today","settings":[1]}')
    topic.put(b'{"kind":"delete","ids":[1,"x"]}')
    topic.put(b'{"kind":["rows"],"rows":[{"n":4}]}')
    topic.rows({"n": 5}, fields=N)
    view = topic.fold().view()
    assert view is not None
    bad: list[BadRow] = []
    reader = VersionReader(view, IDS, topic, topic.files, on_bad_row=bad.append)
    assert [row["n"] for row in reader.table().to_pylist()] == [1, 3, 5]
    assert [(each.offset, each.row, each.value) for each in bad] == [(0, 1, {"n": "many"}), (1, 0, None)]
    assert "'many' is no Integer" in str(bad[0].error)
    streamed = topic.stream()
    assert [row["n"] for row, _ in streamed] == [1, 3, 5]
    assert [place for _, place in streamed][:2] == [(0, 1), (0, 3)]


def test_a_misfit_supersedes_nothing() -> None:
    """With a key, the row before it stays."""
    topic = MemoryTopic()
    topic.rows({"k": 1, "n": 1}, fields={"k": "Integer", **N}, key=["k"])
    topic.rows({"k": 1, "n": "many"}, fields={"k": "Integer", **N})
    assert topic.read() == [{"k": 1, "n": 1}]


def test_unknown_types_of_others_are_text() -> None:
    """Text holds everything, so nothing vanishes."""
    topic = MemoryTopic()
    topic.rows({"n": 1, "m": 2}, fields={"n": "int", "m": "Integer"})
    assert topic.read() == [{"n": "1", "m": 2}]


def test_widening_goes_step_by_step() -> None:
    """True that became 1 is "1" as text: a snapshot in between has lost what it was."""
    topic = MemoryTopic()
    topic.rows({"n": True}, fields={"n": "Boolean"})
    topic.rows({"n": 2}, fields={"n": "Integer"})
    topic.rows({"n": "x"}, fields={"n": "Text"})
    assert [row["n"] for row in topic.read()] == ["1", "2", "x"]
    assert [row["n"] for row, _ in topic.stream()] == ["1", "2", "x"]


def test_a_key_acts_when_it_comes() -> None:
    """What it superseded stays away under a later key; a deleted row supersedes nothing any more."""
    topic = MemoryTopic()
    fields = {"k": "Integer", **N}
    topic.rows({"k": 1, "n": 1}, {"k": 1, "n": 2}, fields=fields)
    topic.marker("delete", ids=[IDS.id_at(0, 1)])
    topic.rows({"k": 2, "n": 3}, fields=fields, key=["k"])
    assert [row["n"] for row in topic.read()] == [1, 3]
    topic.rows({"k": 2, "n": 4}, {"k": 3, "n": 4}, fields=fields)
    topic.rows({"k": 3, "n": 5}, fields=fields, key=["n"])
    assert [row["n"] for row in topic.read()] == [1, 4, 5]
    topic.rows({"k": 9, "n": 9}, fields=fields, key=[])
    assert [row["n"] for row in topic.read()] == [1, 4, 5, 9]


def test_what_supersedes_rows_of_a_snapshot() -> None:
    """Also a row that was deleted since has taken the place of the one before it."""
    topic = MemoryTopic()
    fields = {"k": "Integer", **N}
    topic.rows({"k": 1, "n": 1}, {"k": 2, "n": 2}, {"k": 3, "n": 3}, fields=fields, key=["k"])
    topic.rows({"k": 1, "n": 4}, fields=fields)
    topic.marker("delete", ids=[IDS.id_at(1, 0), IDS.id_at(0, 1)])
    live = topic.reader().superseding((1, 0))
    assert live.newer is not None and live.newer.to_pylist() == [1]
    assert live.key == ("k",)
    assert live.gone.tolist() == [1]
    table = pa.table({"k": pa.array([1, 2, None], pa.int64())})
    mask = live.newer_mask(table, {"k": parse_type("Integer")})
    assert mask is not None and mask.tolist() == [False, True, True]


def test_posts_and_columns_of_a_table_come_as_one(tmp_path: Path) -> None:
    """Whatever a message is encoded as: the same rows, in reads of some columns too."""
    topic = MemoryTopic(folder=tmp_path)
    topic.put(webhook_message({"ts": BORN_MS}, b'{"a":1},"words"', 2))
    topic.put(arrow_message({"fields": {"n": "Integer"}}, pa.table({"n": pa.array([7], pa.int64())})))
    topic.put(webhook_message({"ts": BORN_MS, "request_key": "r"}, b"5", 1))
    (table,) = [pa.concat_tables(topic.reader().tables(columns=["n", "record"]))]
    assert table.to_pylist() == [
        {"n": None, "record": '{"a":1}'},
        {"n": None, "record": '"words"'},
        {"n": 7, "record": None},
        {"n": None, "record": "5"},
    ]
    assert [row["patterns_request_key"] for row in topic.read()] == [None, None, None, "r"]


def test_records_without_fields_are_records_of_their_own() -> None:
    """What a stream puts into one of them, its id, is not in the others."""
    first, second = arrow_to_records(pa.table({"n": [1, 2]}).select([]), {}, for_stream=True)
    assert first == second == {}
    assert first is not second
