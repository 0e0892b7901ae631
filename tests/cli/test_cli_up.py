"""`up` from start to stop, and the commands that speak to it meanwhile."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests

from up_process import COMMAND, PATIENCE_S, UpProcess, environment, tailrace, up, write_app

GRAPH = """\
title: Shop
functions:
  - webhook: orders
    id: webhook1
  - node_file: totals.py
    id: totalspy
  - node_file: sums.sql
    id: sumssql1
    outputs: {output_table: sums}
  - node_file: fail.py
    id: failpy01
    trigger: manual
stores:
  - {table: orders, id: storeord}
  - {table: totals, id: storetot}
  - {table: sums, id: storesum}
"""
TOTALS = """\
from patterns import Table
orders, totals = Table("orders"), Table("totals", "w")
for row in orders.as_stream():
    order = row["record"]
    print("order", order["id"])
    totals.append({"id": order["id"], "total": order["price"] * order["pieces"]})
"""
SUMS = 'select count(*) as orders, max(total) as best from {{ Table("totals") }} as t\n'
STOP_MAX_S = 5.0


def shop(folder: Path) -> Path:
    return write_app(folder, GRAPH, totals__py=TOTALS, sums__sql=SUMS, fail__py="raise SystemError('on purpose')\n")


def order(number: int) -> dict[str, int]:
    return {"id": number, "price": 5, "pieces": number}


@pytest.fixture(scope="module")
def shop_up(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An `up` that took three orders and has handled them."""
    folder = tmp_path_factory.mktemp("shop")
    with up(folder / "data", shop(folder / "shop"), arguments=("--ops-port", "0")) as process:
        for number in (1, 2, 3):
            requests.post(process.webhooks["orders"], json=order(number), timeout=30)
        process.until(
            lambda: process.rows("sums"),
            wanted=lambda rows: [(row["orders"], row["best"]) for row in rows] == [(3, 15)],
        )
        yield process


def test_metrics_are_on_a_port_of_their_own(shop_up: UpProcess) -> None:
    """They name topics, so whoever may post does not find them."""
    found = requests.get(f"{shop_up.ready['ops']}/metrics", timeout=30)
    assert found.status_code == 200
    assert re.search(r'^tailrace_webhook_accepted_total{webhook="[^"]+"} 3.0$', found.text, re.MULTILINE)
    assert requests.get(f"{shop_up.url}/metrics", timeout=30).status_code == 404


def test_status_tells_of_nodes_tables_and_webhooks(shop_up: UpProcess) -> None:
    status = shop_up.json("status")
    (app,) = status["apps"]
    assert [node["title"] for node in app["nodes"]] == ["orders", "totals", "sums", "fail"]
    assert {node["title"]: node["trigger"] for node in app["nodes"]}["fail"] == "manual"
    assert {table["table"] for table in app["tables"]} == {"orders", "totals", "sums"}
    assert {node["title"]: (node["last_run"] or {}).get("kind") for node in app["nodes"]}["totals"] == "ok"
    assert shop_up.url in shop_up.cli("status").stdout


def test_a_node_that_failed_is_shown_with_its_error(shop_up: UpProcess) -> None:
    assert shop_up.cli("trigger", "fail", "--wait").returncode == 1
    by_title = {node["title"]: node for node in shop_up.json("nodes")}
    assert (by_title["totals"]["state"], by_title["totals"]["behind"]) == ("idle", 0)
    failed = by_title["fail"]
    assert (failed["state"], failed["error"], failed["failures"]) == ("failed", "fail.py:1: SystemError: on purpose", 1)
    assert "on purpose" in shop_up.cli("nodes").stdout


def test_webhooks_are_listed_with_their_urls(shop_up: UpProcess) -> None:
    (webhook,) = shop_up.json("webhooks")
    assert webhook["url"] == shop_up.webhooks["orders"]
    assert webhook["url"] in shop_up.cli("webhooks").stdout


def test_tables_and_their_rows(shop_up: UpProcess) -> None:
    tables = {each["table"]: each for each in shop_up.json("tables")}
    assert tables["totals"]["rows"] == 3
    assert tables["totals"]["fields"]["total"].startswith("Integer")
    rows = shop_up.json("table", "head", "totals", "-n", "2")
    assert [(row["id"], row["total"]) for row in rows] == [(1, 5), (2, 10)]
    shown = shop_up.cli("table", "head", "totals").stdout.splitlines()
    assert shown[0].split()[:2] == ["id", "total"] and len(shown) == 4, "whole and uncoloured for pipes"


def test_versions_mark_the_active_one(shop_up: UpProcess) -> None:
    versions = shop_up.json("table", "versions", "sums")
    assert [each["active"] for each in versions] == [False] * (len(versions) - 1) + [True]


@pytest.mark.parametrize("ending", ["csv", "json", "ndjson", "parquet"])
def test_export_writes_a_whole_file(shop_up: UpProcess, tmp_path: Path, ending: str) -> None:
    """The same rows in every format; and a file that is there is not overwritten unasked."""
    file = tmp_path / f"totals.{ending}"
    assert shop_up.cli("table", "export", "totals", "-o", str(file)).returncode == 0
    data = file.read_bytes()
    if ending == "csv":
        rows = [(int(row["id"]), int(row["total"])) for row in csv.DictReader(io.StringIO(data.decode()))]
    elif ending == "json":
        rows = [(row["id"], row["total"]) for row in orjson.loads(data)]
    elif ending == "ndjson":
        rows = [(row["id"], row["total"]) for row in map(orjson.loads, data.splitlines())]
        assert shop_up.cli("table", "export", "totals", "--format", "ndjson").stdout.encode() == data
    else:
        import pyarrow.parquet as pq

        rows = [(row["id"], row["total"]) for row in pq.read_table(file).to_pylist()]
    assert rows == [(1, 5), (2, 10), (3, 15)]
    again = shop_up.cli("table", "export", "totals", "-o", str(file))
    assert again.returncode == 1 and "--force" in again.stderr


def test_sql_asks_the_tables(shop_up: UpProcess) -> None:
    assert shop_up.json("sql", "select max(total) as best from totals") == [{"best": 15}]
    assert "15" in shop_up.cli("sql", "select max(total) as best from totals").stdout


def test_runs_and_logs(shop_up: UpProcess) -> None:
    runs = shop_up.json("runs", "--node", "totals")
    assert runs and {run["node"] for run in runs} == {"totalspy"}
    lines = shop_up.json("logs", "--node", "totals")
    assert [line["text"].strip() for line in lines] == ["order 1", "order 2", "order 3"]
    assert "order 2" in shop_up.cli("logs").stdout


def test_trigger_waits_for_the_run(shop_up: UpProcess) -> None:
    """Status 1 and the reason when the run fails, so that scripts can go by it."""
    good = shop_up.cli("trigger", "sums", "--wait", "--json")
    assert good.returncode == 0 and orjson.loads(good.stdout)["kind"] == "ok"
    named_by_file = shop_up.cli("trigger", "sums.sql", "--wait", "--json")
    assert orjson.loads(named_by_file.stdout)["node"] == orjson.loads(good.stdout)["node"]
    bad = shop_up.cli("trigger", "fail", "--wait", "--json")
    assert bad.returncode == 1 and "on purpose" in orjson.loads(bad.stdout)["error"]
    assert "Traceback" not in shop_up.errors, "those that waited before have gone, which is no error"


def test_logs_can_be_followed(shop_up: UpProcess) -> None:
    """A line arrives while its run is fresh; Ctrl-C ends the following with 130."""
    follower = subprocess.Popen(
        [*COMMAND, "logs", "-f", "--json", "--last", "0", "--data", str(shop_up.data_dir)],
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    try:
        assert follower.stdout is not None
        deadline = time.monotonic() + PATIENCE_S
        entry: dict[str, Any] = {}
        os.set_blocking(follower.stdout.fileno(), False)
        while "on purpose" not in str(entry.get("error")) and time.monotonic() < deadline:
            shop_up.cli("trigger", "fail", "--wait")
            for line in follower.stdout.readlines():
                entry = orjson.loads(line)
        assert "on purpose" in entry["error"]
        follower.send_signal(signal.SIGINT)
        assert follower.wait(PATIENCE_S) == 130
    finally:
        follower.kill()
        follower.wait()
        if follower.stdout is not None:
            follower.stdout.close()


def test_the_contact_file_is_private(shop_up: UpProcess) -> None:
    """It holds the token of the local interface; nobody else may read it, and nobody without it gets in."""
    assert stat.S_IMODE((shop_up.data_dir / "up.json").stat().st_mode) == 0o600
    assert requests.get(f"{shop_up.url}/api/local/status", timeout=30).status_code == 401


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_quick_and_loses_nothing(tmp_path: Path, number: int) -> None:
    """Stopped in the middle of work: it ends with 0 in five seconds, and goes on where it was after the next start."""
    app = shop(tmp_path / "shop")
    posted = 40
    with UpProcess(tmp_path / "data", app) as process:
        for each in range(posted):
            assert requests.post(process.webhooks["orders"], json=order(each), timeout=30).status_code == 200
        began = time.monotonic()
        assert process.stop(number) == 0
        assert time.monotonic() - began < STOP_MAX_S
        if "takes too long" not in process.errors:  # a machine this busy is cut short, and still loses nothing
            assert process.entries[-1]["type"] == "stopped"
            assert not (tmp_path / "data" / "up.json").exists()
    with up(tmp_path / "data", app) as process:
        rows = process.until(
            lambda: process.rows("sums"),
            wanted=lambda rows: [row["orders"] for row in rows] == [posted],
        )
        assert rows
        ids = [row["id"] for row in process.rows("totals")]
        assert ids == list(range(posted)), "each once, in order"


def test_a_stop_in_the_middle_of_a_long_run(tmp_path: Path) -> None:
    """A node that does not end by itself must not hold up the stop."""
    app = write_app(
        tmp_path / "app",
        "functions:\n  - {node_file: slow.py, id: slownode}\n",
        slow__py="import time\nprint('begun', flush=True)\ntime.sleep(600)\n",
    )
    with UpProcess(tmp_path / "data", app) as process:
        process.wait_for(lambda entry: entry["type"] == "line" and "begun" in entry["text"])
        began = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - began < STOP_MAX_S


def test_an_edit_is_deployed_with_watch(tmp_path: Path) -> None:
    app = shop(tmp_path / "shop")
    with up(tmp_path / "data", app, arguments=["--watch"]) as process:
        (app / "graph.yml").write_text("functions: [\n")
        process.wait_for(lambda entry: entry["type"] == "error" and "graph.yml" in entry["message"])
        (app / "graph.yml").write_text(GRAPH)
        (app / "totals.py").write_text(TOTALS.replace('"order"', '"edited"'))
        process.wait_for(lambda entry: entry["type"] == "deployed")
        requests.post(process.webhooks["orders"], json=order(7), timeout=30)
        process.until(
            lambda: [entry for entry in process.entries if entry["type"] == "line"],
            wanted=lambda lines: any("edited 7" in line["text"] for line in lines),
        )


def test_what_people_see(tmp_path: Path) -> None:
    """Without --json: the banner with each webhook's URL, runs by title, and no colours in a pipe."""
    app = shop(tmp_path / "shop")
    process = subprocess.Popen(
        [*COMMAND, "up", "shop", "--port", "0"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        seen: list[str] = []
        for line in process.stdout:
            seen.append(line)
            if "/webhooks/webhook1" in line:
                requests.post(line.split()[-1], json=order(1), timeout=30)
            if "sums" in line and "✓" in line:
                break
        told = "".join(seen)
        assert "Shop (shop)" in told and "order 1" in told and "✓ totals" in told and "\x1b" not in told
        assert tailrace("webhooks", cwd=app).returncode == 0, "found from the folder upward"
        process.send_signal(signal.SIGINT)
        assert "stopped" in process.stdout.read()
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
