"""`fanout`: a thousand nodes that read one table, and what they take while nothing comes in."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import orjson

from benchmarks.apps import write_app
from benchmarks.houses import RunningHouse, cpu_s, process_tree, pss_bytes, running_house
from benchmarks.result import Result
from tailrace.engine import Commit as CommitCommand
from tailrace.engine import (
    Committed,
    Deploy,
    Engine,
    EngineLimits,
    Event,
    News,
    NodeSpec,
    OpenShard,
    Own,
    RunEnded,
    RunOutcome,
    ShardOpened,
    StartRun,
)
from tailrace.log import NewRecord, Partition, open_log
from tailrace.tables import rows_message

__all__ = ["fanout"]

WORKERS = 4
TABLE = "fanout.measures"

SCRIPT = """\
from patterns import State, Table

state = State()
for row in Table("measures").as_stream():
    state.set_value("count", state.get_value("count", 0) + 1)
"""


def fanout(*, quick: bool) -> Result:
    """One record, read by each of a thousand nodes, with at most four workers."""
    nodes, rounds, idle_s = (100, 1, 5) if quick else (1_000, 3, 30)
    functions = "".join(f"  - {{node_file: node{n}.py, id: node{n:04}}}\n" for n in range(nodes))
    graph = f"title: Fanout\nslug: fanout\nfunctions:\n{functions}stores:\n  - {{table: measures, id: measures}}\n"
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        app = write_app(folder, {"graph.yml": graph, **{f"node{n}.py": SCRIPT for n in range(nodes)}})
        limits = {"runs_max": WORKERS, "workers_idle_max": WORKERS}
        with running_house([app], folder / "data", folder / "entries.jsonl", runner=limits) as house:
            log = open_log(f"sqlite:///{folder / 'data' / 'tailrace.db'}")
            try:
                times_s = []
                for number in range(rounds + 1):  # the first one warms up
                    began_s = time.monotonic()
                    head = {"kind": "rows", "ts": 1, "n": 1, "fields": {"n": "Integer"}}
                    log.append(Partition(TABLE), [NewRecord(rows_message(head, orjson.dumps([{"n": number}])))])
                    _all_ran(house, nodes, number + 1)
                    times_s.append(time.monotonic() - began_s)
            finally:
                log.close()
            time.sleep(2)  # runs are told to the journal a second late
            before_s = _cpu(house.process.pid)
            time.sleep(idle_s)
            after_s = _cpu(house.process.pid)  # a worker that ended meanwhile took its CPU time with it
            idle = sum(after_s[pid] - before_s.get(pid, 0.0) for pid in after_s) / idle_s
            pss = sum(pss_bytes(pid) for pid in process_tree(house.process.pid))
    run_ms = min(times_s[1:]) / nodes * 1000
    decided_ms = _decide_ms(nodes)
    return Result(
        name="fanout",
        value=run_ms,
        unit="ms a run",
        baseline=_bare_ms(),
        what=f"one record to the last of the runs of {nodes} nodes that stream it, with {WORKERS} workers",
        against="a fork that runs the script's loop, one after the other",
        wanted="15 ms a run, 1.5 ms to decide each, idle under 5 % of a core",
        met=run_ms <= 15 and decided_ms <= 1.5 and idle < 0.05,
        extra={
            "decide_ms": round(decided_ms, 3),
            "first_round_ms": round(times_s[0] / nodes * 1000, 2),
            "idle_percent": round(idle * 100, 2),
            "pss_MB": round(pss / 1e6),
            "nodes": nodes,
        },
    )


def _all_ran(house: RunningHouse, nodes: int, rounds: int) -> None:
    def done() -> bool:
        return sum(int(entry["runs"]) for entry in house.entries("run")) >= nodes * rounds

    house.wait_for(done, f"{nodes} nodes ran", 300)


def _cpu(pid: int) -> dict[int, float]:
    return {each: cpu_s(each) for each in process_tree(pid)}


def _decide_ms(nodes: int) -> float:
    """What the engine takes for each run: its start, its end and its commit."""
    engine = Engine(shards=4, limits=EngineLimits(runs_max=WORKERS))
    specs = tuple(NodeSpec(key=f"fanout/{n}", reads=frozenset({TABLE})) for n in range(nodes))
    waiting: list[Event] = [Own(now_ms=0, shards=frozenset(range(4))), Deploy(now_ms=0, specs=specs)]
    began_s, runs = 0.0, 0
    while waiting or not began_s:
        if not waiting:
            waiting.append(News(now_ms=1, table=TABLE, last={"": {0: 0}}))
            began_s = time.perf_counter()
        for command in engine.handle(waiting.pop()):
            match command:
                case OpenShard():
                    waiting.append(ShardOpened(now_ms=0, shard=command.shard, opening=command.opening, records={}))
                case StartRun():
                    runs += 1
                    outcome = RunOutcome(kind="ok", seen={TABLE: {0: 1}}, streamed=frozenset({TABLE}), rows=1)
                    waiting.append(RunEnded(now_ms=1, slot=command.slot, run=command.run, outcome=outcome))
                case CommitCommand():
                    waiting.append(Committed(now_ms=1, shard=command.shard, commit=command.commit))
    assert runs == nodes
    return (time.perf_counter() - began_s) * 1000 / nodes


def _bare_ms() -> float:
    code = compile("count = 0\nfor row in [{'n': 1}]:\n    count += 1\n", "bare", "exec")
    began_s = time.perf_counter()
    for _ in range(100):
        pid = os.fork()
        if pid == 0:
            exec(code, {})
            os._exit(0)
        os.waitpid(pid, 0)
    return (time.perf_counter() - began_s) * 10
