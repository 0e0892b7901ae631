"""Runners share the nodes of one log; when one dies, stops or stands still, the others go on, and each record counts once."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_harness import wait_for
from spread_runners import SESSION_S, Feed, Runner, check_copies, write_app

from tailrace.control import ControlLog
from tailrace.graph import load_app
from tailrace.log import open_log
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
    """Two share the shards; one is killed; then the other one is stopped cleanly. `test_fleet` does worse to them."""
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

        one.end()
        wait_for(lambda: two.shards() == everything, "the one that is left has all shards", SESSION_S + 15)
        # The log is that of other tests, too, and their apps may have nodes that ran.
        wait_for(
            lambda: sum(slot.startswith(f"{SLUG}/") for slot in two.page("status")) == NODES,
            "the table of statuses has followed",
        )
        # What does not run here is told of, and what runs goes on.
        unfit = write_app(tmp_path / "unfit", SLUG, 1)
        (unfit / "requirements.txt").write_text("./nothing-here\n")
        with (unfit / "graph.yml").open("a") as file:
            file.write("requirements_file: requirements.txt\n")
        ControlLog(log).deploy(load_app(unfit), "a test")
        wait_for(lambda: "cannot run beside the rest, which goes on" in two.stderr(), "it is told of")
        assert "nothing-here" in two.stderr()
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
