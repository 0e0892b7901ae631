"""Two slots share the partitions of a table while posts come in and the house is killed: every row once, keys in order.

On both logs; State a slot, an upserted table and the rows of both slots agree with what was posted.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import requests

from tailrace.tables import partition_of_key
from tailrace.testing.kafka import LocalKafka
from up_process import UpProcess

PARTITIONS, SLOTS, KEYS, CLIENTS = 4, 2, 12, 3

GRAPH = f"""
title: Shares
slug: shares
functions:
  - {{webhook: events, id: wh000001}}
  - {{node_file: copy.py, id: py000001, parallelism: {SLOTS}}}
stores:
  - {{table: events, id: st000001, partitions: {PARTITIONS}, partition_key: /record/k}}
  - {{table: copies, id: st000002, partitions: {PARTITIONS}, partition_key: k}}
  - {{table: latest, id: st000003, partitions: {PARTITIONS}, partition_key: k}}
"""
COPY = """
from patterns import State, Table
events, copies, latest = Table("events"), Table("copies", "w"), Table("latest", "w")
latest.init(unique_on="k")
state = State()
count = state.get_value("count", 0)
for row in events.as_stream():
    count += 1
    post = row["record"]
    copies.append({"k": post["k"], "n": post["n"], "count": count})
    latest.upsert({"k": post["k"], "n": post["n"]})
state.set_value("count", count)
"""


class Clients:
    """Post numbers key by key, each client its own keys, until they are stopped; a post that fails is sent again."""

    def __init__(self) -> None:
        self.url = ""
        self.sent: Counter[str] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._post, args=(number,)) for number in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _post(self, number: int) -> None:
        keys = [f"key-{key}" for key in range(number, KEYS, CLIENTS)]
        with requests.Session() as session:
            while not self._stop.is_set():
                for key in keys:
                    n = self.sent[key]
                    while not self._stop.is_set():
                        try:
                            headers = {"Idempotency-Key": f"{key}/{n}"}
                            answer = session.post(self.url, json={"k": key, "n": n}, headers=headers, timeout=5)
                        except requests.RequestException:
                            self._stop.wait(0.05)
                            continue
                        if answer.status_code == 200:
                            self.sent[key] = n + 1
                            break
                        self._stop.wait(0.05)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def copies_of(house: UpProcess, rows_min: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = house.until(lambda: house.rows("copies"), wanted=lambda rows: len(rows) >= rows_min)
    return found


def siege(folder: Path, log: str | None, kills: int) -> None:
    app = folder / "app"
    app.mkdir()
    (app / "graph.yml").write_text(GRAPH)
    (app / "copy.py").write_text(COPY)
    house = UpProcess(folder / "data", app, log=log).__enter__()
    clients = Clients()
    clients.url = house.webhooks["events"]
    try:
        for kill in range(kills):
            copies_of(house, 60 * (kill + 1))
            house.kill()
            house = UpProcess(folder / "data", app, log=log).__enter__()
            clients.url = house.webhooks["events"]
    finally:
        clients.stop()
    posted = sum(clients.sent.values())
    copies = copies_of(house, posted)
    events = house.rows("events")
    check(clients.sent, [row["record"] for row in events], copies, house.rows("latest"))
    assert house.stop() == 0, house.errors


def check(sent: Counter[str], events: list[Any], copies: list[dict[str, Any]], latest: list[dict[str, Any]]) -> None:
    posted: dict[str, list[int]] = defaultdict(list)
    copied: dict[str, list[int]] = defaultdict(list)
    counts: dict[int, list[int]] = defaultdict(list)
    for post in events:
        posted[post["k"]].append(post["n"])
    for row in copies:
        copied[row["k"]].append(row["n"])
        counts[partition_of_key(row["k"], PARTITIONS) % SLOTS].append(row["count"])
    # A post under way when the clients stopped may be there without an answer.
    for key, numbers in posted.items():
        assert numbers in (list(range(sent[key])), list(range(sent[key] + 1))), key
    assert copied == posted, "each row once, and the rows of a key in their order"
    assert {row["k"]: row["n"] for row in latest} == {key: numbers[-1] for key, numbers in posted.items()}
    assert len(latest) == len(posted), "one row a key"
    assert set(counts) == set(range(SLOTS)), "both slots had keys"
    for slot, found in counts.items():
        assert sorted(found) == list(range(1, len(found) + 1)), f"the State of slot {slot} counted each row once"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.chaos)])
def test_two_slots_on_sqlite(tmp_path: Path, kills: int) -> None:
    """`kill -9` of the house, which holds both slots."""
    siege(tmp_path, None, kills)


@pytest.mark.kafka
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.chaos)])
def test_two_slots_on_kafka(tmp_path: Path, kafka_broker: LocalKafka, kills: int) -> None:
    """The same with each slot's transactions on a real broker."""
    siege(tmp_path, kafka_broker.url, kills)
