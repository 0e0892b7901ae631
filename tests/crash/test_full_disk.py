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
from up_process import write_app

pytestmark = pytest.mark.timeout(180)


class Posted:
    """Posts numbers to a house, each once, and remembers what became of them."""

    def __init__(self, house: House) -> None:
        self._url = f"http://127.0.0.1:{house.port}/webhooks/orders1"
        self._number = 0
        self.accepted: list[int] = []
        self.refused: list[requests.Response] = []

    def next(self) -> bool:
        """Whether the next one was accepted."""
        self._number += 1
        response = requests.post(self._url, json={"number": self._number, "text": "x" * 2000}, timeout=60)
        if response.status_code == 200:
            self.accepted.append(self._number)
        else:
            self.refused.append(response)
        return response.status_code == 200

    def until_refused(self, times: int) -> None:
        """Go on until so many were refused, with 503 and when to come again."""
        while len(self.refused) < times:
            assert len(self.accepted) < 5_000, "a full disk refuses nothing"
            self.next()
        assert {response.status_code for response in self.refused} == {503}
        assert all(int(response.headers["Retry-After"]) >= 1 for response in self.refused)


@contextlib.contextmanager
def running(folder: Path, log_url: str) -> Iterator[House]:
    """A house with an app, which does not outlive its test."""
    app = write_app(folder / "app", GRAPH, copy__py=COPY, again__py=AGAIN, total__sql=TOTAL)
    house = House(folder / "house", log_url, app)
    try:
        house.wait_until_serving()
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
    url = f"sqlite:///{small_disk / 'tailrace.db'}"
    with running(tmp_path, url) as house:
        posted = Posted(house)
        assert all(posted.next() for _ in range(20))
        filler = small_disk / "filler"
        fill_up(filler)
        posted.until_refused(10)
        assert "full" in posted.refused[-1].json()["detail"]
        assert house.process.poll() is None, house.stderr()
        filler.unlink()
        wait_for(posted.next, "posts are taken again", 30)
        with contextlib.closing(open_log(url)) as log:
            check_all_went_through(log, posted.accepted)
        assert house.stop() == 0


@pytest.mark.kafka
@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_a_broker_on_a_full_disk_ends_and_all_goes_on_when_there_is_room(tmp_path: Path, small_disk: Path) -> None:
    """Kafka ends where its only disk is full; the house lives, says that its log is away, and needs no restart."""
    with (
        LocalKafka(folder=small_disk / "kafka", startup_timeout=timedelta(seconds=120)) as broker,
        running(tmp_path, broker.url) as house,
    ):
        posted = Posted(house)
        wait_for(posted.next, "the log takes posts")
        posted.refused.clear()
        filler = small_disk / "filler"
        fill_up(filler)
        posted.until_refused(1)
        wait_for(lambda: not broker.running, "the broker has ended")
        assert "No space left on device" in broker.log_tail(400)
        assert house.process.poll() is None, house.stderr()
        filler.unlink()
        broker.restart()
        wait_for(posted.next, "posts are taken again", 120)
        with contextlib.closing(open_log(broker.url)) as log:
            check_all_went_through(log, posted.accepted)
        assert house.stop() == 0
