"""Tables with several partitions in the lake of a running `up`: their logs are trimmed, and everything can be read still."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import deltalake
import orjson
import pyarrow as pa
import pytest
import requests

from tailrace.cli.client import Client
from tailrace.cli.follow import triggered_run
from tailrace.lake import LakeLocation
from tailrace.log import Log, open_log
from tailrace.runtime import Runtime
from tailrace.snapshotter import SnapshotterSettings, table_lanes
from tailrace.snapshotter.tasks import collect
from tailrace.testing.kafka import LocalKafka
from up_process import UpProcess, up, write_app

PARTITIONS, KEYS = 4, 10
GRAPH = f"""\
title: Parted
slug: parted
functions:
  - {{webhook: events, id: wh000001}}
  - {{node_file: copy.py, id: py000001, parallelism: 2}}
  - {{node_file: again.py, id: py000002, parallelism: 2, trigger: manual}}
  - {{node_file: total.py, id: py000003, trigger: manual}}
stores:
  - {{table: events, id: st000001, partitions: {PARTITIONS}, partition_key: /record/k, freshness: 1s}}
  - {{table: latest, id: st000002, partitions: {PARTITIONS}, partition_key: k, freshness: 1s}}
  - {{table: again, id: st000003, partitions: {PARTITIONS}, partition_key: k, freshness: 1s}}
  - {{table: totals, id: st000004, freshness: 1s}}
"""
COPY = """\
from patterns import Table
latest = Table("latest", "w")
latest.init(unique_on="k")
for row in Table("events").as_stream():
    n = row["record"]["n"]
    latest.upsert({"k": row["record"]["k"], "n": n if n < 60 else n + 0.5})
"""
AGAIN = """\
from patterns import Table
again = Table("again", "w")
stream = Table("events").as_stream()
stream.rewind()
for row in stream:
    again.append({"k": row["record"]["k"], "n": row["record"]["n"], "id": row["patterns_id"]})
"""
TOTAL = """\
from patterns import Table
events, latest = Table("events"), Table("latest")
found = events.read_sql(f"select count(*) as c from {events}")[0]["c"]
Table("totals", "w").append({"events": len(events.read()), "sql": found, "keys": latest.record_count})
"""

pytestmark = pytest.mark.timeout(300)


def post(house: UpProcess, numbers: range) -> None:
    for n in numbers:
        requests.post(house.webhooks["events"], json={"k": f"key-{n % KEYS}", "n": n}, timeout=30).raise_for_status()


def in_lake(house: UpProcess) -> dict[str, Any]:
    """All tables, once all of them are in the lake."""
    found: list[dict[str, Any]] = house.until(
        lambda: Client(house.data_dir).get("lake")["tables"],
        wanted=lambda tables: tables and all(each["lag_offsets"] == 0 for each in tables),
    )
    return {each["table"]: each for each in found}


def in_delta(lake: Path, folder: str) -> list[dict[str, Any]]:
    """What other Delta readers see of a version: its partitions have a Delta table each."""
    parts = sorted((lake / folder).glob("partition=*"))
    assert [part.name for part in parts] == [f"partition={number}" for number in range(PARTITIONS)]
    return [row for part in parts for row in pa.table(deltalake.DeltaTable(str(part)).to_pyarrow_table()).to_pylist()]


def trim(log: Log, url: str, data: Path) -> None:
    """Let go of all that is in the lake, as retention does when it is old."""
    settings = SnapshotterSettings(
        log_url=url,
        lake_url=str(data / "lake"),
        staging_dir=str(data / "staging"),
        retention=timedelta(0),
        grace=timedelta(0),
    )
    plans = list(collect(log, LakeLocation.parse(settings.lake_url), settings, Runtime(), "parted"))
    assert {plan.topic for plan in plans} >= {"parted.st000001", "parted.st000002"}


def latest(house: UpProcess) -> dict[str, float]:
    return {row["k"]: row["n"] for row in house.rows("latest")}


def newest(count: int) -> dict[str, float]:
    """What the upserted table holds after so many posts."""
    numbers = {f"key-{n % KEYS}": n for n in range(count)}
    return {key: n if n < 60 else n + 0.5 for key, n in numbers.items()}


def lives_in_the_lake(folder: Path, url: str | None) -> None:
    app, data = write_app(folder / "parted", GRAPH, copy__py=COPY, again__py=AGAIN, total__py=TOTAL), folder / "data"
    own = url or f"sqlite:///{data / 'tailrace.db'}"
    with UpProcess(data, app, log=url) as house:
        post(house, range(60))
        house.until(lambda: latest(house), wanted=lambda found: found == newest(60))
        run = triggered_run(Client(data), "py000003", None)["run"]
        assert Client(data).get("run", run=run)["run"] == run  # who asks has the journal written: it survives the kill
        status = in_lake(house)
        assert (status["events"]["rows"], status["latest"]["rows"]) == (60, KEYS)
        assert {row["k"]: row["n"] for row in in_delta(data / "lake", status["latest"]["folder"])} == newest(60)
        log = open_log(own)
        try:
            lanes = [lane.partition for lane in table_lanes(log, ["parted"]).values() if "-dead" not in lane.key]
            trim(log, own, data)
            starts, ends = log.starts(lanes), log.ends(lanes)
            left = {lane: log.read(lane, starts[lane], stop=ends[lane]).records for lane in lanes}
        finally:
            log.close()
        assert sum(start > 0 for start in starts.values()) > 2 * PARTITIONS and not any(left.values()), left
        house.kill()
    with up(data, app, log=url) as house:
        assert latest(house) == newest(60) and len(house.rows("events")) == 60
        post(house, range(60, 80))  # `n` becomes wider in the partitions that these come to
        house.until(lambda: latest(house), wanted=lambda found: found == newest(80))
        Client(data).post("trigger", {"node": "py000002", "app": None})
        again = house.until(lambda: house.rows("again"), wanted=lambda rows: len(rows) >= 80)
        by_key: dict[str, list[int]] = defaultdict(list)
        for row in again:
            by_key[row["k"]].append(row["n"])
        assert by_key == {f"key-{key}": list(range(key, 80, KEYS)) for key in range(KEYS)}
        assert {row["id"] for row in again} == {row["patterns_id"] for row in house.rows("events")}
        query = {"sql": "select count(*) as c, max(n) as n from latest", "app": None, "at_ms": None, "run": None}
        assert Client(data).post("sql", query)["rows"] == [[KEYS, 79.5]]
        then = b"".join(Client(data).pieces("tables/events/rows", format="json", run=run))
        assert len(orjson.loads(then)) == 60
        triggered_run(Client(data), "py000003", None)
        totals = [(row["events"], row["sql"], row["keys"]) for row in house.rows("totals")]
        assert totals == [(60, 60, KEYS), (80, 80, KEYS)]
        status = in_lake(house)
        assert {row["k"]: row["n"] for row in in_delta(data / "lake", status["latest"]["folder"])} == newest(80)
        (version,) = Client(data).get("tables/latest/versions")
        assert (version["lake"]["rows"], version["in_log"], version["active"]) == (KEYS, False, True)
        rebuilt = {each["topic"]: each["lost"] for each in Client(data).post("lake/rebuild", {"app": None})}
        assert rebuilt["parted.st000001/3"] is None and not any(rebuilt.values())
        assert latest(house) == newest(80) and len(house.rows("events")) == 80


def test_partitions_live_in_the_lake(tmp_path: Path) -> None:
    """Streams with several slots rewind into it; upserts, types that become wider in some partitions, SQL, what a run
    read, and the index made again: all as if nothing had been trimmed."""
    lives_in_the_lake(tmp_path, None)


@pytest.mark.kafka
def test_partitions_live_in_the_lake_on_kafka(tmp_path: Path, kafka_broker: LocalKafka) -> None:
    """The same behind a real broker."""
    lives_in_the_lake(tmp_path, kafka_broker.url)
