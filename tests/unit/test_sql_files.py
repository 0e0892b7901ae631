"""Tables that lie in Parquet files: their rows as SQL sees them, and that no other file can be read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tailrace.sql import JSON_METADATA, Database, DatabaseLimits, FileColumn, FileRows, SqlError

LIMITS = DatabaseLimits(threads=1)


def file(folder: Path, name: str, **columns: Any) -> Path:
    path = folder / f"{name}.parquet"
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files; the second one has a column more."""
    return [
        file(tmp_path, "first", n=[1, 2, 3], patterns_id=["a1", "a2", "a3"]),
        file(tmp_path, "second", n=[4, 5], patterns_id=["b1", "b2"], late=["x", None]),
    ]


@pytest.fixture
def database(files: list[Path]) -> Iterator[Database]:
    with Database(LIMITS, files=files) as database:
        yield database


def tail(*numbers: int) -> pa.Table:
    ids = [f"c{number}" for number in numbers]
    return pa.table({"n": pa.array(numbers, pa.int64()), "late": ["t"] * len(ids), "patterns_id": ids})


COLUMNS = [FileColumn("n", "n"), FileColumn("late", "late"), FileColumn("patterns_id", "patterns_id")]


def rows_of(files: list[Path], **changes: Any) -> FileRows:
    return FileRows(**{"paths": files, "columns": COLUMNS, "id_column": "patterns_id", **changes})


def test_rows_of_the_files_come_first_and_then_those_of_the_tail(database: Database, files: list[Path]) -> None:
    """A file that is older than a column has NULL there."""
    database.register_files("t", rows_of(files), tail(6, 7))
    assert database.query("select n, late from t").to_pylist() == [
        {"n": 1, "late": None},
        {"n": 2, "late": None},
        {"n": 3, "late": None},
        {"n": 4, "late": "x"},
        {"n": 5, "late": None},
        {"n": 6, "late": "t"},
        {"n": 7, "late": "t"},
    ]


def test_what_the_tail_takes_the_place_of_is_left_out(database: Database, files: list[Path]) -> None:
    """By id, by key, and what lies at or after a cut; a NULL in a key equals nothing."""
    superseding = pa.table({"k": pa.array([2, None], pa.int64())})
    database.register_files(
        "t",
        rows_of(files, key={"n": "k"}, before="b2"),
        tail(2),
        deleted=pa.table({"id": ["a1"]}),
        superseding=superseding,
    )
    assert database.query("select n, patterns_id from t order by patterns_id").to_pylist() == [
        {"n": 3, "patterns_id": "a3"},
        {"n": 4, "patterns_id": "b1"},
        {"n": 2, "patterns_id": "c2"},
    ]


def test_a_column_that_no_file_has_takes_its_type_from_the_tail(database: Database, files: list[Path]) -> None:
    """A field that came after the snapshot."""
    newer = tail(6).append_column("price", pa.array([Decimal("1.50")], pa.decimal128(10, 2)))
    database.register_files("t", rows_of(files, columns=[*COLUMNS, FileColumn("price", "price")]), newer)
    assert database.query("select sum(price) as s, count(price) as c from t").to_pylist() == [
        {"s": Decimal("1.50"), "c": 1}
    ]


def test_types_come_back_from_how_they_are_stored(tmp_path: Path) -> None:
    """Times, durations and JSON lie as text; the union with the tail keeps the table's types."""
    spans = [timedelta(days=3, seconds=5, microseconds=7), -timedelta(hours=1), None]
    path = file(
        tmp_path,
        "typed",
        at=["10:30:00.000001", "23:59:59", None],
        span=["P3DT5.000007S", "-P0DT3600S", None],
        doc=['{"a":[1]}', "2", None],
        moment=pa.array([datetime(2026, 1, 2, 3, 4, 5, 6, UTC)] * 3, pa.timestamp("us", "UTC")),
        day=pa.array([date(2026, 1, 2)] * 3),
        wide=pa.array([1, 2, None], pa.int64()),
        patterns_id=["a", "b", "c"],
    )
    fields: list[pa.Field[Any]] = [
        pa.field("at", pa.time64("us")),
        pa.field("span", pa.duration("us")),
        pa.field("doc", pa.string(), metadata=JSON_METADATA),
        pa.field("moment", pa.timestamp("us", "UTC")),
        pa.field("day", pa.timestamp("us")),
        pa.field("wide", pa.string()),
    ]
    columns = [
        FileColumn("at", "at", "TIME"),
        FileColumn("span", "span", "INTERVAL"),
        FileColumn("doc", "doc", "JSON"),
        FileColumn("moment", "moment"),
        FileColumn("day", "day", "TIMESTAMP"),
        FileColumn("wide", "wide", "VARCHAR"),
    ]
    with Database(LIMITS, files=[path]) as database:
        rows = FileRows(paths=[path], columns=columns, id_column="patterns_id")
        database.register_files("t", rows, pa.schema(fields).empty_table())
        found = database.query("select at, moment, day, wide, doc->'a' as inner_doc from t").to_pylist()
        assert [row["at"] for row in found] == [time(10, 30, 0, 1), time(23, 59, 59), None]
        assert found[0]["moment"] == datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
        assert (found[0]["day"], found[0]["wide"], found[0]["inner_doc"]) == (datetime(2026, 1, 2), "1", "[1]")
        for span in spans[:2]:
            assert span is not None
            query = f"select count(*) as c from t where span = interval '{span.total_seconds()} seconds'"
            assert database.query(query).to_pylist() == [{"c": 1}]


REFUSED = [
    "select * from read_parquet('{path}')",
    "select * from parquet_scan('{path}')",
    "select * from parquet_metadata('{path}')",
    "select * from '{path}'",
    'select * from "{path}"',
    'select * from "newer:t"',
    'select * from "deleted:t"',
]


@pytest.mark.parametrize("query", REFUSED)
def test_sql_reads_no_file_by_its_name(database: Database, files: list[Path], query: str) -> None:
    """Not even one that a table lies in: our names are the only way."""
    database.register_files("t", rows_of(files), tail(6), deleted=pa.table({"id": ["a1"]}))
    with pytest.raises(SqlError):
        database.query(query.format(path=files[0]))


def test_duckdb_itself_reads_none_but_the_given_files(database: Database, files: list[Path], tmp_path: Path) -> None:
    """So that a mistake of ours in translating finds a closed door: another table's file, a folder, a way around."""
    other = file(tmp_path, "other", n=[9])
    link = tmp_path / "link.parquet"
    link.symlink_to(other)
    connection = database._connection
    for path in (other, link, tmp_path / "*.parquet", f"{files[0]}/../other.parquet", "/etc/passwd"):
        with pytest.raises(duckdb.Error):
            connection.execute(f"SELECT * FROM read_parquet('{path}')").fetchall()
    for statement in (
        f"SET allowed_paths = ['{other}']",
        "SET allowed_directories = ['/']",
        "SET enable_external_access = true",
        f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'",
        f"ATTACH '{tmp_path / 'x.db'}'",
    ):
        with pytest.raises(duckdb.Error):
            connection.execute(statement)


def test_a_file_of_another_table_is_refused_at_its_registration(database: Database, tmp_path: Path) -> None:
    other = file(tmp_path, "other", n=[9], patterns_id=["z"])
    with pytest.raises(SqlError, match="cannot be read"):
        database.register_files("o", rows_of([other]), tail(1))


def test_paths_that_duckdb_takes_for_patterns_are_told(tmp_path: Path) -> None:
    assert not rows_of([tmp_path / "a[1]" / "x.parquet"]).can_be_named
    assert rows_of([tmp_path / "it's" / "x.parquet"]).can_be_named


def test_projections_and_filters_reach_the_files(database: Database, files: list[Path]) -> None:
    """Of a wide table only what a query names is read."""
    database.register_files("t", rows_of(files), tail(6))
    relation = database.translate("select sum(n) as s from t where n > 3")
    plan = str(database._connection.execute(f"EXPLAIN {relation.sql}").fetchall())
    assert "READ_PARQUET" in plan.upper() and "n>3" in plan.replace(" ", "")
    assert "patterns_id" not in plan


def test_a_table_may_be_registered_anew(database: Database, files: list[Path]) -> None:
    """A database is kept for several statements."""
    database.register_files("t", rows_of(files), tail(6), deleted=pa.table({"id": ["a1"]}))
    database.register("t", tail(1, 2))
    assert database.query("select count(*) as c from t").to_pylist() == [{"c": 2}]
    database.register_files("t", rows_of(files), tail())
    assert database.query("select count(*) as c from t").to_pylist() == [{"c": 5}]
