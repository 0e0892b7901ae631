"""A request waits in a gateway of its own process while the host dies and comes back: it gets its answer."""

from __future__ import annotations

import json
import threading
import urllib.request
from pathlib import Path

import pytest
from gateway_process import GatewayProcess, wait_until
from kill_harness import House

from tailrace.gateway import WebhookRoute
from tailrace.log import Partition, open_log

GRAPH = """
title: Asks
slug: asks
functions:
  - {webhook: questions, id: questions1, respond: true}
  - {node_file: answer.py, id: answer1}
stores:
  - {table: questions, id: t1}
"""

ANSWER = """
from patterns import Table, respond_to_request

for row in Table("questions").as_stream():
    got = {"got": row["record"]["number"]}
    respond_to_request(row["patterns_request_key"], got, status=201, headers={"X-Number": str(got["got"])})
"""


@pytest.mark.timeout(180)
def test_an_answer_comes_from_the_next_host(tmp_path: Path) -> None:
    """`kill -9` of the host while the request waits: the record is in the log, and the answer travels by it."""
    url = f"sqlite:///{tmp_path / 'log.db'}"
    app = tmp_path / "app"
    app.mkdir()
    (app / "graph.yml").write_text(GRAPH)
    (app / "answer.py").write_text(ANSWER)
    routes = {"questions1": WebhookRoute(webhook="questions1", topic="asks.t1", respond=True)}
    first = House(tmp_path / "first", url, app)
    first.wait_until_serving()
    answers: dict[int, tuple[int, str | None, object]] = {}

    with GatewayProcess(tmp_path / "gateway", url, routes) as gateway:
        port = gateway.wait_until_listening()

        def ask(number: int) -> None:
            body = json.dumps({"number": number}).encode()
            url = f"http://127.0.0.1:{port}/webhooks/questions1"
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as response:
                answers[number] = (response.status, response.headers["X-Number"], json.loads(response.read()))

        ask(0)
        first.kill()
        threads = [threading.Thread(target=ask, args=(number,)) for number in (1, 2, 3)]
        for thread in threads:
            thread.start()
        log = open_log(url)
        asks = Partition("asks.t1")
        wait_until(lambda: len(log.read(asks, log.starts([asks])[asks]).records) == 4, "the requests are in the log")
        log.close()
        second = House(tmp_path / "second", url, app)
        second.wait_until_serving()
        for thread in threads:
            thread.join(60)
        second.kill()
    assert answers == {number: (201, str(number), {"got": number}) for number in range(4)}
