"""docker-compose.yml as it is shipped: started, loaded, parts of it killed and restarted, and nothing lost or twice."""

from __future__ import annotations

import itertools
import os
import queue
import shutil
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
from github_loop import DELIVERIES, EXAMPLE, expected_counts, expected_events, moment
from stacks import Containers, Processes, Stack, wait_until
from table_reading import fold_topic, reader_of

import compose
from tailrace.log import Log, Partition, open_log

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]

POSTS_PER_S = 20
POSTS_MAX = 5_000
POSTS_FIRST = 60
"""Accepted before the first part is killed."""
SENDERS = 4
RETRY_S = 2.0
"""Longer than a gateway needs to learn which ids another one has taken."""
SETTLED_S = 180.0
SCALE = {"gateway": 2, "runner": 2}

COUNT_EVENTS = """
import os, deltalake
from tailrace.lake import LakeLocation
lake = LakeLocation.parse(os.environ["TAILRACE_LAKE"])
folders = lake.folders("github.gh7teven")
tables = [deltalake.DeltaTable(lake.uri(each), storage_options=lake.storage_options) for each in folders]
print(sum(table.to_pyarrow_table(columns=[]).num_rows for table in tables), flush=True)
os._exit(0)  # threads of pyarrow that still read through Python may abort a process that ends in order
"""


@pytest.fixture
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Containers where docker answers; else processes, which are no test of the compose file."""
    as_processes = os.environ.get("COMPOSE_TEST_AS") == "processes"
    answers = compose.docker_answers()
    if as_processes and answers:
        pytest.fail("docker answers: run the services in it, not as processes")
    folder = tmp_path_factory.mktemp("compose")
    made = Containers(folder) if answers else Processes(folder)
    try:
        yield made
    finally:
        made.stop()


def test_the_services_lose_nothing_when_parts_are_killed_and_restarted(stack: Stack, tmp_path: Path) -> None:
    """Post at a steady rate while a runner is killed, and while each gateway and runner is restarted, as an upgrade
    does; then the tables are those of a plain loop over what was posted, and the lake has them too."""
    say = _Summary()
    apps = tmp_path / "apps"
    shutil.copytree(EXAMPLE, apps / "github")
    apps.chmod(0o755)
    for folder in apps.rglob("*/"):
        folder.chmod(0o755)
    stack.start(apps, SCALE)
    say(f"{type(stack).__name__.lower()} are up: {', '.join(f'{n} {name}s' for name, n in SCALE.items())}")
    assert {service: stack.replicas(service) for service in SCALE} == SCALE
    try:
        load = Load(stack)
        load.start()
        load.wait_for(POSTS_FIRST)
        stack.kill("runner")
        say(f"a runner was killed at {load.accepted} posts")
        for service, count in SCALE.items():
            for index in range(count):
                stack.restart(service, index)
                say(f"{service} {index + 1} was restarted at {load.accepted} posts")
        load.finish()
        say(f"{load.accepted} posts were accepted, {load.retries} of them at a second try")
        log = open_log(stack.log_url)
        try:
            compare(log, load.accepted)
        finally:
            log.close()
        say("the tables are those of a plain loop")
        wait_until(lambda: int(stack.ask(COUNT_EVENTS)) == load.accepted, "the lake has all events", SETTLED_S)
        say("the lake has all events, each once")
    except BaseException:
        print(stack.logs())  # type: ignore[attr-defined]
        raise


def compare(log: Log, posts: int) -> None:
    """Wait for the last table, and hold all three against the loop."""

    def settled() -> bool:
        return sum(row["events"] for row in rows(log, "github.gh7tkind")) >= posts

    wait_until(settled, "the last node has seen all events", SETTLED_S)
    raw = rows(log, "github.gh7tgith")
    numbers = [orjson.loads(row["record"])["number"] for row in raw]
    assert sorted(numbers) == list(range(posts)), "a post is missing, or there twice"
    wanted = expected_events([delivery(number) for number in numbers])
    received = [_moment(row["timestamp"]) for row in raw]
    events = rows(log, "github.gh7teven")
    assert [(row["repository"], row["actor"], row["kind"], row["action"]) for row in events] == [
        event[:4] for event in wanted
    ]
    assert [_moment(row["time"]) for row in events] == [
        event[4] or at for event, at in zip(wanted, received, strict=True)
    ]
    counts = {(row["kind"], row["repository"]): (row["events"], row["actors"]) for row in rows(log, "github.gh7tkind")}
    assert counts == expected_counts(wanted)


def _moment(value: str | datetime) -> datetime:
    return moment(value if isinstance(value, str) else value.isoformat())


def rows(log: Log, topic: str) -> list[dict[str, Any]]:
    """The rows of a Table's active version, straight from the log."""
    partition = Partition(topic)
    if topic not in log.topics(topic):
        return []
    reader = reader_of(log, partition, fold_topic(log, partition, settled=True))
    found: list[dict[str, Any]] = reader.table().to_pylist() if reader else []
    return found


def delivery(number: int) -> dict[str, Any]:
    """The post of a number: a real payload."""
    return DELIVERIES[number % len(DELIVERIES)]


class Load:
    """Senders that post numbers at a steady rate, each until a gateway has accepted it."""

    def __init__(self, stack: Stack) -> None:
        self.accepted = 0
        self.retries = 0
        self._stack = stack
        self._numbers: queue.Queue[int | None] = queue.Queue()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._threads = [threading.Thread(target=self._send, args=(turn,), daemon=True) for turn in range(SENDERS)]
        self._clock = threading.Thread(target=self._hand_out, daemon=True)

    def start(self) -> None:
        for thread in (*self._threads, self._clock):
            thread.start()

    def wait_for(self, posts: int) -> None:
        """Returns when so many have been accepted."""
        wait_until(lambda: self.accepted >= posts or self._failure is not None, f"{posts} posts are accepted")

    def finish(self) -> None:
        """Post no further numbers; returns when all have been accepted."""
        self._over.set()
        for thread in (self._clock, *self._threads):
            thread.join()
        if self._failure is not None:
            raise self._failure

    def _hand_out(self) -> None:
        began = time.monotonic()
        for number in range(POSTS_MAX):
            if self._over.wait(max(0.0, began + number / POSTS_PER_S - time.monotonic())):
                break
            self._numbers.put(number)
        for _ in self._threads:
            self._numbers.put(None)

    def _send(self, turn: int) -> None:
        try:
            with requests.Session() as session:
                session.trust_env = False
                turns = itertools.count(turn)
                addresses = self._stack.gateways()
                while (number := self._numbers.get()) is not None:
                    deadline = time.monotonic() + SETTLED_S
                    tries = 0
                    while not self._post(session, addresses[next(turns) % len(addresses)], number):
                        assert time.monotonic() < deadline, f"no gateway takes post {number}"
                        tries += 1
                        time.sleep(RETRY_S)
                        addresses = self._stack.gateways() or addresses
                    with self._lock:
                        self.accepted += 1
                        self.retries += tries > 0
        except BaseException as error:
            self._failure = error

    def _post(self, session: requests.Session, address: str, number: int) -> bool:
        post = delivery(number)
        headers = {"X-GitHub-Event": post["event"], "Idempotency-Key": f"post-{number}"}
        body = {**post["payload"], "number": number}
        try:
            answer = session.post(f"http://{address}/webhooks/gh7webhk", json=body, headers=headers, timeout=30)
        except requests.RequestException:
            return False
        assert answer.status_code in {200, 404, 429, 503}, f"{answer.status_code}: {answer.text[:300]}"
        return answer.status_code == 200


class _Summary:
    """Says what happened, and how long it took."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()

    def __call__(self, text: str) -> None:
        now_s = time.monotonic()
        print(f"{now_s - self._last_s:6.1f} s  {text}", flush=True)
        self._last_s = now_s
