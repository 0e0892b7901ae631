"""Histories of the engine: a seed picks an app, posts, crashes, delays and redeploys; then the promises are checked.

Nothing but the seed decides, so a seed replays its history. `engine_sim_log`, `engine_sim_nodes` and `engine_sim_host`
are what the engine is put into.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from engine_sim_host import LIMITS, Host
from engine_sim_lake import LAKE_FAULTS, Lake
from engine_sim_log import Key, SimLog
from engine_sim_nodes import ASKED, NODES, SCHEDULE, SimNode, respec

from tailrace.engine import Cron, SlotRecord, last_fire_ms

START_MS = 1_700_000_000_000
CALM_STEPS_MAX = 8_000
"""A history that has not come to rest after so many steps is in a loop."""

FAULTS = (
    "place outside the transaction",
    "State not restored",
    "no fencing",
    "read before open",
    "commit number ignored",
    "unknown taken as done",
    "marker after rows",
    "ack before durable",
    "dead letter committed apart",
    "a commit outlives its opening",
    "rows of a dead worker kept",
)
"""Mistakes that the simulated host and gateway can make."""


class World:
    """One history."""

    def __init__(self, seed: int, *, fault: str = "", say: Callable[..., None] | None = None, only: str = "") -> None:
        self.rng = rng = random.Random(seed)
        self.fault = fault
        self._say = say
        self.counts: Counter[str] = Counter()
        self.handled = 0
        self.now_ms = START_MS + rng.randrange(3_600_000)
        self.calm = False
        self.pipeline = rng.random() < 0.8
        self.log = SimLog(rng.choice([1, 2, 4]), fences=fault != "no fencing")
        self.tries: dict[tuple[str, Key], list[int]] = {}
        self.acknowledged: list[Any] = []
        self.posts = self.steps = 0
        self.kills_left = 3
        self.version = 0
        wanted = set(rng.sample(sorted(NODES), rng.randint(3, 7))) | {rng.choice(["plain", "rollback", "checkpoints"])}
        if only:
            wanted = set(only.split())
        self.app = {key: NODES[key] for key in sorted(wanted)}
        chance = random.Random(f"{seed}/lake")  # apart, so that hosts live the same lives with it and without
        with_lake = chance.random() < 0.4 or fault in LAKE_FAULTS
        self.lake = Lake(chance, self.log, self.counts, fault) if with_lake else None
        self.hosts: list[Host] = []

    def say(self, *what: object) -> None:
        if self._say is not None:
            self._say(self.now_ms - START_MS, *what)

    def chance(self, share: float) -> bool:
        """Whether something goes wrong; nothing does once the history is left to come to rest."""
        return not self.calm and self.rng.random() < share

    # The run of a history

    def run(self) -> None:
        """Let things happen, then come to rest, then check.

        Raises:
            AssertionError: a promise is broken.
        """
        for _ in range(self.rng.randint(70, 160)):
            self._happens()
        self._come_to_rest()
        Promises(self).check()
        if self.lake is not None:
            self.lake.check()
            self.lake.finish()
            self.lake.check()

    def _happens(self) -> None:
        rng = self.rng
        self.steps += 1
        self.now_ms += rng.randrange(40)
        if not self.hosts:
            if rng.random() < 0.4:
                self._start_host()
            elif rng.random() < 0.1:
                self._jump()
        if self.lake is not None:
            self.lake.happens()
        dice = rng.random()
        if dice < 0.72:
            self._step()
        elif dice < 0.84:
            self._post()
        elif dice < 0.87:
            slot = rng.choice([*self.app, "answers"])
            self.log.triggers.append(slot)
        elif dice < 0.89:
            self._jump()
        elif dice < 0.91:
            self._redeploy()
        elif dice < 0.935:
            self._kill_worker()
        elif dice < 0.955:
            self._crash()
        elif dice < 0.965:
            self._take_over()
        elif dice < 0.97:
            if self.hosts and not self.hosts[-1].draining:
                self.hosts[-1].drain()
        elif dice < 0.99:
            self._rebalance()
        else:
            self.counts["late opener"] += 1
            self.log.open(rng.randrange(self.log.shards))

    def _step(self) -> None:
        for _ in range(self.rng.randint(1, 4)):
            host = self.rng.choice(self.hosts) if self.hosts else None
            choices = host.choices() if host else []
            if choices:
                act, what = self.rng.choice(choices)
                act(what)

    def _post(self) -> None:
        """A gateway appends, then acknowledges; it may die in between, and then the sender knows nothing."""
        self.posts += 1
        rng = self.rng
        if "loops" in self.app and rng.random() < 0.3:
            self.log.append("loop", 0, ("depth", rng.randrange(4), self.posts))
            return
        dice = rng.random()
        value: Any = ("post", self.posts)
        if dice < 0.04:
            value = ("raise", 1_000_000)
        elif dice < 0.08:
            value = ("raise", rng.randint(1, 2))
        elif dice < 0.09:
            value = ("kill", 1_000_000)
        elif dice < 0.10:
            value = ("kill", 1)
        if self.fault == "ack before durable":
            self.acknowledged.append(Key("in", 0, len(self.log.table("in")[0])))
        if rng.random() < 0.04:
            self.counts["gateway: before durable"] += 1
            return
        key = self.log.append("in", 0 if self.fault == "ack before durable" else rng.randrange(2), value)
        if rng.random() < 0.04:
            self.counts["gateway: before answer"] += 1
            return
        if self.fault != "ack before durable":
            self.acknowledged.append(key)

    def _jump(self) -> None:
        self.counts["time jump"] += 1
        self.now_ms += self.rng.choice([1_000, 15_000, 300_000, 2_000_000, 7_200_000])

    def _redeploy(self) -> None:
        """Nodes come, go and change; the app's whole set is back at the end."""
        if not self.hosts:
            return
        self.counts["redeploy"] += 1
        nodes = {key: node for key, node in self.app.items() if self.rng.random() < 0.8}
        if self.rng.random() < 0.3:
            self.version += 1
            nodes = {key: respec(node, self.version) for key, node in nodes.items()}
        self.hosts[-1].deploy(nodes)

    def _kill_worker(self) -> None:
        workers = [worker for host in self.hosts for worker in host.workers.values()]
        if not workers or self.kills_left == 0:
            return
        self.kills_left -= 1
        worker = self.rng.choice(workers)
        point = "at a checkpoint" if worker.waits else "before its first step" if not worker.steps else "amid its rows"
        self.counts[f"worker killed: {point}"] += 1
        next(host for host in self.hosts if worker in host.workers.values()).kill(worker)

    def _crash(self) -> None:
        if self.hosts:
            host = self.rng.choice(self.hosts)
            points = set(host.at.values())
            if host.workers:
                points.add("run going")
            if host.ended:
                points.add("run ended")
            for point in points or {"idle"}:
                self.counts[f"host crashes: {point}"] += 1
            self.die(host)

    def _take_over(self) -> None:
        """A second host starts while the first one lives on, and does not know."""
        if self.hosts:
            self.counts["take-over"] += 1
            self.hosts[-1].superseded = True
            self._start_host()

    def _rebalance(self) -> None:
        """Shards change hands, at a different moment for each host: for a while one may have two owners, or none."""
        if not self.hosts:
            return
        self.counts["rebalance"] += 1
        if len(self.hosts) == 1 and self.rng.random() < 0.5:
            self._start_host()
        for host in self.hosts:
            if self.rng.random() < 0.7:
                host.own(frozenset(shard for shard in range(self.log.shards) if self.rng.random() < 0.6))

    def _start_host(self) -> None:
        self.hosts.append(Host(self, dict(self.app)))

    def die(self, host: Host) -> None:
        self.say("dies", id(host))
        if host in self.hosts:
            self.hosts.remove(host)

    def _come_to_rest(self) -> None:
        """No more trouble: everything on its way arrives, and time passes as long as something waits for it."""
        self.calm = True
        while len(self.hosts) > 1:
            self.die(self.hosts[0])
        if not self.hosts or self.hosts[0].superseded or self.hosts[0].draining:
            self.hosts.clear()
            self._start_host()
        host = self.hosts[0]
        host.own(frozenset(range(self.log.shards)))
        host.deploy(dict(self.app))
        for _ in range(CALM_STEPS_MAX):
            choices = host.choices()
            if self.lake is not None and not self.steps % 4:
                self.lake.happens()
            self.steps += 1
            if choices:
                self.now_ms += self.rng.randrange(10)
                act, what = self.rng.choice(choices)
                act(what)
                continue
            if not self._waits(host):
                return
            assert host.wake_ms is not None, "something waits for a time, and no tick is asked for"
            self.now_ms = max(self.now_ms, host.wake_ms)
        raise AssertionError("does not come to rest")

    def _waits(self, host: Host) -> bool:
        """Whether time alone will bring a run; the next fire of a schedule does not count."""
        if host.engine.busy or None in (host.engine.record(slot) for slot in self.app):
            return True  # a refused commit, or a shard that could not be opened
        for slot, node in self.app.items():
            due = host.engine.due(slot, self.now_ms)
            assert not due.reasons, f"{slot} is due ({due.reasons}) and nothing happens"
            record = host.engine.record(slot)
            assert record is not None
            scheduled = isinstance(node.spec.trigger, Cron) and not record.tries and record.wake_ms is None
            if due.at_ms is not None and not scheduled:
                return True
        return False


class Promises:
    """What must be true of the log when everything has come to rest."""

    def __init__(self, world: World) -> None:
        self.world, self.log, self.app = world, world.log, world.app

    def check(self) -> None:
        for key in self.world.acknowledged:
            assert key.offset < len(self.log.table("in")[key.partition]), f"acknowledged {key} is not in the log"
        assert not self.world.hosts[0].engine.busy, "something is left to be committed"
        for slot, node in self.app.items():
            if node.streams and node.target != "loop" and not node.spec.stops:
                self._stream(slot, node)
            getattr(self, f"_{slot}", lambda: None)()

    def values(self, table: str) -> list[Any]:
        return [rec.value for rec in self.log.records(table)]

    def record(self, slot: str) -> SlotRecord:
        return self.world.hosts[0].engine.record(slot) or SlotRecord()

    def _stream(self, slot: str, node: SimNode) -> None:
        """Each input row has its output, or its dead letter, once, in order; State counts the outputs."""
        outputs = [value[1] for value in self.values(node.target)]
        dead = [value[1] for value in self.values("dead") if value[0] == slot]
        inputs = [rec for table in node.streams for rec in self.log.records(table)]
        found = Counter([*outputs, *dead])
        for rec in inputs:
            assert found[rec.key] == 1, f"{slot}: {rec} has {found[rec.key]} outputs and dead letters"
            self._fate(slot, rec.key, rec.value, dead=rec.key in dead)
        assert len(found) == len(inputs), f"{slot}: outputs of rows that are not there"
        for lane in {key[:2] for key in outputs}:
            offsets = [key.offset for key in outputs if key[:2] == lane]
            assert offsets == sorted(offsets), f"{slot}: out of order"
        stored = self.log.stored.get(slot)
        counted = stored[1].state.get("n", 0) if stored else 0
        assert counted == len(outputs), f"{slot}: State says {counted}, there are {len(outputs)} outputs"

    def _fate(self, slot: str, key: Key, value: Any, *, dead: bool) -> None:
        """Rows that always fail are given up, at the right time; others are not."""
        if slot not in {"plain", "rollback", "checkpoints", "joins"} or key.table != "in":
            return
        kind, times = value
        forever = kind in {"raise", "kill"} and times > 1_000
        at_once = kind == "raise" and slot != "rollback"
        if forever or not at_once:  # else the run that raised may have been lost, and the next one not have raised
            assert dead == forever, f"{slot}: {value} is {'dead-lettered' if dead else 'let through'}"
        if dead and not at_once:
            tried = self.world.tries[slot, key]
            assert len(tried) >= LIMITS.tries_max, f"{slot}: {key} given up after {len(tried)} tries"
            spread_ms = tried[-1] - tried[0]
            assert spread_ms >= sum(LIMITS.retry_pauses_ms), f"{slot}: {key} given up after {spread_ms} ms"

    def _last_count(self, table: str, target: str) -> None:
        """The last output of a batch node covers its input's last record that was not quiet."""
        loud = [rec for rec in self.log.records(table) if not rec.quiet]
        outputs = self.values(target)
        if loud:
            assert outputs, f"{target}: no output for {len(loud)} records"
            records = self.log.records(table)
            least = max(n for n, rec in enumerate(records, 1) if not rec.quiet) if table != "in" else len(records)
            assert least <= outputs[-1][-1] <= len(records), f"{target}: saw {outputs[-1][-1]} of {len(records)}"

    def _counts(self) -> None:
        self._last_count("out", "counted")

    def _recounts(self) -> None:
        self._last_count("counted", "recounted")

    def _listens(self) -> None:
        self._last_count("asked", "heard")

    def _fails(self) -> None:
        self._last_count("in", "failed")

    def _breaks(self) -> None:
        """A run has seen the last record, though the breaker was open perhaps when it came."""
        seen = self.world.tries.get(("breaks", Key("", 0, 0)), [])
        written = len(self.log.records("in"))
        assert max(seen, default=0) == written, f"breaks: saw {seen[-1:]} of {written}"

    def _halts(self) -> None:
        """It gave nothing up: before the record that it stands at it has handled all, and behind it none."""
        outputs = [value[1] for value in self.values("halted")]
        assert not [value for value in self.values("dead") if value[0] == "halts"], "halts: a dead letter"
        record, missing = self.record("halts"), []
        for partition, lane in enumerate(self.log.table("in")):
            inputs = [rec for rec in lane if rec is not None]
            done = [key for key in outputs if key.partition == partition]
            assert done == [rec.key for rec in inputs[: len(done)]], f"halts: {done} of {inputs}"
            missing += inputs[len(done) : len(done) + 1]
        assert bool(missing) == bool(record.tries), f"halts: {missing} left, {record.tries} tries"
        if missing:
            assert record.retry_ms is None, "halts: a try is to come"
            killed = self.world.kills_left < 3  # by whoever; two deaths are two tries
            assert killed or any(rec.value[0] in {"raise", "kill"} for rec in missing), f"halts: stands at {missing}"

    def _accumulates(self) -> None:
        """Each run saw what the runs before it wrote, and none ran for its own writes alone."""
        self._last_count("in", "acc")
        outputs = self.values("acc")
        assert [value[1] for value in outputs] == list(range(1, len(outputs) + 1)), f"accumulates: {outputs}"

    def _loops(self) -> None:
        """Every record over 0 has one successor."""
        records = self.log.records("loop")
        successors = Counter(rec.value[2] for rec in records if isinstance(rec.value[2], Key))
        for rec in records:
            assert successors[rec.key] == (rec.value[1] > 0), f"loops: {rec} has {successors[rec.key]} successors"

    def _plants(self) -> None:
        asked = self.log.triggers.count("plants")
        runs = len(self.values("seed")) / 3
        assert 1 <= runs <= 1 + asked, f"the root ran {runs} times"

    def _asks(self) -> None:
        asked = self.log.triggers.count("asks")
        numbers = [value[1] for value in self.values("asked")]
        assert numbers == list(range(1, len(numbers) + 1)), f"asks: {numbers}"
        assert ASKED <= len(numbers) <= ASKED + asked, f"asks: {len(numbers)} runs"

    def _answers(self) -> None:
        asked = self.log.triggers.count("answers")
        seen = [value[1] for value in self.values("answers")]
        assert len(seen) <= asked, f"answers: {len(seen)} runs for {asked} triggers"
        assert not asked or seen[-1:] == [asked], f"answers: the last run knew of {seen[-1:]} of {asked} triggers"

    def _ticks(self) -> None:
        """Each fire at most once, always the latest one, and none is missing at the end."""
        fires = [value[1] for value in self.values("fires")]
        assert fires == sorted(set(fires)), f"ticks: {fires}"
        for _, fire_ms, began_ms in self.values("fires"):
            assert fire_ms == last_fire_ms(SCHEDULE, began_ms), "a fire that a later one has overtaken"
        record = self.record("ticks")
        assert "ticks" in self.log.stored, "the schedule's beginning is not saved"
        assert record.fired_ms >= last_fire_ms(SCHEDULE, self.world.now_ms), "the last fire is missing"
        if last_fire_ms(SCHEDULE, record.fired_ms) == record.fired_ms:  # else it is when the schedule began
            assert fires[-1:] == [record.fired_ms], "a fire is said to be done that left nothing"

    def _checks(self) -> None:
        if "snaps" in self.app and self.values("snap"):
            values = self.values("snap")
            start = max(n for n, value in enumerate(values) if value == "marker")
            rows = [value[1] for value in values[start + 1 :]]
            assert rows == [rec.key for rec in self.log.records("in")], "the last version is not the whole table"
            assert self.values("checked")[-1][1] == len(rows), "checks: not of the last version"


def play(seed: int, *, fault: str = "", say: Callable[..., None] | None = None, only: str = "") -> World:
    """Run one history; of an app of these nodes `only`, where they are named.

    Raises:
        AssertionError: it breaks a promise; the message names the seed and how to replay it.
    """
    world = World(seed, fault=fault, say=say, only=only)
    try:
        world.run()
    except Exception as error:
        raise AssertionError(
            f"seed {seed}: {error}\nreplay: TAILRACE_SIM_SEED={seed}"
            " python -m pytest tests/unit/test_engine_simulator.py -k test_histories -s"
        ) from error
    return world
