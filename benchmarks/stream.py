"""`stream-embedded` and `stream-kafka`: the stream sample over records that lie in the log already."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from benchmarks.apps import STREAM, topics, write_app
from benchmarks.houses import RunningHouse, cpu_s, process_tree, running_house, waited_s
from benchmarks.loops import kafka_loop, sqlite_loop
from benchmarks.orders import changed, messages, rows_of
from benchmarks.readers import TopicReader, fill
from benchmarks.result import Result, percentile
from tailrace.log import Log, NewRecord, open_log

__all__ = ["Streamed", "check_rows", "embedded", "kafka", "run_stream"]

COUNT = 200_000
COUNT_QUICK = 50_000
ROUNDS = 3
WARM_UP = 1_000


@dataclass(frozen=True, slots=True)
class Streamed:
    """How the sample went over `count` records."""

    rate: float
    """Records a second, from the first record's being handed to the worker to the last output's being visible."""
    steady_rate: float
    """The same from the moment when a fifth was visible: without the first fork and the small first runs."""
    lags_ms: list[float]
    """For each output message, from its first input's being handed to the worker to its own being visible."""
    runs: int
    host_cpu_us: float
    """CPU time a record in the host, and in the node's worker."""
    worker_cpu_us: float
    worker_waited_us: float
    """Time a record that the worker was ready and waited for a core: what other programs took."""


def run_stream(url: str | None, folder: Path, records: list[NewRecord]) -> Streamed:
    """Start a house over a backlog of `records`, and wait until every output is visible; compares the outputs' values.

    The node has run before, in an earlier life of the house, on the first `WARM_UP` of them: so it is known to stream.
    """
    app = write_app(folder, STREAM)
    tables = topics(app)
    log = open_log(url or f"sqlite:///{folder / 'data' / 'tailrace.db'}")
    reader: TopicReader | None = None
    try:
        fill(log, tables["orders"], records[:WARM_UP])
        fill(log, tables["totals"], [])
        reader = TopicReader(log, tables["totals"])
        with running_house([app], folder / "data", folder / "before.jsonl", log_url=url):
            asyncio.run(reader.until(WARM_UP))
        warm_up_values = len(reader.values)
        reader.close()
        fill(log, tables["orders"], records[WARM_UP:])
        reader = TopicReader(log, tables["totals"])
        with running_house(
            [app], folder / "data", folder / "after.jsonl", log_url=url, note_scans=[tables["orders"]]
        ) as house:
            host, before_s = house.process.pid, cpu_s(house.process.pid)
            asyncio.run(reader.until(len(records)))
            host_s = cpu_s(host) - before_s
            worker_s, worker = max(((cpu_s(pid), pid) for pid in process_tree(host)[2:]), default=(0.0, 0))
            worker_waited_s = waited_s(worker)
            _settled(house, len(records) - WARM_UP)
            reader.look()
        check_rows(records, rows_of(reader.values))
        return _streamed(house, reader, records, warm_up_values, (host_s, worker_s, worker_waited_s))
    finally:
        if reader is not None:
            reader.close()
        log.close()


def _streamed(
    house: RunningHouse, reader: TopicReader, records: list[NewRecord], skip: int, seconds: tuple[float, float, float]
) -> Streamed:
    count = len(records) - WARM_UP
    runs = house.entries("run")
    last_ns = reader.seen_ns[-1]
    given_ns = _first_given(house.entries("scan"), len(records))
    began_ns = given_ns[WARM_UP]
    lags_ms: list[float] = []
    seen = WARM_UP
    fifth_ns, fifth = last_ns, count
    for value, seen_ns in list(zip(reader.values, reader.seen_ns, strict=True))[skip:]:
        lags_ms.append((seen_ns - given_ns[seen]) / 1e6)
        seen += len(rows_of([value]))
        if fifth == count and seen - WARM_UP >= count // 5:
            fifth_ns, fifth = seen_ns, seen - WARM_UP
    return Streamed(
        rate=count / ((last_ns - began_ns) / 1e9),
        steady_rate=(count - fifth) / max(1e-9, (last_ns - fifth_ns) / 1e9),
        lags_ms=lags_ms,
        runs=len(runs),
        host_cpu_us=1e6 * seconds[0] / count,
        worker_cpu_us=1e6 * seconds[1] / count,
        worker_waited_us=1e6 * seconds[2] / count,
    )


def _settled(house: RunningHouse, count: int) -> None:
    def done() -> bool:
        return sum(int(run["rows_in"]) for run in house.entries("run")) >= count

    house.wait_for(done, "every run was told")


def _first_given(scans: list[dict[str, Any]], count: int) -> list[int]:
    """For each offset when it was first handed to the worker."""
    first = [0] * count
    for scan in reversed(scans):
        for offset in range(scan["start"], min(scan["next"], count)):
            first[offset] = scan["at_ns"]
    return first


def check_rows(records: list[NewRecord], rows: list[dict[str, Any]]) -> None:
    """Every record's output, once, in order, value by value."""
    wanted = [changed(row) for row in rows_of([record.value for record in records if record.value])]
    if rows != wanted:
        at = next(
            (at for at, (a, b) in enumerate(zip(rows, wanted, strict=False)) if a != b), min(len(rows), len(wanted))
        )
        raise AssertionError(f"{len(rows)} rows instead of {len(wanted)}; the first difference is row {at}")


def _rounds(once: Callable[[int], tuple[Streamed, float]], rounds: int) -> tuple[list[Streamed], list[float]]:
    pairs = [once(number) for number in range(rounds)]
    return [streamed for streamed, _ in pairs], [base for _, base in pairs]


def embedded(*, quick: bool) -> Result:
    """The sample on the embedded log against a hand-written sqlite3 loop."""
    count = COUNT_QUICK if quick else COUNT
    records = list(messages(WARM_UP + count))
    values = [record.value or b"" for record in records]

    def once(number: int) -> tuple[Streamed, float]:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            folder = Path(name)
            took_s, rows = sqlite_loop(folder / "loop.db", values)
            check_rows(records, rows)
            return run_stream(None, folder, records), len(records) / took_s

    streamed, bases = _rounds(once, 1 if quick else ROUNDS)
    return _result("stream-embedded", streamed, bases, "sqlite3 loop by hand, 1,000 records a transaction", {})


def _result(
    name: str,
    streamed: list[Streamed],
    bases: list[float],
    against: str,
    extra: dict[str, Any],
    *,
    lag_max_ms: float = 0,
) -> Result:
    rates = [each.rate for each in streamed]
    ratio = statistics.median(rate / base for rate, base in zip(rates, bases, strict=True))
    middle = sorted(streamed, key=lambda each: each.rate)[len(streamed) // 2]
    base = middle.rate / ratio
    lag_ms = statistics.median(percentile(each.lags_ms, 0.99) for each in streamed)
    wanted = "at least 0.5 of the loop" + (f", outputs visible within {lag_max_ms:g} ms" if lag_max_ms else "")
    return Result(
        name=name,
        value=middle.rate,
        unit="records/s",
        baseline=base,
        what="stream sample, 280-byte records, exactly once",
        against=against,
        wanted=wanted,
        met=ratio >= 0.5 and (not lag_max_ms or lag_ms <= lag_max_ms),
        extra={
            "steady": round(middle.steady_rate),
            "visible_after_read_ms_p50": round(percentile(middle.lags_ms, 0.5), 1),
            "visible_after_read_ms_p99": round(lag_ms, 1),
            "runs": middle.runs,
            "host_cpu_us": round(middle.host_cpu_us, 1),
            "worker_cpu_us": round(middle.worker_cpu_us, 1),
            "worker_waited_for_a_core_us": round(middle.worker_waited_us, 1),
            "rates": [round(rate) for rate in rates],
            "baselines": [round(base) for base in bases],
            **extra,
        },
    )


def kafka(*, quick: bool) -> Result:
    """The sample on a real broker against a hand-written transactional loop and Quix Streams."""
    from tailrace.testing.kafka import LocalKafka

    count = COUNT_QUICK if quick else COUNT
    records = list(messages(WARM_UP + count))
    quix: dict[float, list[float]] = {5: [], 0.2: []}
    with LocalKafka(short_lived=False) as broker:

        def loop(number: int, *, with_quix: bool) -> float:
            log = open_log(broker.url)
            try:
                rate = _kafka_loop(log, broker.address, records, number)
                for interval_s, rates in quix.items() if with_quix else ():
                    rates.append(_quix(log, broker.address, records, interval_s))
                log.delete_topics(list(log.topics("stream")))
                return rate
            finally:
                log.close()

        def stream() -> Streamed:
            with tempfile.TemporaryDirectory(prefix="bench-") as name:
                return run_stream(broker.url, Path(name), records)

        def once(number: int) -> tuple[Streamed, float]:
            rate = loop(number, with_quix=True)
            return stream(), rate

        # Not counted: a broker compiles itself for some seconds, in which it serves half as much to whoever comes first.
        loop(-1, with_quix=False)
        stream()
        streamed, bases = _rounds(once, 1 if quick else ROUNDS)
    result = _result(
        "stream-kafka",
        streamed,
        bases,
        "confluent-kafka loop by hand, 10,000 records a transaction",
        {f"quix_{interval_s:g}s": [round(rate) for rate in rates] for interval_s, rates in quix.items()},
        lag_max_ms=200,
    )
    wanted = result.wanted + ", faster than Quix Streams"
    faster = all(
        statistics.median(ours.rate / rate for ours, rate in zip(streamed, rates, strict=True)) > 1
        for rates in quix.values()
    )
    return replace(result, wanted=wanted, met=result.met and faster)


def _one_a_record(values: list[bytes]) -> list[dict[str, Any]]:
    return [orjson.loads(value) for value in values]


def _kafka_loop(log: Log, servers: str, records: list[NewRecord], number: int) -> float:
    source, target = f"loop-in-{number}", f"loop-out-{number}"
    fill(log, source, records)
    fill(log, target, [])
    took_s = kafka_loop(servers, source, target, len(records))
    reader = TopicReader(log, target, count_values=True)
    reader.look()
    reader.close()
    check_rows(records, _one_a_record(reader.values))
    log.delete_topics([source, target])
    return len(records) / took_s


def _quix(log: Log, servers: str, records: list[NewRecord], interval_s: float) -> float:
    from benchmarks.quix import quix_rate

    source, target = f"quix-in-{interval_s:g}", f"quix-out-{interval_s:g}"
    fill(log, source, records)
    rate, values = quix_rate(log, servers, source, target, len(records), interval_s)
    check_rows(records, _one_a_record(values))
    log.delete_topics([source, target])
    return rate
