"""`table dead-letters` as people use it, against a running `up`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import requests

from tailrace.cli.client import Client
from up_process import UpProcess, up, write_app

GRAPH = """\
title: Post
functions:
  - webhook: orders
    id: webhook1
  - node_file: price.py
    id: pricepy1
stores:
  - {table: orders, id: storeord}
  - {table: priced, id: stprice1}
"""
PRICE = """\
from patterns import Table
priced = Table("priced", "w")
for row in Table("orders").as_stream():
    priced.append({"price": 3 * row["record"]["pieces"]})
"""


def client_of(process: UpProcess) -> Client:
    return Client(process.data_dir)


@pytest.fixture
def post(tmp_path: Path) -> Iterator[UpProcess]:
    with up(tmp_path / "data", write_app(tmp_path / "post", GRAPH, price__py=PRICE)) as process:
        for body in ({"pieces": 1}, {"no": 2}, {"no": 3}):
            requests.post(process.webhooks["orders"], json=body, timeout=30).raise_for_status()
        client = client_of(process)
        process.until(lambda: client.get("tables/orders/dead-letters"), wanted=lambda found: len(found) == 2)
        yield process


def test_letters_are_listed_edited_replayed_and_dropped(post: UpProcess) -> None:
    """The plain form lists; edit takes JSON, the exit status tells how a replay ended."""

    def run(*words: str) -> tuple[int, str]:
        done = post.cli("table", "dead-letters", *words)
        return done.returncode, done.stdout + done.stderr

    first, second = post.json("table", "dead-letters", "list", "orders", "--node", "price")
    assert first["record"]["record"] == {"no": 2} and first["error"].startswith("price.py:4: KeyError")
    code, text = run("show", "orders", first["id"])
    assert code == 0 and "Traceback" in text and "pieces" in text
    assert run("replay", "orders")[0] == 2
    code, text = run("replay", "orders", first["id"])
    assert code == 1 and "0 records replayed, 1 failed again" in text
    record = orjson.dumps({**second["record"], "record": {"pieces": 5}}).decode()
    code, text = run("edit", "orders", second["id"], "--record", record)
    assert code == 0
    (event,) = map(orjson.loads, run("replay", "orders", text.strip(), "--json")[1].splitlines())
    assert (event["type"], event["id"]) == ("replayed", text.strip())
    assert [row["price"] for row in post.rows("priced")] == [3, 15]
    assert "1 dead letter dropped" in run("drop", "orders", "--node", "pricepy1")[1]
    assert client_of(post).get("tables/orders/dead-letters") == []
