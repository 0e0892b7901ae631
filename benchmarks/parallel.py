"""`parallel`: a stream of costly records over a table of four partitions, by two slots against one."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import orjson

from benchmarks.apps import parallel_app, topics, write_app
from benchmarks.houses import cpu_s, process_tree, running_house, waited_s
from benchmarks.result import Result
from tailrace.log import Log, NewRecord, Partition, TopicSpec, open_log
from tailrace.tables import partition_of_key, rows_message

__all__ = ["parallel"]

COUNT = 12_000
COUNT_QUICK = 3_000
ROUNDS = 3
WARM_UP = 400
PARTITIONS = 4
KEYS = 64
_FIELDS = {"k": "Integer", "n": "Integer"}


class _Streamed(NamedTuple):
    rate: float
    """Records a second, from the moment when a fifth of the outputs was visible to the last one's being it."""
    worker_cpu_us: float
    """CPU time a record in all workers."""
    workers_waited_us: float
    """Time a record that workers were ready and waited for a core: what other programs took."""


def parallel(*, quick: bool) -> Result:
    """Two workers on two cores against one."""
    count = COUNT_QUICK if quick else COUNT
    pairs = [(_once(1, count), _once(2, count)) for _ in range(1 if quick else ROUNDS)]
    ratio = statistics.median(two.rate / one.rate for one, two in pairs)
    one, two = sorted(pairs, key=lambda pair: pair[1].rate)[len(pairs) // 2]
    return Result(
        name="parallel",
        value=two.rate,
        unit="records/s",
        baseline=two.rate / ratio,
        what="4 partitions, about half a millisecond of work a record, exactly once, 2 workers",
        against="the same with 1 worker",
        wanted="at least 1.5 times",
        met=ratio >= 1.5,
        extra={
            "one_cpu_us": round(one.worker_cpu_us, 1),
            "two_cpu_us": round(two.worker_cpu_us, 1),
            "one_waited_for_a_core_us": round(one.workers_waited_us, 1),
            "two_waited_for_a_core_us": round(two.workers_waited_us, 1),
            "rates": [round(two.rate) for _, two in pairs],
            "baselines": [round(one.rate) for one, _ in pairs],
        },
    )


def _once(slots: int, count: int) -> _Streamed:
    """Stream `count` records that lie in the log, after some that came before; checks that each is there once."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        app = write_app(folder, parallel_app(slots))
        tables = topics(app)
        log = open_log(f"sqlite:///{folder / 'data' / 'tailrace.db'}")
        log.create_topics([TopicSpec(topic, PARTITIONS) for topic in tables.values()])
        outputs = _Outputs(log, tables["scores"])
        try:
            _fill(log, tables["clicks"], 0, WARM_UP)
            with running_house([app], folder / "data", folder / "out.jsonl") as house:
                asyncio.run(outputs.until(WARM_UP))
                workers = process_tree(house.process.pid)[2:]
                before_s = sum(map(cpu_s, workers)), sum(map(waited_s, workers))
                _fill(log, tables["clicks"], WARM_UP, WARM_UP + count)
                asyncio.run(outputs.until(WARM_UP + count // 5))
                fifth, fifth_s = outputs.rows, time.monotonic()
                asyncio.run(outputs.until(WARM_UP + count))
                took_s = time.monotonic() - fifth_s
                done = WARM_UP + count - fifth
                cpu, waited = sum(map(cpu_s, workers)) - before_s[0], sum(map(waited_s, workers)) - before_s[1]
            assert outputs.numbers == list(range(WARM_UP + count)), "each record once"
            return _Streamed(done / took_s, 1e6 * cpu / count, 1e6 * waited / count)
        finally:
            outputs.close()
            log.close()


def _fill(log: Log, topic: str, start: int, stop: int) -> None:
    dealt: dict[int, list[NewRecord]] = {}
    for n in range(start, stop):
        row = {"k": n % KEYS, "n": n}
        head = {"kind": "rows", "ts": 1_790_000_000_000, "n": 1, "fields": _FIELDS}
        number = partition_of_key(row["k"], PARTITIONS)
        dealt.setdefault(number, []).append(NewRecord(rows_message(head, orjson.dumps([row]))))
    for number, records in dealt.items():
        log.append(Partition(topic, number), records)


class _Outputs:
    """A reader of all partitions of a table."""

    def __init__(self, log: Log, topic: str) -> None:
        self._log = log
        self._next = log.starts([Partition(topic, number) for number in range(PARTITIONS)])
        self._watch = log.watch(list(self._next))
        self._found: list[int] = []

    @property
    def rows(self) -> int:
        """How many were seen."""
        return len(self._found)

    @property
    def numbers(self) -> list[int]:
        """Those that were seen, in their order."""
        return sorted(self._found)

    async def until(self, rows: int, timeout_s: float = 180) -> None:
        """Wait until so many rows were seen."""
        async with asyncio.timeout(timeout_s):
            while self._look() < rows:
                await self._watch.wait()

    def _look(self) -> int:
        for partition in self._next:
            batch = self._log.read(partition, self._next[partition])
            while batch.next > self._next[partition]:
                for record in batch.records:
                    self._found += [row["n"] for row in orjson.loads(record.value or b"{}").get("rows", ())]
                self._next[partition] = batch.next
                batch = self._log.read(partition, batch.next)
        return self.rows

    def close(self) -> None:
        """Let go of the doorbell."""
        self._watch.close()
