"""A full disk: posts are refused with 503, nothing that was accepted is lost, and it goes on by itself afterwards."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from full_disk import fill_up
from kill_harness import AGAIN, COPY, GRAPH, TOTAL, House, read_table, wait_for

from tailrace.log import open_log

pytestmark = pytest.mark.timeout(180)


@contextlib.contextmanager
def running(house: House) -> Iterator[House]:
    """A house that does not outlive its test."""
    try:
        yield house
    finally:
        if house.process.poll() is None:
            house.kill()


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
            lucky = {one for one in accepted if one % 97 != 13}
            copied = lambda: {row["number"] for row in read_table(log, "kills.t2")}  # noqa: E731
            wait_for(lambda: copied() >= lucky, "every accepted row went through the nodes", 60)
            rows = [json.loads(row["record"])["number"] for row in read_table(log, "kills.t1")]
            assert len(rows) == len(set(rows))
            assert set(accepted) <= set(rows)
            copies = [row["number"] for row in read_table(log, "kills.t2")]
            assert len(copies) == len(set(copies))
        assert house.stop() == 0
