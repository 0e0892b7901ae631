"""`rebalance`: how long nodes stand still when a runner joins, and when one dies."""

from __future__ import annotations

import contextlib
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import requests

from benchmarks.apps import write_app
from benchmarks.result import Result
from tailrace.control import ControlLog
from tailrace.engine import shard_of
from tailrace.graph import load_app
from tailrace.log import Log, NewRecord, Partition, open_log
from tailrace.tables import rows_message

__all__ = ["rebalance"]

SESSION_S = 6.0
"""The shortest that a broker takes unless it is told otherwise."""
NODES = 8
EVERY_S = 0.1
"""Between two records."""
SCRIPT = """\
from patterns import Table

copied = Table("copied{n}", "w")
for row in Table("source").as_stream():
    copied.append(row)
"""


def rebalance(*, quick: bool) -> Result:
    """Two runners on a real broker; the second one joins, and is killed."""
    from tailrace.testing.kafka import LocalKafka

    joins_s, deaths_s = [], []
    with LocalKafka(short_lived=False) as broker, tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder, log = Path(name), open_log(broker.url)
        with contextlib.closing(log):
            ControlLog(log).deploy(load_app(_app(folder)), "benchmark")
            with _runner(folder, broker.url, "one") as one:
                one.shards()  # once it answers, the topics are there
                progress = _Progress(log)
                progress.watch(lambda: len(one.shards()) == 32)
                progress.watch(progress.all_moved_on)
                progress.begin()
                progress.watch(progress.all_moved_on)
                undisturbed_s = max(progress.longest_s.values())
                for _ in range(1 if quick else 5):
                    with _runner(folder, broker.url, "two") as two:
                        progress.begin()
                        progress.watch(two.joined)
                        stayed = {n for n in range(NODES) if shard_of(f"rebalance/copy{n}", 32) in one.shards()}
                        progress.watch(progress.all_moved_on)
                        joins_s.append(max(progress.longest_s[n] for n in stayed))
                        progress.begin()
                        two.process.kill()
                        progress.watch(lambda: len(one.shards()) == 32)
                        progress.watch(progress.all_moved_on)
                        deaths_s.append(max(progress.longest_s.values()))
    join_s, death_s = max(joins_s), max(deaths_s)
    return Result(
        name="rebalance",
        value=death_s,
        unit="s",
        baseline=SESSION_S,
        what="longest time without progress of a node whose runner was killed",
        against="the session time-out",
        wanted="at most the session time-out + 3 s; nodes that stay when a runner joins: at most 3 s",
        met=death_s <= SESSION_S + 3 and join_s <= 3,
        extra={
            "join_s": round(join_s, 2),
            "undisturbed_s": round(undisturbed_s, 2),
            "deaths_s": [round(each, 2) for each in deaths_s],
            "nodes": NODES,
        },
    )


def _app(folder: Path) -> Path:
    functions = "".join(f"  - {{node_file: copy{n}.py, id: copy{n}}}\n" for n in range(NODES))
    stores = "".join(f"  - {{table: copied{n}, id: copied{n}}}\n" for n in range(NODES))
    graph = f"title: Rebalance\nslug: rebalance\nfunctions:\n{functions}stores:\n  - {{table: source, id: source}}\n{stores}"
    return write_app(folder, {"graph.yml": graph, **{f"copy{n}.py": SCRIPT.format(n=n) for n in range(NODES)}})


class _Runner:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._url: str | None = None

    def joined(self) -> bool:
        """Whether it has its half of the shards; does not wait for it to be ready."""
        assert self.process.stdout is not None
        ready = self._url is not None or bool(select.select([self.process.stdout], [], [], 0)[0])
        return ready and len(self.shards()) == 16

    def shards(self) -> set[int]:
        """Those that it holds; waits until it is ready."""
        if self._url is None:
            assert self.process.stdout is not None
            self._url = self.process.stdout.readline().decode().removeprefix("ready: ").strip()
        return set(requests.get(f"{self._url}/healthz", timeout=10).json()["shards"])


@contextlib.contextmanager
def _runner(folder: Path, log_url: str, name: str) -> Iterator[_Runner]:
    command = [sys.executable, "-m", "tailrace.runner", "--log", log_url, "--data", str(folder / name)]
    more = ["--shared-folder", str(folder / "shared"), "--port", "0", "--session-timeout", str(SESSION_S)]
    with (folder / f"{name}.log").open("ab") as errors:
        process = subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=errors)
    try:
        yield _Runner(process)
    finally:
        process.kill()
        process.wait()


class _Progress:
    """Feeds the table that all nodes copy, and looks how long each copy stands still."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._copies = {n: Partition(f"rebalance.copied{n}") for n in range(NODES)}
        self._ends: dict[Partition, int] = {}
        self._fed, self._next_s = 0, 0.0
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self._began_s = time.monotonic()
        self._moved_s = dict.fromkeys(self._copies, self._began_s)
        self.longest_s = dict.fromkeys(self._copies, 0.0)

    def all_moved_on(self) -> bool:
        """Whether each node has written something within the last second, and for two seconds before."""
        now_s = time.monotonic()
        return now_s - self._began_s > 3 and all(now_s - moved_s < 1 for moved_s in self._moved_s.values())

    def watch(self, condition: Callable[[], bool], timeout_s: float = 90) -> None:
        """Feed and look until the condition holds."""
        until_s = time.monotonic() + timeout_s
        asked_s = 0.0
        while time.monotonic() < until_s:
            self._feed()
            ends = self._log.ends(list(self._copies.values()))
            now_s = time.monotonic()
            for n, partition in self._copies.items():
                if ends[partition] != self._ends.get(partition):
                    self._moved_s[n] = now_s
                self.longest_s[n] = max(self.longest_s[n], now_s - self._moved_s[n])
            self._ends = {**ends}
            if now_s > asked_s + 0.3:
                asked_s = now_s
                if condition():
                    return
            time.sleep(0.01)
        raise TimeoutError("the nodes did not get there")

    def _feed(self) -> None:
        if time.monotonic() >= self._next_s:
            rows = orjson.dumps([{"number": self._fed}])
            head = {"kind": "rows", "ts": 1, "n": 1, "fields": {"number": "Integer"}}
            self._log.append(Partition("rebalance.source"), [NewRecord(rows_message(head, rows))])
            self._fed += 1
            self._next_s = time.monotonic() + EVERY_S
