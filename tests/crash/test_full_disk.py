"""A full disk: posts are refused with 503, nothing that was accepted is lost, and it goes on by itself afterwards."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import requests
from full_disk import fill_up
from kill_harness import AGAIN, COPY, GRAPH, TOTAL, House, read_table, wait_for

from tailrace.log import Log, open_log
from tailrace.testing.kafka import LocalKafka

pytestmark = pytest.mark.timeout(180)


@contextlib.contextmanager
def running(house: House) -> Iterator[House]:
    """A house that does not outlive its test."""
    try:
        yield house
    finally:
        if house.process.poll() is None:
            house.kill()


def check_all_went_through(log: Log, accepted: list[int]) -> None:
    """What was accepted is there, went through the nodes, and is nowhere twice."""
    lucky = {one for one in accepted if one % 97 != 13}

    def copied() -> list[int]:
        return [row["number"] for row in read_table(log, "kills.t2")]

    wait_for(lambda: set(copied()) >= lucky, "every accepted row went through the nodes", 120)
    for numbers in (copied(), [json.loads(row["record"])["number"] for row in read_table(log, "kills.t1")]):
        assert len(numbers) == len(set(numbers))
        assert set(numbers) >= lucky
    assert set(numbers) >= set(accepted)


def test_a_house_on_a_full_disk_refuses_and_goes_on(tmp_path: Path, small_disk: Path) -> None:
    """`tailrace up` itself must live: it is the one who tells that the disk is full."""
    app = tmp_path / "app"
    app.mkdir()
    for name, text in (("graph.yml", GRAPH), ("copy.py", COPY), ("again.py", AGAIN), ("total.sql", TOTAL)):
        (app / name).write_text(text)
    url = f"sqlite:///{small_disk / 'tailrace.db'}"
    with running(House(tmp_path / "house", url, app)) as house, requests.Session() as session:
        house.wait_until_serving()
        accepted: list[int] = []
        refused: list[requests.Response] = []

        def post(number: int) -> bool:
            body = {"number": number, "text": "x" * 2000}
            response = session.post(f"http://127.0.0.1:{house.port}/webhooks/orders1", json=body, timeout=20)
            if response.status_code == 200:
                accepted.append(number)
            else:
                refused.append(response)
            return response.status_code == 200

        for number in range(20):
            assert post(number)
        filler = small_disk / "filler"
        fill_up(filler)
        number = 100
        while len(refused) < 10:
            assert number < 5_000, "a full disk refuses nothing"
            post(number)
            number += 1
        assert {response.status_code for response in refused} == {503}
        assert all(int(response.headers["Retry-After"]) >= 1 for response in refused)
        assert "full" in refused[-1].json()["detail"]
        assert house.process.poll() is None, house.stderr()
        filler.unlink()
        wait_for(lambda: post(number + len(accepted) + len(refused)), "posts are taken again", 30)
        with contextlib.closing(open_log(url)) as log:
            check_all_went_through(log, accepted)
        assert house.stop() == 0


@pytest.mark.kafka
@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_a_broker_on_a_full_disk_ends_and_all_goes_on_when_there_is_room(tmp_path: Path, small_disk: Path) -> None:
    """Kafka ends where its only disk is full; the house lives, says that its log is away, and needs no restart."""
    app = tmp_path / "app"
    app.mkdir()
    for name, text in (("graph.yml", GRAPH), ("copy.py", COPY), ("again.py", AGAIN), ("total.sql", TOTAL)):
        (app / name).write_text(text)
    with (
        LocalKafka(folder=small_disk / "kafka", startup_timeout=timedelta(seconds=120)) as broker,
        running(House(tmp_path / "house", broker.url, app)) as house,
        requests.Session() as session,
    ):
        house.wait_until_serving()
        accepted: list[int] = []
        refused: list[requests.Response] = []

        def post(number: int) -> bool:
            body = {"number": number, "text": "x" * 2000}
            response = session.post(f"http://127.0.0.1:{house.port}/webhooks/orders1", json=body, timeout=60)
            (accepted.append(number) if response.status_code == 200 else refused.append(response))
            return response.status_code == 200

        wait_for(lambda: post(len(accepted) + len(refused)), "the log takes posts", 60)
        refused.clear()
        filler = small_disk / "filler"
        fill_up(filler)
        number = 100
        while not refused:
            assert number < 20_000, "a full disk refuses nothing"
            post(number)
            number += 1
        assert refused[-1].status_code == 503
        assert int(refused[-1].headers["Retry-After"]) >= 1
        wait_for(lambda: not broker.running, "the broker has ended")
        assert "No space left on device" in broker.log_tail(400)
        assert house.process.poll() is None, house.stderr()
        filler.unlink()
        broker.restart()
        wait_for(lambda: post(number + len(accepted) + len(refused)), "posts are taken again", 120)
        with contextlib.closing(open_log(broker.url)) as log:
            check_all_went_through(log, accepted)
        assert house.stop() == 0
