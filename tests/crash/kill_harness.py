"""Kill a house under load, again and again, and check every promise afterwards.

The client keeps its own list of what was sent and what was accepted; each number is posted once. At the end the log
is read with nothing but the log's and the tables' own readers.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from forked import fork
from kill_house import COUNTERS
from table_reading import fold_topic, reader_of

from tailrace.log import Log, Offset, Partition, open_log

PROGRAM = Path(__file__).with_name("kill_house.py")

GRAPH = """
title: Kills
slug: kills
functions:
  - {webhook: orders, id: orders1}
  - {node_file: copy.py, id: copy1}
  - {node_file: again.py, id: again1}
  - {node_file: total.sql, id: total1, outputs: {output_table: total}}
stores:
  - {table: orders, id: t1}
  - {table: copied, id: t2}
  - {table: again, id: t3}
  - {table: total, id: t4}
"""

COPY = """
from patterns import State, Table

orders, copied, state = Table("orders"), Table("copied", "w"), State()
for row in orders.as_stream():
    number = row["record"]["number"]
    if number % 97 == 13:
        raise ValueError(f"{number} is unlucky")
    count = state.get_value("count", 0) + 1
    copied.append({"number": number, "count": count})
    state.set_value("count", count)
"""

AGAIN = """
from patterns import State, Table

copied, again, state = Table("copied"), Table("again", "w"), State()
with copied.as_stream().consume_with_rollback() as rows:
    for row in rows:
        total = state.get_value("total", 0) + row["number"]
        state.set_value("total", total)
        again.append({"number": row["number"], "total": total})
"""

TOTAL = """
select count(*) as rows, sum(number) as total from {{ Table("copied") }}
"""

POSTS_PER_S = 250
SETTLE_S = 0.01
"""For a post that waits: on a machine that does much else, one in 97 of them fails its run, which takes a second."""


class PromiseBrokenError(AssertionError):
    """What must never happen has happened."""


class Client(threading.Thread):
    """Posts numbers at a fixed rate to whatever port is current, each once."""

    def __init__(self, port: Callable[[], int], posts_per_s: int) -> None:
        super().__init__(daemon=True)
        self.sent: set[int] = set()
        self.accepted: set[int] = set()
        self.rate = 0.0
        self._port, self._posts_per_s = port, posts_per_s
        self._over = threading.Event()

    def run(self) -> None:
        asyncio.run(self._posts())

    def finish(self) -> None:
        """Stop, and wait for what is under way."""
        self._over.set()
        self.join(timeout=30)

    async def _posts(self) -> None:
        began = time.monotonic()
        timeout = aiohttp.ClientTimeout(total=10)
        gate = asyncio.Semaphore(64)
        tasks: set[asyncio.Task[None]] = set()
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=64)) as session:
            while not self._over.is_set():
                due = int((time.monotonic() - began) * self._posts_per_s)
                while len(self.sent) < due and len(tasks) < 500:
                    number = len(self.sent)
                    self.sent.add(number)
                    task = asyncio.create_task(self._one(session, gate, number))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                await asyncio.sleep(0.004)
            await asyncio.gather(*tasks)
        self.rate = len(self.sent) / (time.monotonic() - began)

    async def _one(self, session: aiohttp.ClientSession, gate: asyncio.Semaphore, number: int) -> None:
        async with gate:
            try:
                url = f"http://127.0.0.1:{self._port()}/webhooks/orders1"
                async with session.post(url, json={"number": number}) as response:
                    if response.status == 200:
                        self.accepted.add(number)
            except (aiohttp.ClientError, TimeoutError, OSError):
                await asyncio.sleep(0.02)


class House:
    """One process of `kill_house.py`."""

    def __init__(self, folder: Path, log_url: str, app: Path, **options: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = options.pop("port", None) or free_port()
        counters = folder / "counters"
        counters.write_bytes(bytes(COUNTERS.size))
        settings = {
            "apps": [str(app)],
            "data": str(folder / "data"),
            "log": log_url,
            "port": self.port,
            "counters": str(counters),
            **options,
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        with counters.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), COUNTERS.size)
        self._errors = (folder / "stderr").open("ab")
        self.folder = folder
        self.process = fork(PROGRAM, str(folder / "settings.json"), stderr=self._errors)

    @property
    def unfinished_runs(self) -> int:
        """Runs that were begun and are not committed, as far as the process has told."""
        begun, committed = COUNTERS.unpack_from(self._map)
        return int(begun - committed)

    @property
    def committed_runs(self) -> int:
        return int(COUNTERS.unpack_from(self._map)[1])

    def workers(self) -> list[int]:
        """Process ids of the workers: children of the zygote, which is our child's child."""
        return [worker for zygote in children(self.process.pid) for worker in children(zygote)]

    def wait_until_serving(self, timeout_s: float = 60) -> None:
        """Return once the port takes connections, or the process has ended."""

        def serving() -> bool:
            if self.process.poll() is not None:
                return True
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(serving, "the house serves", timeout_s)

    def kill(self) -> bool:
        """`kill -9`; whether it hit an unfinished run."""
        self.process.kill()
        self.process.wait()
        self._errors.close()
        return self.unfinished_runs > 0

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        self.process.terminate()
        status = self.process.wait(timeout=20)
        self._errors.close()
        return status

    def stderr(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    """Wait until `condition` holds; an AssertionError names `what` when it does not within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)


def read_table(log: Log, topic: str, number: int = 0) -> list[dict[str, Any]]:
    """The rows of a topic's active version, in one of its partitions."""
    if topic not in log.topics(topic):
        return []
    partition = Partition(topic, number)
    reader = reader_of(log, partition, fold_topic(log, partition, settled=True))
    rows: list[dict[str, Any]] = reader.table().to_pylist() if reader else []
    return rows


def once(what: str, numbers: list[int]) -> set[int]:
    """The numbers as a set; `PromiseBrokenError` if one is there twice."""
    twice = [number for number, count in Counter(numbers).items() if count > 1]
    if twice:
        raise PromiseBrokenError(f"{what}: {len(twice)} numbers are there more than once, such as {sorted(twice)[:5]}")
    return set(numbers)


class Siege:
    """A house under load and its killer."""

    def __init__(
        self, folder: Path, log_url: str, *, seed: int, fault: str | None = None, posts_per_s: int = POSTS_PER_S
    ) -> None:
        self.folder, self.log_url, self.fault = folder, log_url, fault
        self.random = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.hits = 0
        self._ends: dict[Partition, Offset] = {}
        self._ends_since_s = 0.0
        self._built: list[House] = []
        app = self.app = folder / "app"
        app.mkdir(parents=True)
        for name, text in (("graph.yml", GRAPH), ("copy.py", COPY), ("again.py", AGAIN), ("total.sql", TOTAL)):
            (app / name).write_text(text)
        self.house = self.build()
        self.house.wait_until_serving()
        self.client = Client(lambda: self.house.port, posts_per_s)
        self.client.start()

    def __enter__(self) -> Siege:
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever failed, neither the client nor a house goes on."""
        self.client.finish()
        for house in self._built:
            if house.process.poll() is None:
                house.kill()

    def build(self, *, port: int | None = None, data: str | None = None, **options: Any) -> House:
        folder = self.folder / f"house-{len(self._built) + 1}"
        data_dir = str(self.folder / (data or "data"))
        options = {"fault": self.fault, "data": data_dir, "lake": str(self.folder / "lake"), **options}
        house = House(folder, self.log_url, self.app, port=port, **options)
        self._built.append(house)
        return house

    def kill_host(self) -> None:
        """`kill -9` of the host, then a new one on the same data."""
        self._wait_for_a_run()
        self.hits += self.house.kill()
        self.kills["host"] += 1
        self.house = self.build(port=self.house.port)
        self.house.wait_until_serving()

    def kill_at(self, point: str) -> None:
        """A host that ends itself at a named point, then a new one."""
        self.house.kill()
        self.house = self.build(port=self.house.port, kill_at=point, nth=self.random.randint(1, 20))
        status = self.house.process.wait(timeout=60)
        self.house.kill()
        assert status == -signal.SIGKILL, f"the point {point} was not reached: exit {status}, {self.house.stderr()}"
        self.kills[point] += 1
        self.hits += self.house.unfinished_runs > 0
        self.house = self.build(port=self.house.port)
        self.house.wait_until_serving()

    def kill_worker(self) -> None:
        """`kill -9` of a worker."""
        self._wait_for_a_run()
        workers = self.house.workers()
        if workers:
            self.hits += self.house.unfinished_runs > 0
            self.kills["worker"] += 1
            try:
                os.kill(self.random.choice(workers), signal.SIGKILL)
            except ProcessLookupError:
                pass

    def rival(self) -> None:
        """A second host on the same log: it takes over, and the first must stop writing."""
        old, new = self.house, self.build(data=f"data-{len(self._built)}")
        new.wait_until_serving()
        self.house = new
        self.kills["rival"] += 1
        time.sleep(0.5)  # a while in which both live: what the old one does now is what fencing is for
        old.kill()

    def _come_back(self) -> None:
        """Start the house again where it has ended because its rival took over in its turn before it died: a host that has lost
        its writer, as when the broker was away, opens it again."""
        if self.house.process.poll() is not None:
            assert self.kills["rival"] and "FencedError" in self.house.stderr(), self.house.stderr()
            self.house.kill()
            self.house = self.build(port=self.house.port)
            self.house.wait_until_serving()

    def pause(self, seconds: float) -> None:
        """Let work go on, until some runs were committed."""
        before = self.house.committed_runs
        deadline = time.monotonic() + 10
        time.sleep(seconds)
        while self.house.committed_runs == before and time.monotonic() < deadline:
            time.sleep(0.01)

    def _wait_for_a_run(self) -> None:
        deadline = time.monotonic() + 5
        while self.house.unfinished_runs <= 0 and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(self.random.uniform(0, 0.06))  # anywhere in it: while it runs, commits, or the next one has begun

    def end(self, patience_s: float = 120, *, stall_s: float = 120) -> dict[str, Any]:
        """Stop posting, let the house finish within `patience_s` and its time for each post, and check every promise. A house
        that stands still for `stall_s` is not waited for."""
        self.client.finish()
        patience_s += SETTLE_S * len(self.client.sent)  # posts went on while house and broker were away
        log = open_log(self.log_url)
        try:
            try:
                wait_for(lambda: self._settled(log, stall_s), "every row went through all nodes", patience_s)
            except AssertionError as error:
                os.kill(self.house.process.pid, signal.SIGUSR1)
                time.sleep(0.5)
                raise PromiseBrokenError(f"{error}; {self._counts(log)}; {self.house.stderr()[-8000:]}") from error
            self.house.stop()
            return self._check(log)
        finally:
            log.close()

    def _tables(self, log: Log) -> dict[str, list[dict[str, Any]]]:
        topics = ("t1", "t1-dead", "t2", "t3", "t2-dead", "t4")
        return {topic: read_table(log, f"kills.{topic}") for topic in topics}

    def _counts(self, log: Log) -> dict[str, int]:
        return {topic: len(rows) for topic, rows in self._tables(log).items()}

    def _settled(self, log: Log, stall_s: float) -> bool:
        """Raises AssertionError where nothing has come to any table for `stall_s`."""
        time.sleep(0.2)
        self._come_back()
        topics = log.topics("kills.t")
        ends = log.ends([Partition(topic) for topic in topics])
        if ends == self._ends:  # the reads below fold whole topics: leave the machine to the house while it is at work
            tables = self._tables(log)
            copied = len(tables["t2"])
            if (
                copied + len(tables["t1-dead"]) >= len(tables["t1"])
                and len(tables["t3"]) >= copied
                and [int(row["rows"]) for row in tables["t4"]] == [copied]
            ):
                return True
            assert time.monotonic() - self._ends_since_s < stall_s, f"nothing has happened for {stall_s:g} s"
        else:
            self._ends, self._ends_since_s = ends, time.monotonic()
        return False

    def _check(self, log: Log) -> dict[str, Any]:
        rows = once("orders", [json.loads(row["record"])["number"] for row in read_table(log, "kills.t1")])
        sent, accepted = self.client.sent, self.client.accepted
        if not accepted <= rows:
            raise PromiseBrokenError(f"{len(accepted - rows)} accepted posts are lost")
        if not rows <= sent:
            raise PromiseBrokenError(f"{len(rows - sent)} rows were never sent")
        letters = read_table(log, "kills.t1-dead")
        dead = once("dead letters", [json.loads(letter["record"])["record"]["number"] for letter in letters])
        copied_rows = read_table(log, "kills.t2")
        copied = once("copied", [row["number"] for row in copied_rows])
        if copied & dead:
            raise PromiseBrokenError(f"{len(copied & dead)} rows are copied and dead at once")
        if copied | dead != rows:
            raise PromiseBrokenError(f"{len(rows - copied - dead)} rows have no output")
        unlucky = {number for number in rows if number % 97 == 13}
        if not unlucky <= dead:
            raise PromiseBrokenError("a failing row has no dead letter")
        if [row["count"] for row in copied_rows] != list(range(1, len(copied_rows) + 1)):
            raise PromiseBrokenError("State and output of copy.py disagree")
        again_rows = read_table(log, "kills.t3")
        if once("again", [row["number"] for row in again_rows]) != copied:
            raise PromiseBrokenError("again.py left rows out")
        total = 0
        for row in again_rows:
            total += row["number"]
            if row["total"] != total:
                raise PromiseBrokenError("State and output of again.py disagree")
        (sums,) = read_table(log, "kills.t4")
        if (int(sums["rows"]), int(sums["total"])) != (len(copied), sum(copied)):
            raise PromiseBrokenError(f"the SQL node's table says {sums}, {len(copied)} rows were copied")
        return {
            "kills": dict(self.kills),
            "hits": self.hits,
            "sent": len(sent),
            "accepted": len(accepted),
            "rows": len(rows),
            "dead": len(dead),
            "extra dead": len(dead - unlucky),
            "posts/s": round(self.client.rate),
        }
