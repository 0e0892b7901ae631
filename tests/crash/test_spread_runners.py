"""Runners share the nodes of one log; when one dies, stops or stands still, the others go on, and each record counts once."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_harness import wait_for
from spread_runners import SESSION_S, Feed, Runner, check_copies, write_app

from tailrace.control import ControlLog
from tailrace.errors import RetriableError
from tailrace.graph import load_app
from tailrace.log import Log, Offset, Partition, open_log
from tailrace.testing.kafka import LocalKafka

NODES = 6
SLUG = "spread"

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]


@contextlib.contextmanager
def two_runners(folder: Path, log_url: str) -> Iterator[tuple[Runner, Runner]]:
    runners = (Runner(folder, log_url, "one"), Runner(folder, log_url, "two"))
    try:
        for runner in runners:
            runner.wait_until_ready()
        yield runners
    finally:
        for runner in runners:
            runner.end()


def test_nodes_move_and_each_record_counts_once(tmp_path: Path, kafka_broker: LocalKafka) -> None:
    """Two share the shards; one stands still for longer than the session time-out, comes back to find itself fenced, and
    gets its share again; then the other one is killed; then the last one is stopped cleanly."""
    log = open_log(kafka_broker.url)
    ControlLog(log).deploy(load_app(write_app(tmp_path / "app", SLUG, NODES)), "a test")
    with two_runners(tmp_path, kafka_broker.url) as (one, two), contextlib.closing(log):
        everything = set(range(32))

        def shared() -> bool:
            return len(one.shards()) == len(two.shards()) == 16 and one.shards() | two.shards() == everything

        wait_for(shared, "the shards are shared")
        feed = Feed(log, f"{SLUG}.source", 0.05)
        feed.start()
        wait_for(
            lambda: len({s["runner"] for s in (one.page("status") | two.page("status")).values()}) == 2, "both work"
        )

        os.kill(two.process.pid, signal.SIGSTOP)
        wait_for(lambda: one.shards() == everything, "the other one has all shards", SESSION_S + 15)
        before = len(feed.accepted)
        wait_for(lambda: len(feed.accepted) > before + 40, "some more rows came in")
        os.kill(two.process.pid, signal.SIGCONT)
        wait_for(shared, "the shards are shared again")

        one.end()
        wait_for(lambda: two.shards() == everything, "the one that is left has all shards", SESSION_S + 15)
        wait_for(lambda: len(two.page("status")) == NODES, "the table of statuses has followed")
        check_copies(log, SLUG, NODES, feed.end())
        assert "tailrace_runner_shards 32" in two.page("metrics")
        two.process.terminate()
        assert two.process.wait(20) == 0, two.stderr()


def test_it_refuses_what_others_would_not_see(tmp_path: Path) -> None:
    """A lake on this machine alone would be missing to the other runners."""
    command = [sys.executable, "-m", "tailrace.runner", "--log", "kafka://127.0.0.1:1", "--data", str(tmp_path)]
    for more in ((), ("--lake", str(tmp_path / "lake"))):
        done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 1
        assert "the lake in" in done.stderr and "--shared-folder" in done.stderr


class Siege:
    """Three runners on a broker of their own, and what befalls them."""

    def __init__(self, folder: Path, kafka: LocalKafka, log: Log, seed: int) -> None:
        self._folder, self._kafka, self._log = folder, kafka, log
        self._random = random.Random(seed)
        self._runners = [Runner(folder, kafka.url, f"runner{number}") for number in range(3)]
        self.hits: Counter[str] = Counter()
        self.recovered_s: list[float] = []

    def hit(self) -> None:
        """One of them is killed, stands still, or goes and comes back; or the broker is killed. Then all nodes move on."""
        number = self._random.randrange(3)
        runner = self._runners[number]
        what = self._random.choices(["kill", "pause", "stop", "broker"], [6, 2, 1, 1])[0]
        if what == "broker":  # one that is just starting ends when the log is away, and its supervisor starts it again
            for each in self._runners:
                each.wait_until_ready()
        before, began_s = self._ends(), time.monotonic()
        if what == "broker":
            self._kafka.kill()
            self._kafka.restart()
        elif what == "pause":
            os.kill(runner.process.pid, signal.SIGSTOP)
            self._until_all_move_on(before)
            os.kill(runner.process.pid, signal.SIGCONT)
        else:
            if what == "stop":
                runner.process.terminate()
                assert runner.process.wait(60) == 0, runner.stderr()
            runner.end()
            self._runners[number] = Runner(self._folder, self._kafka.url, f"runner{number}")
        self._until_all_move_on(before)
        for runner in self._runners:
            assert runner.process.poll() is None, f"a runner ended by itself: {runner.stderr()[-4000:]}"
        self.hits[what] += 1
        self.recovered_s.append(time.monotonic() - began_s)

    def end(self) -> None:
        for runner in self._runners:
            runner.end()

    def _ends(self) -> dict[Partition, Offset]:
        copies = [Partition(f"{SLUG}.copied{n}") for n in range(NODES)]
        while True:
            try:
                return self._log.ends(copies)
            except RetriableError:
                time.sleep(0.2)

    def _until_all_move_on(self, before: dict[Partition, Offset]) -> None:
        def moved() -> bool:
            now = self._ends()
            return all(now[copy] > end for copy, end in before.items())

        wait_for(moved, f"all nodes move on after {dict(self.hits)}", 120)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_a_siege_of_three_runners(tmp_path: Path) -> None:
    """Kills, pauses over the session time-out, clean stops and a broker that dies: nothing is lost, nothing twice."""
    seed = int(os.environ.get("TAILRACE_SEED", "1"))
    hits = int(os.environ.get("TAILRACE_HITS", "60"))
    with LocalKafka(folder=tmp_path / "kafka") as kafka, contextlib.closing(open_log(kafka.url)) as log:
        ControlLog(log).deploy(load_app(write_app(tmp_path / "app", SLUG, NODES)), "a test")
        siege = Siege(tmp_path, kafka, log, seed)
        try:
            wait_for(lambda: f"{SLUG}.copied{NODES - 1}" in log.topics(SLUG), "the topics are there")
            feed = Feed(log, f"{SLUG}.source", 0.05)
            feed.start()
            for _ in range(hits):
                siege.hit()
            check_copies(log, SLUG, NODES, feed.end(), 180)
        finally:
            siege.end()
    recovered_s = statistics.median(siege.recovered_s)
    print(
        f"\nseed {seed}: {dict(siege.hits)}; back after {recovered_s:.1f} s (median), {max(siege.recovered_s):.1f} s (longest)"
    )
    assert recovered_s < 10
