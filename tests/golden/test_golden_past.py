"""A house whose log was trimmed: all that its tables hold lies in the lake, and every way of reading gives it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from golden import Golden, golden_up
from tailrace.lake import LakeLocation, TopicSource, snapshot_version
from tailrace.log import Log, Offset, Partition, open_log
from tailrace.snapshotter import lanes_by_key
from tailrace.snapshotter.index import append_all, fold_record, snapshot_record
from tailrace.tables import Messages, StagedFiles, TableFold

TABLES = ("events", "followed", "plain", "latest", "totals")
QUERY = "select count(*) as c, sum(n) as s from plain join latest using (n)"


class LogMessages:
    """`MessageSource` over a log."""

    def __init__(self, log: Log, partition: Partition) -> None:
        self.log, self.partition = log, partition

    def scan(self, start: int, stop: int) -> Iterator[Messages]:
        batch = self.log.read(self.partition, Offset(start), stop=Offset(stop), records_max=1 << 30)
        yield Messages.of(batch.records)


def put_away(data_dir: Path, names: Mapping[str, str]) -> None:
    """Bring all tables (topic -> name) into the lake, say so in the index, and trim the log behind."""
    location = LakeLocation.parse(str(data_dir / "lake"))
    log = open_log(f"sqlite:///{data_dir / 'tailrace.db'}")
    try:
        for info in log.topics("past.").values():
            if info.name not in names:
                continue
            partition = Partition(info.name)
            fold = TableFold(names[info.name])
            end = log.settled_ends([partition])[partition]
            start = log.starts([partition])[partition]
            assert start == 0, "what is told here needs the whole log"
            records = log.read(partition, Offset(0), stop=end, records_max=1 << 30).records
            fold.advance(((record.offset, record.ts_ms, record.value) for record in records), end)
            source = TopicSource(
                info.name, info.born_ms, LogMessages(log, partition), StagedFiles(data_dir / "staging")
            )
            made = (snapshot_version(location, source, fold, name).snapshot for name in fold.versions)
            (lane,) = lanes_by_key([info]).values()
            said = [fold_record(lane, fold), *(snapshot_record(lane, each) for each in made)]
            append_all(log, info.name, said)
            while log.trim(partition, end) < end:
                pass
    finally:
        log.close()


def seen(golden: Golden) -> dict[str, Any]:
    """What people see of the tables."""
    return {
        "tables": {name: golden.rows(name, "past") for name in TABLES},
        "query": golden.sql(QUERY, "past"),
        "versions": {
            name: [(v["version"], v["rows"]) for v in golden.get(f"tables/{name}/versions", app="past")]
            for name in TABLES
            if name != "latest"  # it has a key: how many rows count is told once they are in the lake
        },
    }


def looked(golden: Golden) -> dict[str, Any]:
    """What a node sees of them."""
    run = golden.run("look", "past")
    assert run["kind"] == "ok", run["error"]
    return {row["way"]: row["value"] for row in golden.rows("found", "past")}


def fill(golden: Golden) -> None:
    """Write another 50 rows."""
    run = golden.run("fill", "past")
    assert run["kind"] == "ok", run["error"]


def test_a_house_goes_on_from_the_lake(tmp_path: Path) -> None:
    """Streams at their places, rewound streams from the first row, tables, SQL, counts, and what comes after."""
    data_dir = tmp_path / "data"
    with golden_up(data_dir, "past") as golden:
        golden.send("events", *({"n": n} for n in range(120)))
        fill(golden)
        golden.until(lambda: len(golden.rows("followed", "past")), wanted=lambda count: count == 120)
        golden.until(lambda: golden.rows("totals", "past"), wanted=lambda rows: rows and rows[0]["events"] == 120)
        before, node_before = seen(golden), looked(golden)
        names = {each["topic"]: each["table"] for each in golden.get("tables", app="past")}
    put_away(data_dir, names)
    with golden_up(data_dir, "past") as golden:
        assert looked(golden) == node_before
        after = seen(golden)
        for what, value in before.items():
            assert after[what] == value, what
        golden.send("events", *({"n": n} for n in range(120, 150)))
        fill(golden)
        followed = golden.until(lambda: golden.rows("followed", "past"), wanted=lambda rows: len(rows) >= 150)
        assert [row["n"] for row in followed] == list(range(150))
        found = looked(golden)
        assert found["stream"] == list(range(150))
        assert found["records"] == found["frame"] == found["chunks"] == found["sql"] == list(range(100))
        assert found["keyed"] == found["by field"] == [n for n in range(70, 100) if n != 57]
        assert found["count"] == [150, 100, len(found["keyed"])]
        golden.until(lambda: golden.rows("totals", "past"), wanted=lambda rows: rows[0]["newest"] == 149)
        assert not [run for run in golden.runs() if run["kind"] != "ok"]
