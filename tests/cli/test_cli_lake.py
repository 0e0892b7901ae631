"""The lake of a running `up`: Tables get there in time, stay there over restarts, come back, and go when they are old."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import deltalake
import pytest
import requests

from tailrace.cli.client import Client
from tailrace.log import Offset, Partition, open_log
from up_process import UpProcess, up, write_app

GRAPH = """\
title: Shop
slug: shop
functions:
  - {webhook: orders, id: webhook1}
  - {node_file: sums.sql, id: sumssql1, outputs: {output_table: sums}}
stores:
  - {table: orders, id: storeord, freshness: 1s}
  - {table: sums, id: storesum, freshness: 1s}
"""
SUMS = 'select count(*) as orders from {{ Table("orders") }} as t\n'

pytestmark = pytest.mark.timeout(240)


def post(process: UpProcess, *numbers: int) -> None:
    for number in numbers:
        requests.post(process.webhooks["orders"], json={"number": number}, timeout=30).raise_for_status()


def in_lake(process: UpProcess, table: str = "orders") -> dict[str, Any]:
    """What `tailrace lake` says about a table, asked for without a process of its own."""
    return next(each for each in Client(process.data_dir).get("lake")["tables"] if each["table"] == table)


def numbers(lake: Path, status: dict[str, Any]) -> list[int]:
    """As any other Delta reader sees them."""
    rows = deltalake.DeltaTable(str(lake / status["folder"])).to_pyarrow_table().sort_by("patterns_id").to_pylist()
    return [json.loads(row["record"])["number"] for row in rows]


def settled(process: UpProcess, rows: int) -> dict[str, Any]:
    found: dict[str, Any] = process.until(
        lambda: in_lake(process), wanted=lambda each: each["rows"] >= rows and each["lag_offsets"] == 0
    )
    return found


def test_posts_get_into_the_lake_and_stay(tmp_path: Path) -> None:
    """Over a stop and a start; and a lake that was deleted is made again from the log, and it says what the log has not."""
    app, data = write_app(tmp_path / "shop", GRAPH, sums__sql=SUMS), tmp_path / "data"
    lake = data / "lake"
    with up(data, app) as process:
        assert process.ready["lake"] == str(lake)
        post(process, 1)
        settled(process, 1)
        post(process, 2, 3)
        assert numbers(lake, settled(process, 3)) == [1, 2, 3]
    with up(data, app) as process:
        post(process, 4)
        status = settled(process, 4)
        assert numbers(lake, status) == [1, 2, 3, 4]
        found = process.until(lambda: Client(data).get("tables/orders/versions"), wanted=lambda all_: all_[0]["lake"])
        assert (found[0]["lake"]["rows"], found[0]["in_log"], found[0]["active"]) == (4, True, True)
        assert "lake and log" in process.cli("table", "versions", "orders").stdout
        sums = process.until(lambda: process.rows("sums"), wanted=lambda rows: rows == [{"orders": 4}])
        assert sums == [{"orders": 4}]
    shutil.rmtree(lake)
    with up(data, app) as process:
        process.until(
            lambda: (
                (lake / status["folder"] / "_delta_log").is_dir()
                and in_lake(process)["rows"] == 4
                and numbers(lake, status)
            ),
            wanted=lambda all_: all_ == [1, 2, 3, 4],
        )
        rebuilt = process.json("rebuild")
        assert {each["table"]: each["lost"] for each in rebuilt}["orders"] is None
        assert [each["table"] for each in process.json("lake")["tables"]] == ["orders", "sums"]
        assert process.json("gc", "--dry-run") == []
        assert "nothing is old enough" in process.cli("gc").stderr
    with contextlib.closing(open_log(f"sqlite:///{data / 'tailrace.db'}")) as log:
        log.trim(Partition("shop.storeord"), Offset(1))
    shutil.rmtree(lake)
    with up(data, app, arguments=["--retention", "30d"]) as process:
        lost = process.until(lambda: in_lake(process), wanted=lambda each: each["lost"] and each["rows"] == 3)["lost"]
        assert "offsets 0 to 1 are in neither log nor lake" in lost
        assert numbers(lake, status) == [2, 3, 4]
        assert f"orders has lost rows: {lost}" in process.cli("lake").stderr
        process.until(lambda: process.errors, wanted=lambda text: "shop.storeord has lost rows" in text)
    wrong = process.cli("up", str(app), "--retention", "forever")
    assert wrong.returncode == 2 and "forever" in wrong.stderr


def test_an_earlier_version_comes_back(tmp_path: Path) -> None:
    """`restore` fires those who read the table; what is not there is refused."""
    app = write_app(tmp_path / "shop", GRAPH, sums__sql=SUMS)
    with up(tmp_path / "data", app) as process:
        post(process, 1)
        process.until(lambda: process.rows("sums"), wanted=lambda rows: rows == [{"orders": 1}])
        before = next(each for each in Client(process.data_dir).get("tables/sums/versions") if each["active"])
        post(process, 2)
        process.until(lambda: process.rows("sums"), wanted=lambda rows: rows == [{"orders": 2}])
        assert process.json("table", "head", "sums", "--version", before["version"]) == [{"orders": 1}]
        process.json("table", "restore", "sums", before["version"])
        process.until(lambda: process.rows("sums"), wanted=lambda rows: rows == [{"orders": 1}])
        refused = process.cli("table", "restore", "sums", "sums_0000000000")
        assert refused.returncode == 1 and "no version" in refused.stderr


def test_a_table_as_it_was(tmp_path: Path) -> None:
    app = write_app(tmp_path / "shop", GRAPH, sums__sql=SUMS)
    with up(tmp_path / "data", app) as process:
        post(process, 1)
        process.until(lambda: process.rows("sums"), wanted=lambda rows: rows == [{"orders": 1}])
        run = process.until(lambda: Client(process.data_dir).get("runs", last=1), wanted=bool)[0]["run"]
        then = (datetime.now() + timedelta(milliseconds=1)).isoformat(timespec="milliseconds")
        time.sleep(0.01)  # the clock is past it
        # Who looks back has the journal written: the next run is not told as one with this one.
        assert process.json("sql", "select * from sums", "--at", then) == [{"orders": 1}]
        post(process, 2)
        process.until(lambda: process.rows("sums"), wanted=lambda rows: rows == [{"orders": 2}])
        assert process.json("sql", "select * from sums", "--at", then) == [{"orders": 1}]
        assert len(process.json("table", "head", "orders", "--at", then)) == 1
        assert len(process.json("table", "head", "orders", "--run", run)) == 1
        wrong = process.cli("table", "head", "orders", "--at", "yesterday")
        assert wrong.returncode == 2 and "is no moment" in wrong.stderr


def test_a_lake_that_nobody_may_write_is_told_of(tmp_path: Path) -> None:
    """Posts and nodes go on; what is wrong is named, and all catches up when it is put right."""
    app, data, lake = write_app(tmp_path / "shop", GRAPH, sums__sql=SUMS), tmp_path / "data", tmp_path / "lake"
    lake.write_text("a file where a folder is to be")
    with up(data, app, arguments=["--lake", str(lake)]) as process:
        post(process, 1)
        status = process.until(lambda: in_lake(process), wanted=lambda each: each["error"])
        assert "shop/storeord" in status["error"]
        process.until(lambda: process.errors, wanted=lambda text: "does not get into the lake" in text)
        process.until(lambda: process.rows("sums"), wanted=lambda rows: rows == [{"orders": 1}])
        lake.unlink()
        assert settled(process, 1)["error"] is None
        post(process, 2)
        process.until(lambda: process.rows("sums"), wanted=lambda rows: rows == [{"orders": 2}])
