"""Gateways, runners and snapshotters as processes over a broker of their own, and what may befall them.

Whatever ends by itself is started again, as a supervisor would; whatever is done to one of them is over when the whole
fleet works again: every slot of every node commits rows, and every gateway accepts posts.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import deltalake
import orjson
import pyarrow as pa
from gateway_process import GatewayProcess
from keyed_clients import KeyedClients
from kill_harness import PromiseBrokenError, children, free_port, read_table, wait_for
from spread_runners import SESSION_S, Runner

from tailrace.control import ControlLog
from tailrace.errors import RetriableError
from tailrace.graph import load_app
from tailrace.log import Log, Offset, Partition, open_log, scan
from tailrace.snapshotter import GROUP, read_index, table_lanes
from tailrace.tables import partition_of_key
from tailrace.testing.kafka import LocalKafka
from up_process import environment, write_app

SLUG, PARTITIONS, SLOTS, KEYS = "fleet", 4, 2, 24
SHARDS = 32
MOMENT = "moment"
"""Name of the file by which a runner with a fault is told to do its harm."""
PAUSE_S = SESSION_S + 1.5
PATIENCE_S = 240.0
PATIENCE_FAULT_S = 60.0

LANES = f"partitions: {PARTITIONS}, partition_key:"
OFTEN = "retries: 20, backoff: 1s"
"""A worker may be killed several times in a row; its rows are not to be given up for that."""

GRAPH = f"""
title: Fleet
slug: {SLUG}
functions:
  - {{webhook: events, id: posts}}
  - {{node_file: deal.py, id: deal_py, parallelism: {SLOTS}, {OFTEN}}}
  - {{node_file: line.py, id: line_py, {OFTEN}}}
  - {{node_file: latest.py, id: latest_py, {OFTEN}}}
  - {{node_file: sums.py, id: sums_py, {OFTEN}}}
  - {{node_file: total.sql, id: total_sql, outputs: {{output_table: total}}}}
stores:
  - {{table: events, id: events, {LANES} /record/k, freshness: 1s}}
  - {{table: dealt, id: dealt, {LANES} k, freshness: 1s}}
  - {{table: line, id: line, freshness: 1s}}
  - {{table: latest, id: latest, freshness: 1s}}
  - {{table: sums, id: sums, freshness: 1s}}
  - {{table: total, id: total, freshness: 1s}}
"""

COPY = """
from patterns import State, Table

{source}, {target}, state = Table("{source}"), Table("{target}", "w"), State()
for row in {source}.as_stream():
    row = row.get("record", row)
    count = state.get_value("count", 0) + 1
    {target}.append({{"k": row["k"], "n": row["n"], "count": count}})
    state.set_value("count", count)
"""

LATEST = """
from patterns import Table

line, latest = Table("line"), Table("latest", "w")
latest.init(unique_on="k")
for row in line.as_stream():
    latest.upsert({"k": row["k"], "n": row["n"]})
"""

SUMS = """
from patterns import State, Table

line, sums, state = Table("line"), Table("sums", "w"), State()
with line.as_stream().consume_with_rollback() as rows:
    for row in rows:
        total = state.get_value("total", 0) + row["n"]
        state.set_value("total", total)
        sums.append({"k": row["k"], "n": row["n"], "total": total})
"""

TOTAL = """
select k, count(*) as rows, sum(n) as total from {{ Table("line") }} group by k
"""

WHOLE = ("line", "latest", "sums", "total")
PARTED = ("events", "dealt")
"""Tables of one partition, and of several."""
OUTPUTS: Mapping[str, tuple[Partition, ...]] = {
    **{
        f"deal~{slot}": tuple(Partition(f"{SLUG}.dealt", number) for number in range(slot, PARTITIONS, SLOTS))
        for slot in range(SLOTS)
    },
    **{name: (Partition(f"{SLUG}.{name}"),) for name in WHOLE},
}
"""Where each slot writes."""


Condition: TypeAlias = Callable[[], bool]
Conditions: TypeAlias = tuple[Callable[[], Condition], ...]
"""What must come true after a deed; each is asked for a condition that counts from then on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many there are of each, and how much they have to do."""

    runners: int = 3
    gateways: int = 2
    snapshotters: int = 2
    pause_s: float = 0.08
    """Between two posts of one client; there are two clients a gateway."""


def broker_for(folder: Path) -> LocalKafka:
    """A broker of its own, because it is killed too."""
    return LocalKafka(folder=folder / "kafka", startup_timeout=timedelta(seconds=PATIENCE_S))


class Snapshotter:
    """One `python -m tailrace.snapshotter`."""

    def __init__(self, folder: Path, log_url: str, name: str) -> None:
        command = [sys.executable, "-m", "tailrace.snapshotter", "--log", log_url, "--instance", name]
        with (folder / f"{name}.stderr").open("ab") as output:
            self.process = subprocess.Popen(
                [*command, "--data", str(folder / name), "--shared-folder", str(folder / "shared")],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment(),
            )

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class Fleet:
    """Runners, gateways and snapshotters under load; what is done to them comes from a seed. With `fault`, the runners
    break that promise."""

    def __init__(
        self, folder: Path, kafka: LocalKafka, *, seed: int, size: Size | None = None, fault: str = ""
    ) -> None:
        self.folder, self.kafka, self._fault = folder, kafka, fault
        size = size or Size()
        self._patience_s = PATIENCE_S
        self.random = random.Random(seed)
        self.deeds: Counter[str] = Counter()
        self.recovered_s: dict[str, list[float]] = defaultdict(list)
        self.ended: list[str] = []
        """Who ended by itself, and what it said last."""
        app = write_app(
            folder / "app",
            GRAPH,
            deal__py=COPY.format(source="events", target="dealt"),
            line__py=COPY.format(source="dealt", target="line"),
            latest__py=LATEST,
            sums__py=SUMS,
            total__sql=TOTAL,
        )
        self.log: Log = open_log(kafka.url)
        ControlLog(self.log).deploy(load_app(app), "a test")
        self._ports = [free_port() for _ in range(size.gateways)]
        self._next = size.runners
        self.runners = {name: self._runner(name) for name in (f"runner{number}" for number in range(size.runners))}
        self.gateways = [self._gateway(number) for number in range(size.gateways)]
        self.snapshotters = [self._snapshotter(number) for number in range(size.snapshotters)]
        urls = [f"http://127.0.0.1:{port}/webhooks/posts" for port in self._ports]
        self.clients = KeyedClients(urls, keys=KEYS, clients=2 * size.gateways, pause_s=size.pause_s)

    def __enter__(self) -> Fleet:
        try:
            topics = {partition.topic for partitions in OUTPUTS.values() for partition in partitions}
            self._wait(lambda: topics <= set(self.log.topics(SLUG)), "the topics are there")
            self._until_it_works()
            if self._fault:  # it was slow or not; what comes does harm or not
                self._patience_s = PATIENCE_FAULT_S
            self._until_shared()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- its processes --------------------------------------------------------------------------------------------

    def _runner(self, name: str) -> Runner:
        return Runner(self.folder, self.kafka.url, name, fault=self._fault, moment=self.folder / MOMENT)

    def _gateway(self, number: int) -> GatewayProcess:
        folder, port = self.folder / f"gateway{number}", self._ports[number]
        return GatewayProcess(folder, self.kafka.url, None, "--drain", "2", port=port)

    def _snapshotter(self, number: int) -> Snapshotter:
        return Snapshotter(self.folder, self.kafka.url, f"snapshotter{number}")

    def _supervise(self) -> None:
        """Start again what has ended by itself."""
        for name, runner in self.runners.items():
            if runner.process.poll() is not None:
                self.ended.append(f"{name}: {runner.stderr()[-600:]}")
                runner.end()
                self.runners[name] = self._runner(name)
        for number, gateway in enumerate(self.gateways):
            if gateway.process.poll() is not None:
                self.ended.append(f"gateway{number}: {gateway.stderr()[-600:]}")
                gateway.kill()
                self.gateways[number] = self._gateway(number)
        for number, snapshotter in enumerate(self.snapshotters):
            if snapshotter.process.poll() is not None:
                said = (self.folder / f"snapshotter{number}.stderr").read_text(errors="replace")
                self.ended.append(f"snapshotter{number}: {said[-600:]}")
                self.snapshotters[number] = self._snapshotter(number)

    # -- what befalls it ------------------------------------------------------------------------------------------

    def do(self, *deeds: str) -> None:
        """Do these, named as the methods below, one right after the other; then wait until everything works again, and tell
        how long that took."""
        more = [condition for deed in deeds for condition in getattr(self, deed)()]
        name = ", ".join(deeds)
        began_s = time.monotonic()
        self._until_it_works(*more)
        self.deeds[name] += 1
        self.recovered_s[name].append(time.monotonic() - began_s)
        print(f"{name}: {self.recovered_s[name][-1]:.1f} s, {sum(self.clients.accepted.values())} posts", flush=True)

    def kill_runner(self) -> Conditions:
        """`kill -9` of a runner; another process takes its name and folder."""
        name = self.random.choice(sorted(self.runners))
        self.runners[name].end()
        self.runners[name] = self._runner(name)
        return ()

    def kill_worker(self) -> Conditions:
        """`kill -9` of a worker: a child of the zygote, which is the runner's child."""

        def workers() -> list[int]:
            processes = [runner.process.pid for runner in self.runners.values()]
            return [worker for runner in processes for zygote in children(runner) for worker in children(zygote)]

        self._wait(lambda: bool(workers()), "there is a worker")
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(self.random.choice(workers()), signal.SIGKILL)
        return ()

    def kill_gateway(self) -> Conditions:
        """`kill -9` of a gateway; another one listens on its port."""
        number = self.random.randrange(len(self.gateways))
        self.gateways[number].kill()
        self.gateways[number] = self._gateway(number)
        return ()

    def kill_snapshotter(self) -> Conditions:
        """`kill -9` of a snapshotter: it is over when what the log had then is in the lake."""
        number = self.random.randrange(len(self.snapshotters))
        self.snapshotters[number].end()
        self.snapshotters[number] = self._snapshotter(number)
        return (self._lake_follows,)

    def kill_broker(self) -> Conditions:
        """`kill -9` of the broker, amid whatever it writes; it starts again on its data."""
        self.kafka.kill()
        self.kafka.restart()
        return ()

    def restart_broker(self) -> Conditions:
        """The broker is told to stop, and starts again."""
        self.kafka.stop()
        self.kafka.start()
        return ()

    def pause_runner(self) -> Conditions:
        """A runner stands still until others have its nodes, and finds itself fenced; then it gets its share again."""
        self._until_shared()  # so that it has something that may be taken from it
        runner = self.runners[self.random.choice(sorted(self.runners))]
        self._pause(runner.process.pid, self._nodes_work)
        return (lambda: self._is_shared,)

    def pause_gateway(self) -> Conditions:
        """A gateway stands still; its senders give up and try again."""
        self._pause(self.gateways[self.random.randrange(len(self.gateways))].process.pid, lambda: lambda: True)
        return ()

    def pause_snapshotter(self) -> Conditions:
        """A snapshotter stands still, perhaps within a Delta commit."""
        snapshotter = self.snapshotters[self.random.randrange(len(self.snapshotters))]
        self._pause(snapshotter.process.pid, self._nodes_work)
        return (self._lake_follows,)

    def scale(self) -> Conditions:
        """Another runner comes and gets its share; then one of all is stopped in order."""
        name, self._next = f"runner{self._next}", self._next + 1
        self.runners[name] = self._runner(name)
        self._until_shared()
        gone = self.random.choice(sorted(self.runners))
        runner = self.runners.pop(gone)
        runner.process.terminate()
        status = runner.process.wait(60)
        said = runner.stderr()[-2000:]
        runner.end()
        assert status == 0, said
        return ()

    def pause_a_commit(self) -> Conditions:
        """As `pause_runner`, of a runner with a fault: it stands still where it is about to commit rows."""
        runner = self._steered(lambda process: _state_of(process) == "T")
        self._pause(runner.process.pid, self._nodes_work)
        return ()

    def kill_in_a_commit(self) -> Conditions:
        """As `kill_runner`, of a runner with a fault: where it has written rows and not their places."""
        runner = self._steered(lambda process: _state_of(process) == "Z")
        runner.end()
        self.runners[runner.name] = self._runner(runner.name)
        return ()

    def _steered(self, there: Callable[[int], bool]) -> Runner:
        """The runner that did what its fault does at the next commit of rows of `line`, once it has."""
        (self.folder / MOMENT).write_text(f"{SLUG}.line")
        found: list[Runner] = []

        def reached() -> bool:
            found[:] = [runner for runner in self.runners.values() if there(runner.process.pid)]
            return bool(found)

        wait_for(reached, "a runner commits rows", self._patience_s)
        return found[0]

    def _pause(self, process: int, holds: Callable[[], Condition]) -> None:
        """Stop a process for `PAUSE_S`, and until what is asked after that has come true, which others see to."""
        os.kill(process, signal.SIGSTOP)
        try:
            began_s = time.monotonic()
            wait_for(lambda: time.monotonic() > began_s + PAUSE_S, "the pause is over")
            self._wait(holds(), "the others go on", without=process)
        finally:
            os.kill(process, signal.SIGCONT)

    # -- when it is over ------------------------------------------------------------------------------------------

    def _until_it_works(self, *more: Callable[[], Condition]) -> None:
        conditions = [each() for each in (self._gateways_accept, self._nodes_work, *more)]
        for condition in conditions:
            self._wait(condition, "the fleet works")

    def _wait(self, condition: Condition, what: str, *, without: int | None = None) -> None:
        def holds() -> bool:
            time.sleep(0.1)  # each look asks the broker: leave the machine to the fleet
            if without is None:
                self._supervise()
            try:
                return condition()
            except RetriableError:
                return False

        wait_for(holds, f"{what} after {dict(self.deeds)}; ended: {self.ended}", self._patience_s)

    def _gateways_accept(self) -> Condition:
        before = Counter(self.clients.accepted)
        return lambda: all(self.clients.accepted[number] > before[number] for number in range(len(self.gateways)))

    def _nodes_work(self) -> Condition:
        """Whether each slot has committed rows since now."""
        waiting = {slot: self._ends(partitions) for slot, partitions in OUTPUTS.items()}

        def work() -> bool:
            for slot, places in list(waiting.items()):
                if any(self._has_records(partition, place) for partition, place in places.items()):
                    del waiting[slot]
            return not waiting

        return work

    def _has_records(self, partition: Partition, start: Offset) -> bool:
        end = self.log.ends([partition])[partition]
        return any(batch.records for batch in scan(self.log, partition, start, end))

    def _lake_follows(self) -> Condition:
        """Whether what the log has now is in the lake."""
        ends = self._ends([lane.partition for lane in table_lanes(self.log, [SLUG]).values()])

        def follows() -> bool:
            places = self.log.places(GROUP, list(ends))
            return all(
                partition in places and places[partition].offset >= end for partition, end in ends.items() if end
            )

        return follows

    def _ends(self, partitions: Iterable[Partition]) -> dict[Partition, Offset]:
        while True:
            try:
                return self.log.ends(list(partitions))
            except RetriableError:
                time.sleep(0.1)

    def _until_shared(self) -> None:
        """Until each runner has shards, and each shard one runner.

        Raises:
            PromiseBrokenError: two runners go on with one shard.
        """
        try:
            self._wait(self._is_shared, "the shards are shared")
        except AssertionError as error:
            held = Counter(shard for runner in self.runners.values() for shard in runner.shards())
            if twice := sorted(shard for shard, runners in held.items() if runners > 1):
                raise PromiseBrokenError(f"the shards {twice} have two runners; {error}") from error
            raise

    def _is_shared(self) -> bool:
        held = [runner.shards() for runner in self.runners.values() if runner.is_ready()]
        held_once = sum(map(len, held)) == len(set().union(*held)) == SHARDS
        return len(held) == len(self.runners) and all(held) and held_once

    # -- what must be true ----------------------------------------------------------------------------------------

    def end(self) -> int:
        """Stop posting, let everything come to its end, and compare; returns how many posts there were.

        Raises:
            PromiseBrokenError: a table is not what a plain loop makes of the posts.
        """
        self.clients.stop()
        try:
            wait_for(self._settled, "every post went through all nodes", self._patience_s)
            wait_for(self._lake_follows(), "all is in the lake", self._patience_s)
        except AssertionError as error:
            for name, runner in self.runners.items():  # pytest shows it with the failure
                print(f"{name}: shards {sorted(runner.shards())}, {runner.page('status')}\n{runner.stderr()[-8000:]}")
            raise PromiseBrokenError(f"{error}; {self._counts()}; ended: {self.ended}") from error
        return self._check()

    def stop(self) -> None:
        """End all processes."""
        self.clients.give_up()
        for runner in self.runners.values():
            runner.end()
        for gateway in self.gateways:
            gateway.kill()
        for snapshotter in self.snapshotters:
            snapshotter.end()
        self.log.close()

    def fencings(self) -> int:
        """How often a runner was told that another had its shard."""
        return self._said("is another runner's")

    def markers_written(self) -> int:
        """How often a runner has written markers that the broker had left out."""
        return self._said("has left out the markers")

    def _said(self, text: str) -> int:
        return sum(file.read_text(errors="replace").count(text) for file in self.folder.glob("runner*.stderr"))

    def _rows(self, name: str) -> list[dict[str, Any]]:
        numbers = range(PARTITIONS if name in PARTED else 1)
        return [row for number in numbers for row in read_table(self.log, f"{SLUG}.{name}", number)]

    def _counts(self) -> dict[str, int]:
        return {name: len(self._rows(name)) for name in (*PARTED, *WHOLE)}

    def _settled(self) -> bool:
        time.sleep(0.2)  # these reads fold whole topics: leave the machine to the fleet
        posts = sum(self.clients.sent.values())
        if sum(int(row["rows"]) for row in self._rows("total")) < posts or len(self._rows("sums")) < posts:
            return False
        return sum(row["n"] + 1 for row in self._rows("latest")) >= posts

    def _check(self) -> int:
        wanted = {key: list(range(count)) for key, count in self.clients.sent.items()}
        events = [orjson.loads(row["record"]) for row in self._rows("events")]
        dealt, line, sums = self._rows("dealt"), self._rows("line"), self._rows("sums")
        for name, rows in (("events", events), ("dealt", dealt), ("line", line), ("sums", sums)):
            found: dict[str, list[int]] = defaultdict(list)
            for row in rows:
                found[row["k"]].append(row["n"])
            if found != wanted:
                raise PromiseBrokenError(f"{name}: {_difference(found, wanted)}")
        for slot in range(SLOTS):
            mine = [row for row in dealt if partition_of_key(row["k"], PARTITIONS) % SLOTS == slot]
            counts = sorted(row["count"] for row in mine)
            _demand(counts == list(range(1, len(mine) + 1)), f"the State of slot {slot} lost or repeated something")
        _demand([row["count"] for row in line] == list(range(1, len(line) + 1)), "State and rows of line.py disagree")
        total = 0
        for row, source in zip(sums, line, strict=True):
            total += row["n"]
            same = (row["k"], row["n"], row["total"]) == (source["k"], source["n"], total)
            _demand(same, f"sums: {row} for {source}, in all {total}")
        latest = sorted((row["k"], row["n"]) for row in self._rows("latest"))
        _demand(latest == sorted((key, numbers[-1]) for key, numbers in wanted.items()), f"latest: {latest}")
        totals = sorted((row["k"], int(row["rows"]), int(row["total"])) for row in self._rows("total"))
        _demand(totals == sorted((key, len(n), sum(n)) for key, n in wanted.items()), f"total: {totals}")
        _demand(not [topic for topic in self.log.topics(SLUG) if topic.endswith("-dead")], "there are dead letters")
        self._check_lake()
        return len(events)

    def _check_lake(self) -> None:
        """Any Delta reader sees the rows of the log."""
        lanes = table_lanes(self.log, [SLUG])
        index = read_index(self.log, SLUG, lanes)
        for name in (*PARTED, *WHOLE):
            found: list[dict[str, Any]] = []
            for key in (key for key, lane in lanes.items() if lane.topic == f"{SLUG}.{name}"):
                fold = index[key].table_fold() if key in index else None
                if fold is None or fold.active is None:  # then all rows lie in other partitions
                    continue
                _demand(fold.active.name in index[key].snapshots, f"{key}: the active version is not in the lake")
                uri = self.folder / "shared" / "lake" / index[key].snapshots[fold.active.name].folder
                found += pa.table(deltalake.DeltaTable(str(uri)).to_pyarrow_table()).to_pylist()
            columns = [column for column in self._rows(name)[0] if column not in ("patterns_id", "timestamp")]
            lake, log = (sorted([str(row[c]) for c in columns] for row in rows) for rows in (found, self._rows(name)))
            _demand(lake == log, f"{name}: the lake has {len(lake)} rows that are not the log's {len(log)}")


def _state_of(process: int) -> str:
    """`T` while it stands still, `Z` once it has ended, and so on; see proc(5)."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]


def _demand(promise: bool, what: str) -> None:
    if not promise:
        raise PromiseBrokenError(what)


def _difference(found: Mapping[str, list[int]], wanted: Mapping[str, list[int]]) -> str:
    """What is missing, twice or out of order, in the first key where something is."""
    key = next(key for key in (*wanted, *found) if found.get(key, []) != wanted.get(key, []))
    there, all_ = found.get(key, []), wanted.get(key, [])
    missing, twice = sorted(set(all_) - set(there)), [n for n, count in Counter(there).items() if count > 1]
    return f"{key} of {len(all_)} posts: missing {missing[:9]}, twice {twice[:9]}, in order {there == sorted(there)}"
