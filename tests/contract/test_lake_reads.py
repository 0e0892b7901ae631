"""All ways in which node code reads a table give the same rows whether these lie in the log, or in a snapshot of which
the log was trimmed, and a tail."""

from __future__ import annotations

import pickle
import textwrap
from pathlib import Path
from typing import Any

import pytest
from table_reading import put_into_lake, trim_behind_lake

from tailrace.lake import LakeLocation
from tailrace.node import Table, lake
from tailrace.sql import Database
from tailrace.tables import rows_message
from tailrace.testing.app import TestApp

READ = """
import pickle
from pathlib import Path
t = Table("t")
found = {
    "records": t.read(),
    "frame": t.read_dataframe().to_dict("list"),
    "types": [str(each) for each in t.read_dataframe().dtypes],
    "arrow": t.read("arrow").schema.to_string(),
    "chunks": [len(chunk) for chunk in t.read(chunksize=3)],
    "sql": sorted(t.read_sql(f"select * from {t}"), key=str),
    "sql types": t.read_sql(f"select * from {t}", as_format="arrow").schema.to_string(),
    "aggregate": t.read_sql(f"select count(*) as c, sum(n) as s, max(n) as m from {t} where n > 1"),
    "count": t.record_count,
    "stream": list(t.as_stream()),
    "by field": list(t.as_stream(order_by="n")),
}
t.as_stream().rewind()
found["again"] = list(t.as_stream())
Path(FILE).write_bytes(pickle.dumps(found))
"""

APPENDED = (
    """
    Table("t", "w").append([{"n": n, "text": f"row {n}"} for n in range(20)])
    """,
    """
    Table("t", "w").append([{"n": 20, "text": "late", "more": 1.5}, {"n": 21}])
    """,
)
TYPED = (
    """
    import datetime as dt
    from decimal import Decimal
    t = Table("t", "w")
    t.init(schema_hints={"at": "Time", "span": "Interval", "price": "Decimal(precision=12, scale=3)"})
    t.append([
        {"n": n, "at": dt.time(10, n, 0, n), "span": dt.timedelta(days=n, microseconds=-n), "price": Decimal(n) / 8,
         "doc": {"a": [n, None]}, "day": dt.date(2026, 1, 1 + n), "flag": n % 2 == 0, "raw": bytes([n]), "list": [n, 2],
         "moment": dt.datetime(2026, 1, 1, n, 0, 0, n), "utc": dt.datetime(2026, 1, 1, n, tzinfo=dt.timezone.utc)}
        for n in range(10)
    ] + [{"n": None}])
    """,
    """
    import datetime as dt
    Table("t", "w").append([{"n": 50, "at": dt.time(1), "span": dt.timedelta(1), "doc": "text"}, {"n": 51, "flag": True}])
    """,
)
WIDENED = (
    """
    import datetime as dt
    rows = [{"n": n, "wide": n, "flag": n % 2 == 0, "day": dt.date(2026, 1, 1 + n), "real": n} for n in range(9)]
    Table("t", "w").append(rows)
    """,
    """
    import datetime as dt
    Table("t", "w").append([{"n": 9, "wide": "nine", "flag": 7, "day": dt.datetime(2026, 2, 3, 4), "real": 1.5}])
    """,
)
KEYED = (
    """
    t = Table("t", "w")
    t.init(unique_on="id")
    t.upsert([{"id": f"k{n}", "n": n} for n in range(12)])
    """,
    """
    t = Table("t", "w")
    t.init(unique_on="id")
    t.upsert([{"id": "k3", "n": 33}, {"id": "new", "n": 34}, {"id": "k5", "n": 35}, {"id": None, "n": 36}])
    t.execute_sql(f"delete from {t} where id in ('k7', 'k5')")
    """,
)
TWO_KEYS = (
    """
    t = Table("t", "w")
    t.init(unique_on=["a", "b"])
    t.upsert([{"a": n % 3, "b": f"b{n}", "n": n} for n in range(12)])
    """,
    """
    t = Table("t", "w")
    t.init(unique_on=["a", "b"])
    t.upsert([{"a": 0, "b": "b3", "n": 33}, {"a": 1, "b": "b3", "n": 34}])
    t.execute_sql(f"delete from {t} where n in (33, 8)")
    """,
)
DELETED = (
    APPENDED[0],
    """
    t = Table("t", "w")
    t.execute_sql(f"delete from {t} where n < 4")
    t.execute_sql(f"update {t} set text = 'changed' where n = 10")
    """,
)
TRUNCATED = (
    APPENDED[0],
    """
    Table("t", "w").truncate()
    Table("t", "w").append([{"n": 5, "text": "after"}, {"n": 7}])
    """,
)
NO_IDS = (
    """
    t = Table("t", "w")
    t.init(add_monotonic_id=None, strictly_monotonic_ordering="n")
    t.append([{"n": n} for n in range(10)])
    """,
    """
    Table("t", "w").append([{"n": 11}])
    """,
)
OTHER_ID = (
    """
    t = Table("t", "w")
    t.init(add_monotonic_id="number")
    t.append([{"n": n} for n in range(10)])
    """,
    """
    Table("t", "w").append([{"n": 11}])
    """,
)
CASES = {
    "appended": APPENDED,
    "typed": TYPED,
    "widened": WIDENED,
    "keyed": KEYED,
    "two keys": TWO_KEYS,
    "deleted": DELETED,
    "truncated": TRUNCATED,
    "without ids": NO_IDS,
    "another id": OTHER_ID,
}


class App:
    """An app in memory with one table, whose older rows can be put into a lake."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.app = TestApp(folder, stores=["t"], staging=folder / "staging")
        self.location = LakeLocation.parse(str(folder / "lake"))
        self._runs = 0

    def run(self, code: str, **changes: Any) -> None:
        """Run code as a node of its own."""
        self._runs += 1
        name = f"node{self._runs}.py"
        (self.folder / name).write_text("from patterns import *\n" + textwrap.dedent(code))
        run = self.app.run(name, **changes)
        assert run.ok, run.outcome.traceback

    def read(self) -> dict[str, Any]:
        """What each way of reading gives."""
        file = self.folder / "found.pickle"
        self.run(READ.replace("FILE", repr(str(file))))
        found: dict[str, Any] = pickle.loads(file.read_bytes())
        return found

    def snapshot(self) -> None:
        """Put all rows into the lake."""
        put_into_lake(self.app, "t", self.location, self.folder / "staging")

    def trim(self) -> None:
        """Take from the log what is in the lake."""
        trim_behind_lake(self.app, "t")


@pytest.fixture(params=["files", "memory"])
def registered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str] | None:
    """SQL reads snapshots from their files (then: the tables for which it did), or all of their rows in memory."""
    files = request.param == "files"
    monkeypatch.setattr(lake, "ROWS_MIN", 1 if files else 1 << 60)
    names: list[str] = []
    register = Database.register_files

    def noted(database: Database, name: str, *args: Any, **options: Any) -> None:
        names.append(name)
        register(database, name, *args, **options)

    monkeypatch.setattr(Database, "register_files", noted)
    return names if files else None


@pytest.mark.parametrize("case", CASES)
def test_rows_are_the_same_from_the_lake(case: str, registered: list[str] | None, tmp_path: Path) -> None:
    """The rows before the snapshot are gone from the log; nobody may notice."""
    first, second = CASES[case]
    found = []
    for name in ("log", "lake"):
        (tmp_path / name).mkdir()
        app = App(tmp_path / name)
        app.run(first)
        if name == "lake":
            app.snapshot()
            app.trim()
        app.run(second)
        found.append(app.read())
    wanted, got = found
    for way, value in wanted.items():
        assert repr(got[way]) == repr(value), way
    if registered is not None and case != "truncated":
        assert registered


def test_a_repeat_that_slipped_through_is_in_no_way_of_reading(registered: list[str] | None, tmp_path: Path) -> None:
    """Two gateways took a post within half a second: its message is there twice, before or behind the snapshot."""
    for name in ("log", "lake"):
        (tmp_path / name).mkdir()
        app = App(tmp_path / name)

        def put(app: App, *posts: tuple[int, str]) -> None:
            head = {"kind": "rows", "n": 1, "fields": {"n": "Integer"}}
            rows = [rows_message({**head, "id": key}, b'[{"n":%d}]' % n) for n, key in posts]
            app.app.table("t").commit(rows, 1_700_000_000_000)

        put(app, (1, "a"), (2, "b"), (1, "a"))
        if name == "lake":
            app.snapshot()
            app.trim()
        put(app, (2, "b"), (3, "c"), (1, "a"))
        found = app.read()
        for way in ("records", "sql", "stream", "again", "by field"):
            assert [row["n"] for row in found[way]] == [1, 2, 3], (name, way)
        assert found["frame"]["n"] == [1, 2, 3] and found["count"] == 3
        assert found["aggregate"] == [{"c": 2, "s": 5, "m": 3}]


def test_a_stream_goes_on_from_the_past_into_the_log(tmp_path: Path) -> None:
    """Cut short anywhere, each row comes once: out of the snapshot, across its end, out of the log."""
    app = App(tmp_path)
    app.run('Table("t", "w").append([{"n": n} for n in range(40)])')
    app.snapshot()
    app.run('Table("t", "w").append([{"n": n} for n in range(40, 60)])')
    app.trim()
    code = 'from patterns import *\nTable("out", "w").append([{"n": row["n"]} for row in Table("t").as_stream()])\n'
    (tmp_path / "stream.py").write_text(code)
    for rows_max in (1, 7, 30, 1, 5, 100):
        run = app.app.run("stream.py", rows_max=rows_max, outputs={"out": "out"})
        assert run.ok, run.error
    assert [row["n"] for row in app.app.read("out")] == list(range(60))


def test_a_log_that_is_trimmed_while_a_run_streams_it(tmp_path: Path) -> None:
    """The rows that the run has not seen yet come from the snapshot."""
    app = App(tmp_path)
    for start in range(0, 3000, 10):
        app.app.append("t", [{"n": n} for n in range(start, start + 10)])
    app.snapshot()
    with app.app.inside(rows_max=1 << 40):
        stream = iter(Table("t").as_stream())
        seen = [next(stream)["n"] for _ in range(5)]
        app.trim()
        seen += [row["n"] for row in stream]
    assert seen == list(range(3000))
