"""Deployments by the command line, and a running `up` that takes them over."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import Any

import orjson
import requests

from tailrace.log import Partition, TopicSpec, open_log
from tailrace.runner.slots import SlotState, state_topic
from up_process import COMMAND, environment, tailrace, up, write_app

GRAPH = """\
title: Shop
slug: shop
functions:
  - {webhook: orders, id: webhook1}
  - {node_file: double.py, id: double01}
stores:
  - {table: orders, id: storeord}
  - {table: out, id: storeout}
"""
CODE = """\
from patterns import Table
out = Table("out", "w")
for row in Table("orders").as_stream():
    out.append({{"n": row["n"] * {factor}}})
"""


def shop(folder: Path, factor: int, graph: str = GRAPH) -> Path:
    return write_app(folder, graph, double__py=CODE.format(factor=factor))


def test_a_running_up_takes_over_what_is_deployed_and_rolled_back(tmp_path: Path) -> None:
    """Rows of before are handled by the older version, later ones by the newer; none twice, none left out."""
    data = tmp_path / "data"
    with up(data, shop(tmp_path / "shop", 1)) as process:

        def post(number: int, *, wanted: list[int]) -> None:
            requests.post(process.webhooks["orders"], json={"n": number}, timeout=30)
            process.until(lambda: sorted(row["n"] for row in process.rows("out")), wanted=lambda rows: rows == wanted)

        def versions() -> list[str]:
            return [each["code"] for each in process.json("runs", "--node", "double")]

        post(1, wanted=[1])
        done = tailrace("deploy", shop(tmp_path / "newer" / "shop", 10), "--data", data, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "shop version 2 deployed\n  ~ double\n    1 node unchanged\n"
        deployments = orjson.loads(tailrace("deployments", "shop", "--data", data, "--json", cwd=tmp_path).stdout)
        assert [(each["version"], each["runs"]) for each in deployments] == [(1, False), (2, True)]
        process.until(lambda: process.json("status")["apps"][0]["version"], wanted=lambda version: version == 2)
        post(2, wanted=[1, 20])
        assert tailrace("rollback", "shop", "--data", data, cwd=tmp_path).returncode == 0
        process.until(lambda: process.json("status")["apps"][0]["version"], wanted=lambda version: version == 3)
        post(3, wanted=[1, 3, 20])
        codes = versions()
        assert codes[0] == codes[-1] != codes[1]
        newest = process.json("runs", "--node", "double")[-1]["run"]
        shown = process.cli("runs", "show", newest).stdout
        assert "read orders" in shown and "wrote out" in shown and "CPU time" in shown
        shown_too = process.json("runs", "show", newest)
        assert shown_too["down"] == {"shop.storeout": []} and shown_too["asked"] is shown_too["fire_ms"] is None
        asked = process.json("trigger", "double", "--wait")["run"]
        assert process.json("runs", "show", asked)["asked"]["type"] == "manual"
        assert ", manual" in process.cli("runs", "show", asked).stdout
        assert tailrace("undeploy", "shop", "--data", data, cwd=tmp_path).returncode == 0
        process.until(lambda: process.json("status")["apps"], wanted=lambda apps: apps == [])
        assert requests.post(process.webhooks["orders"], json={"n": 4}, timeout=30).status_code == 404


def test_errors_refuse_a_deployment(tmp_path: Path) -> None:
    """What runs goes on; file and line say why."""
    log = f"sqlite:///{tmp_path / 'log.db'}"
    assert tailrace("deploy", shop(tmp_path / "shop", 1), "--log", log, cwd=tmp_path).returncode == 0
    broken = shop(tmp_path / "broken", 1)
    (broken / "double.py").write_text("def (:\n")
    refused = tailrace("deploy", broken, "--log", log, cwd=tmp_path)
    assert refused.returncode == 1
    assert f"{broken}/double.py:1: error:" in refused.stderr
    nameless = shop(tmp_path / "nameless", 1, GRAPH + "schemas:\n  - {schema_file: rows.yml}\n")
    (nameless / "rows.yml").write_text("fields: 5\n")
    refused = tailrace("deploy", nameless, "--log", log, cwd=tmp_path)
    assert refused.returncode == 1
    assert f"{nameless}/rows.yml:1: error: A schema file must be a map with a name" in refused.stderr
    twice = shop(tmp_path / "twice", 1, GRAPH.replace("slug: shop", "slug: other"))
    refused = tailrace("deploy", twice, "--log", log, cwd=tmp_path)
    assert refused.returncode == 1
    assert "two webhooks have the id 'webhook1'" in refused.stderr
    (found,) = orjson.loads(tailrace("deployments", "--log", log, "--json", cwd=tmp_path).stdout)
    assert (found["app"], found["version"], found["runs"]) == ("shop", 1, True)
    planned = tailrace("deploy", shop(tmp_path / "newer" / "shop", 2), "--dry-run", "--log", log, cwd=tmp_path)
    assert "shop version 2 would be deployed" in planned.stdout
    assert len(orjson.loads(tailrace("deployments", "shop", "--log", log, "--json", cwd=tmp_path).stdout)) == 1
    missing = tailrace("rollback", "shop", "--to", "7", "--log", log, cwd=tmp_path)
    assert (missing.returncode, "no version 7" in missing.stderr) == (1, True)


PRINTS = """\
from patterns import Table
for row in Table("orders").as_stream():
    print("took", row["n"])
"""


def test_runs_and_output_are_told_from_a_log_as_by_whoever_runs_it(tmp_path: Path) -> None:
    """`--log` reads the journals, so it needs no `up`: the same runs, lines and lineage, also as they come."""
    data = tmp_path / "data"
    graph = "title: Shop\nslug: shop\nfunctions:\n  - {webhook: orders, id: webhook1}\n  - {node_file: tell.py, id: tell0001}\n"
    graph += "stores:\n  - {table: orders, id: storeord}\n"
    app = write_app(tmp_path / "shop", graph, tell__py=PRINTS)
    with up(data, app) as process:
        log = f"sqlite:///{data / 'tailrace.db'}"

        def told(*arguments: str) -> Any:
            done = tailrace(*arguments, "--log", log, "--json", cwd=tmp_path)
            assert done.returncode == 0, done.stderr
            return orjson.loads(done.stdout)

        def post(number: int) -> None:
            requests.post(process.webhooks["orders"], json={"n": number}, timeout=30)

        post(1)
        process.until(lambda: told("logs"), wanted=lambda lines: [line["text"] for line in lines] == ["took 1"])
        following = subprocess.Popen(
            [*COMMAND, "logs", "-f", "--node", "tell", "--log", log, "--json"],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert following.stdout is not None
            assert orjson.loads(following.stdout.readline())["text"] == "took 1"
            post(13)
            came = [orjson.loads(following.stdout.readline()) for _ in range(2)]
        finally:
            following.terminate()
            following.wait(30)
            following.stdout.close()
        assert {each["type"] for each in came} == {"line", "run"}
        assert [each["text"] for each in came if each["type"] == "line"] == ["took 13"]
        runs = process.json("runs", "--node", "tell")
        assert [each["run"] for each in told("runs", "--node", "tell", "--status", "ok")] == [
            each["run"] for each in runs
        ]
        assert told("runs", "--status", "failed") == told("runs", "--node", "other") == []
        assert told("runs", "show", runs[-1]["run"]) == process.json("runs", "show", runs[-1]["run"])
        asked = process.json("trigger", "tell", "--wait")["run"]
        process.until(lambda: told("runs")[-1]["run"], wanted=lambda run: run == asked)
        assert told("runs", "show", asked)["asked"]["type"] == "manual"
    missing = tailrace("runs", "show", "shop/tell0001#999", "--log", log, cwd=tmp_path)
    assert (missing.returncode, "has no run" in missing.stderr) == (1, True)


SHARES = """\
title: Shares
slug: shares
functions:
  - {{node_file: copy.py, id: {id}, parallelism: {slots}}}
stores:
  - {{table: events, id: events01, partitions: 4, partition_key: /k}}
  - {{table: out, id: storeout}}
"""


def test_a_deployment_that_would_lose_places_of_slots_is_refused(tmp_path: Path) -> None:
    """Before it is in the control log: another `parallelism` of a node that has streamed. Its error says what works."""
    url = f"sqlite:///{tmp_path / 'log.db'}"

    def deploy(slots: int, node: str) -> subprocess.CompletedProcess[str]:
        code = (
            'from patterns import Table\nfor row in Table("events").as_stream():\n    Table("out", "w").append(row)\n'
        )
        app = write_app(tmp_path / "shares", SHARES.format(id=node, slots=slots), copy__py=code)
        return tailrace("deploy", app, "--log", url, cwd=tmp_path)

    first = deploy(2, "copy0001")
    assert first.returncode == 0, first.stderr
    with contextlib.closing(open_log(url)) as log:  # what its first run leaves
        log.create_topics([TopicSpec(state_topic("shares"), compacted=True)])
        places = {"shares.events01/1": (7, 0)}
        state = SlotState(places=places, slots=2).to_record("shares/copy0001~1")
        log.append(Partition(state_topic("shares")), [state])
    refused = deploy(3, "copy0001")
    assert refused.returncode == 1
    assert "has streamed with parallelism 2, and graph.yml asks for 3" in refused.stderr
    assert "Write `parallelism: 2` again; or give the node a new `id`" in " ".join(refused.stderr.split())
    versions = orjson.loads(tailrace("deployments", "shares", "--log", url, "--json", cwd=tmp_path).stdout)
    assert [each["version"] for each in versions] == [1]
    assert deploy(3, "copy0002").returncode == 0
    back = tailrace("rollback", "shares", "--log", url, cwd=tmp_path)  # its slots are as many as they were
    assert back.returncode == 0, back.stderr
