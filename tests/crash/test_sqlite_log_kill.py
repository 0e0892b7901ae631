"""`kill -9` of processes that write to one SQLite log: what was acknowledged is there, and no transaction is half there."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import pytest

from tailrace.log import Log, Offset, Partition, Place, Record, TopicSpec, open_log

PARTITIONS = [Partition("orders"), Partition("events", 0), Partition("events", 1)]
PLAIN = Partition("plain")
TRANSACTION_RECORDS = 20

# Each process appends alone, by an appender, and commits transactions over three partitions with a place, as fast as
# it can, and says on its standard output what was acknowledged: "a <number>" or "c <commit number>".
WRITER = f"""
import asyncio, os, sys, threading
from tailrace.log import *
from tailrace.runtime import Runtime, probe_from_environment

url, name, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
log = open_log(url, runtime=Runtime(probe=probe_from_environment()))
partitions = [Partition("orders"), Partition("events", 0), Partition("events", 1)]
def say(line):
    os.write(1, line.encode() + b"\\n")

def transact():
    writer = log.open_writer(name)
    say(f"o {{writer.commits}}")
    while True:
        number = writer.commits + 1
        records = [NewRecord(f"{{name}} {{number}}".encode() + b" " * 100)] * {TRANSACTION_RECORDS}
        place = Place(Offset(number), f"row {{number}}")
        commit = writer.commit([Append(p, records) for p in partitions], {{name: {{partitions[0]: place}}}})
        say(f"c {{commit.number}}")

async def append():
    appender = log.appender()
    numbers = iter(range(first, 10**9))
    async def caller():
        for number in numbers:
            await appender.append(Partition("plain"), NewRecord(str(number).encode()))
            say(f"a {{number}}")
    await asyncio.gather(*(caller() for _ in range(20)))

def transact_or_die():
    try:
        transact()
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(3)

threading.Thread(target=transact_or_die, daemon=True).start()
asyncio.run(append())
"""


class Process:
    """One writing process, and what it said."""

    def __init__(self, url: str, name: str, first: int, environment: dict[str, str] | None = None) -> None:
        self.name = name
        self.opened = -1
        self.appended: set[int] = set()
        self.committed = 0
        self.lines = 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER, url, name, str(first)], stdout=subprocess.PIPE, env=environment
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for_lines(self, lines: int) -> None:
        deadline_s = time.monotonic() + 60
        while self.lines < lines:
            assert self._process.poll() is None, "the writer ended by itself"
            assert time.monotonic() < deadline_s, f"only {self.lines} of {lines} lines"
            time.sleep(0.001)

    def kill(self) -> None:
        self._process.kill()
        self.wait()

    def wait(self) -> int:
        code = self._process.wait(60)
        self._reader.join()
        return code

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.endswith(b"\n"):
                break
            kind, number = line.split()
            if kind == b"a":
                self.appended.add(int(number))
            elif kind == b"c":
                self.committed = int(number)
            else:
                self.opened = int(number)
            self.lines += 1
        self._process.stdout.close()


def everything(log: Log, partition: Partition) -> list[Record]:
    at, end, found = Offset(0), log.settled_ends([partition])[partition], []
    while at < end:
        batch = log.read(partition, at)
        found += batch.records
        at = batch.next
    return found


def check(log: Log, names: list[str], acknowledged: set[int], committed: dict[str, int]) -> dict[str, int]:
    """All invariants; returns each writer's number of commits."""
    plain = [int(record.value or b"-1") for record in everything(log, PLAIN)]
    assert len(plain) == len(set(plain)), "an append is there twice"
    assert acknowledged <= set(plain), sorted(acknowledged - set(plain))[:10]
    in_log: dict[str, int] = {}
    for name in names:
        writer = log.open_writer(name)
        in_log[name] = writer.commits
        assert writer.commits >= committed.get(name, 0), "an acknowledged commit is gone"
        if writer.commits:
            place = log.places(name, [PARTITIONS[0]])[PARTITIONS[0]]
            assert place == Place(Offset(writer.commits), f"row {writer.commits}")
    for partition in PARTITIONS:
        counts: dict[str, list[int]] = defaultdict(list)
        for record in everything(log, partition):
            assert record.value is not None
            name, number = record.value.split()
            counts[name.decode()].append(int(number))
        for name in names:
            expected = [number for number in range(1, in_log[name] + 1) for _ in range(TRANSACTION_RECORDS)]
            assert counts[name] == expected, f"{name} in {partition}: not whole, not once or not in order"
    return in_log


def new_log(url: str) -> Log:
    log = open_log(url)
    log.create_topics([TopicSpec("orders"), TopicSpec("events", 2), TopicSpec("plain")])
    return log


def kill_many(folder: Path, kills: int) -> None:
    """Two processes write at once, and are killed by turns in the middle of it."""
    url = f"sqlite://{folder}/tailrace.db"
    log = new_log(url)
    chance = random.Random(kills)
    names = ["north", "south"]
    acknowledged: set[int] = set()
    committed: dict[str, int] = {}
    started = 0

    def start(name: str) -> Process:
        nonlocal started
        started += 1
        return Process(url, name, started * 10_000_000)

    running = {name: start(name) for name in names}
    try:
        for kill in range(kills):
            name = names[kill % 2]
            process = running[name]
            process.wait_for_lines(1 + chance.randrange(200))
            process.kill()
            acknowledged |= process.appended
            committed[name] = max(committed.get(name, 0), process.committed)
            running[name] = start(name)
            running[name].wait_for_lines(1)
    finally:
        for process in running.values():
            process.kill()
    for name, process in running.items():
        acknowledged |= process.appended
        committed[name] = max(committed[name], process.committed)
    in_log = check(log, names, acknowledged, committed)
    unacknowledged = sum(in_log.values()) - sum(committed.values())
    print(
        f"{kills + 2} kills, {len(acknowledged)} appends and {sum(committed.values())} commits acknowledged,"
        f" {unacknowledged} commits there without an answer"
    )
    assert len(acknowledged) > kills
    log.close()


def test_what_was_acknowledged_survives_kills(tmp_path: Path) -> None:
    kill_many(tmp_path, 10)


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_what_was_acknowledged_survives_many_kills(tmp_path: Path) -> None:
    kill_many(tmp_path, 50)


@pytest.mark.parametrize("point", ["sqlite-commit-before", "sqlite-commit-after"])
@pytest.mark.parametrize("nth", [1, 7, 40])
def test_a_kill_at_each_point_of_a_commit(tmp_path: Path, point: str, nth: int) -> None:
    url = f"sqlite://{tmp_path}/tailrace.db"
    log = new_log(url)
    process = Process(url, "north", 0, {**os.environ, "TAILRACE_KILL_AT": f"{point}:{nth}"})
    assert process.wait() == -9
    check(log, ["north"], process.appended, {"north": process.committed})
    again = Process(url, "north", 1_000_000)
    try:
        again.wait_for_lines(50)
    finally:
        again.kill()
    assert again.opened >= process.committed
    in_log = check(log, ["north"], process.appended | again.appended, {"north": again.committed})
    assert in_log["north"] >= again.committed
    log.close()
