"""A gateway under full load, while it, its client and the broker are killed at random; and the check can fail.

Accepted is a part of the rows, they of what was sent, each once, arrays whole; a post that is sent again under its id
adds nothing, whoever was killed in between.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from gateway_process import GatewayProcess
from gateway_storm_client import has_id, parts_of, read_journal

from tailrace.gateway import WebhookRoute
from tailrace.log import Partition, TopicSpec, open_log
from tailrace.testing.kafka import LocalKafka

HERE = Path(__file__).parent
STORM = Partition("storm.posts")
ROUTES = {"storm": WebhookRoute(webhook="storm", topic=STORM.topic)}
SEED = int(os.environ.get("TAILRACE_SEED", "1"))

pytestmark = pytest.mark.timeout(1_500)


class PromiseBrokenError(AssertionError):
    """What must never happen has happened."""


class Storm:
    """A gateway, a client that posts to it, and what kills them."""

    def __init__(self, folder: Path, url: str, *, fault: str | None = None, broker: LocalKafka | None = None) -> None:
        self._folder, self._url, self._fault, self._broker = folder, url, fault, broker
        self._chance = random.Random(SEED)
        self._journal = folder / "journal"
        self._gateways = 0
        self.kills: Counter[str] = Counter()
        log = open_log(url)
        log.create_topics([TopicSpec(STORM.topic)])
        log.close()
        self._gateway = self._new_gateway(0)
        self._began_s = time.monotonic()
        self._client = self._new_client()

    def _new_gateway(self, port: int) -> GatewayProcess:
        self._gateways += 1
        program = (str(HERE / "gateway_faulty.py"),) if self._fault else ("-m", "tailrace.gateway")
        gateway = GatewayProcess(
            self._folder / f"gateway-{self._gateways}",
            self._url,
            ROUTES,
            port=port,
            program=program,
            environment={"GATEWAY_FAULT": self._fault or ""},
        )
        try:
            gateway.wait_until_listening()
        except BaseException:
            gateway.kill()
            raise
        return gateway

    def _new_client(self) -> subprocess.Popen[bytes]:
        program = str(HERE / "gateway_storm_client.py")
        return subprocess.Popen([sys.executable, program, str(self._gateway.port), str(self._journal)])

    def rage(self, victims: list[str], seconds: float, kills: int) -> None:
        """Kill them in an order that chance gives, each as often as it stands in the list, for so long and so often."""
        while time.monotonic() < self._began_s + seconds or self.kills.total() < kills:
            for victim in self._chance.sample(victims, len(victims)):
                self.kill(victim)

    def kill(self, what: str) -> None:
        """`kill -9` after a while of work, and a new one in its place."""
        self._work()
        time.sleep(self._chance.uniform(0.05, 0.5))
        self.kills[what] += 1
        if what == "client":
            self._client.kill()
            self._client.wait()
            self._client = self._new_client()
        elif what == "gateway":
            self._gateway.kill()
            self._gateway = self._new_gateway(self._gateway.port)
        else:
            assert self._broker is not None
            self._broker.kill()
            self._broker.restart()

    def _work(self) -> None:
        """Until some more posts were accepted."""
        until_s = time.monotonic() + 60
        before = self._journal.stat().st_size if self._journal.exists() else 0
        while self._accepted_since(before) < 150:
            assert self._client.poll() is None, "the client ended"
            assert time.monotonic() < until_s, f"nothing is accepted: {self._gateway.stderr()[-3000:]}"
            time.sleep(0.05)

    def _accepted_since(self, size: int) -> int:
        """Posts that were accepted since the journal had this size."""
        if not self._journal.exists():
            return 0
        with self._journal.open("rb") as file:
            file.seek(size)
            return file.read().count(b"a ")

    def end(self) -> dict[str, Any]:
        """Let the client finish what it began, stop the gateway, and check every promise."""
        try:
            self._work()  # a client that was started a moment ago does not take the signal yet
            self._client.send_signal(signal.SIGTERM)
            assert self._client.wait(90) == 0
            took_s = time.monotonic() - self._began_s
            assert self._gateway.stop() == 0
        finally:
            self.clear()
        return {"kills": dict(self.kills), **self._check(took_s)}

    def clear(self) -> None:
        if self._client.poll() is None:
            self._client.kill()
            self._client.wait()
        self._gateway.kill()

    def _check(self, took_s: float) -> dict[str, Any]:
        sent, accepted = read_journal(self._journal)
        rows, slipped = self._rows()
        if not accepted <= rows.keys():
            raise PromiseBrokenError(f"{len(accepted - rows.keys())} accepted posts are lost")
        if not rows.keys() <= sent:
            raise PromiseBrokenError(f"{len(rows.keys() - sent)} posts were never sent")
        if twice := [number for number, count in rows.items() if count > 1]:
            raise PromiseBrokenError(f"{len(twice)} posts are there more than once, such as {sorted(twice)[:5]}")
        with_id = {number for number in sent if has_id(number)}
        if not with_id <= rows.keys():
            raise PromiseBrokenError(f"{len(with_id - rows.keys())} posts with an id were given up")
        rate = round(len(accepted) / took_s)
        return {"sent": len(sent), "accepted": len(accepted), "rows": len(rows), "slipped": slipped, "posts/s": rate}

    def _rows(self) -> tuple[Counter[int], int]:
        """How often each post is there; and how many messages readers drop, as they repeat another's id.

        Those may be there only where the log's answer was lost: a broker was killed.
        """
        found: Counter[int] = Counter()
        ids: set[str] = set()
        slipped = 0
        log = open_log(self._url)
        try:
            stop = log.settled_ends([STORM])[STORM]
            start = log.starts([STORM])[STORM]
            while start < stop:
                batch = log.read(STORM, start, stop=stop)
                start = batch.next
                for record in batch.records:
                    document = orjson.loads(record.value or b"{}")
                    (number,) = {row["n"] for row in document["rows"]}
                    if [row["part"] for row in document["rows"]] != list(range(parts_of(number))):
                        raise PromiseBrokenError(f"the array {number} is not whole: {document['rows']}")
                    if has_id(number) and document["id"] in ids and self.kills["broker"]:
                        slipped += 1
                        continue
                    ids.add(document.get("id", ""))
                    found[number] += 1
        finally:
            log.close()
        return found, slipped


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[LocalKafka]:
    """A broker of its own, because it is killed too."""
    with LocalKafka(folder=tmp_path / "kafka", startup_timeout=timedelta(minutes=4)) as kafka:
        yield kafka


LENGTHS = pytest.mark.parametrize(
    ("seconds", "kills"), [pytest.param(32, 4, id="short"), pytest.param(600, 40, id="long", marks=pytest.mark.chaos)]
)
"""How long a storm lasts at least, and how many it kills. The two short ones last a minute together."""


@LENGTHS
def test_a_storm_on_sqlite(tmp_path: Path, seconds: float, kills: int) -> None:
    """`kill -9` of gateway and client."""
    storm = Storm(tmp_path, f"sqlite:///{tmp_path / 'log.db'}")
    try:
        storm.rage(["gateway", "gateway", "client"], seconds, kills)
        print(f"seed {SEED}: {storm.end()}")
    finally:
        storm.clear()


@pytest.mark.kafka
@LENGTHS
def test_a_storm_on_kafka(tmp_path: Path, own_kafka: LocalKafka, seconds: float, kills: int) -> None:
    """The same, and `kill -9` of the broker."""
    storm = Storm(tmp_path, own_kafka.url, broker=own_kafka)
    try:
        storm.rage(["gateway", "gateway", "broker", "client"], seconds, kills)
        print(f"seed {SEED}: {storm.end()}")
    finally:
        storm.clear()


FAULTS = {
    "ack before durable": ["gateway"],
    "dedupe in memory only": ["gateway", "client"],
    "array as many messages": [],
}
"""What it takes to bring each to light."""


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_planted_fault_is_found(tmp_path: Path, fault: str) -> None:
    """A check that no fault can fail checks nothing."""
    storm = Storm(tmp_path, f"sqlite:///{tmp_path / 'log.db'}", fault=fault)
    try:
        for what in FAULTS[fault]:
            storm.kill(what)
        storm._work()
        with pytest.raises(PromiseBrokenError) as found:
            storm.end()
        print(found.value)
    finally:
        storm.clear()
