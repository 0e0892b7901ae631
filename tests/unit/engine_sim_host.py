"""The simulated host: carries the engine's commands out in small steps, so that a crash can come between any two.

`fault` plants one of the mistakes that the simulator must find.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine_sim_log import Fenced, Key, Row, Tip
from engine_sim_nodes import Context, NodeFailed, NodeKilled, SimNode, Step

from tailrace.engine import (
    CheckpointWanted,
    CloseShard,
    Commit,
    CommitPart,
    CommitRefused,
    Committed,
    Deploy,
    Discard,
    Drain,
    Engine,
    EngineLimits,
    Event,
    News,
    OpenShard,
    Own,
    RunEnded,
    RunOutcome,
    ShardOpened,
    SlotRecord,
    StartRun,
    Tick,
    Triggered,
    WakeAt,
    WriterLost,
    shard_of,
)

if TYPE_CHECKING:
    from engine_simulator import World

LIMITS = EngineLimits(runs_max=3, rows_first=3, rows_max=12, share_ms=60)
"""The share is one of simulated time, in which a row takes 25 ms."""

Stored = dict[str, tuple[SlotRecord, Tip | None]]
"""What a transaction stores of each slot: its record, and its State and places where they change."""

Taken = tuple[list[tuple[str, Row]], Stored]


@dataclass
class Worker:
    slot: str
    ctx: Context
    script: Iterator[Step]
    waits: bool = False
    """For its checkpoint."""
    steps: int = 0


@dataclass(eq=False)
class Arriving:
    """An event on its way."""

    event: Callable[[int], Event]
    may_repeat: bool
    not_before: int = 0
    """Step of the history."""


class Host:
    """One process. Dies as a whole: everything in here is lost then."""

    def __init__(self, world: World, nodes: dict[str, SimNode]) -> None:
        self.world, self.log, self.fault = world, world.log, world.fault
        self.engine = Engine(shards=self.log.shards, limits=LIMITS, pipeline=world.pipeline)
        self.superseded = False
        self.owned = frozenset(range(self.log.shards))
        self.nodes = nodes
        self.events: list[Arriving] = []
        self.draining = False
        self.tasks: list[Iterator[str]] = []
        self.at: dict[int, str] = {}
        """Where each task stands, by its id."""
        self.workers: dict[str, Worker] = {}
        self.ended: dict[tuple[str, int], Worker] = {}
        self.tips: dict[str, Tip] = {}
        self.epochs: dict[int, int] = {}
        self.openings: dict[int, int] = {}
        self.wanted: dict[int, int] = {}
        """Of each shard that is not closed: the last opening that was asked for."""
        self.under_way: set[int] = set()
        self.refused: dict[int, tuple[tuple[CommitPart, ...], Taken]] = {}
        self.told: dict[str, dict[int, int]] = {}
        self.versions: dict[str, int] = {}
        """Of each table: how much had been written to it when its tail was read."""
        self.triggers_told = 0
        self.wake_ms: int | None = None
        self.rested: dict[str, int] = {}
        self.last_run: dict[str, int] = {}
        self.own(self.owned)
        self.deploy(nodes)

    # What the world lets happen

    def deploy(self, nodes: dict[str, SimNode]) -> None:
        self.nodes = nodes
        specs = tuple(node.spec for node in nodes.values())
        self.deliver(lambda now_ms: Deploy(now_ms=now_ms, specs=specs))

    def own(self, shards: frozenset[int]) -> None:
        self.owned = shards
        self.deliver(lambda now_ms: Own(now_ms=now_ms, shards=shards))

    def drain(self) -> None:
        self.draining = True
        self.deliver(lambda now_ms: Drain(now_ms=now_ms))

    def send(self, event: Callable[[int], Event], *, once: bool = False) -> None:
        """An event is on its way; it gets its time when it arrives."""
        self.events.append(Arriving(event, not once))

    def choices(self) -> list[tuple[Callable[..., None], Any]]:
        """Everything that could happen next in this process: what to call, and with what."""
        out: list[tuple[Callable[..., None], Any]] = []
        ripe = self.world.steps
        out += [(self._arrive, item) for item in self.events if item.not_before <= ripe or self.world.calm]
        out += [(self._task, task) for task in self.tasks]
        out += [(self._work, worker) for worker in self.workers.values() if not worker.waits]
        if self.versions != self.log.versions:
            versions = self.log.versions.items()
            out += [(self._tail, table) for table, version in versions if version != self.versions.get(table)]
        if self.triggers_told < len(self.log.triggers):
            out.append((self._tail_triggers, None))
        if self.wake_ms is not None and self.wake_ms <= self.world.now_ms:
            out.append((self._tick, None))
        if self.draining and not self.engine.busy:
            out.append((self._exit, None))
        return out

    def kill(self, worker: Worker) -> None:
        """The kernel kills a worker."""
        self._end(worker, worker.ctx.outcome("died"))

    # Reading the log's tail

    def _tail(self, table: str) -> None:
        self.versions[table] = self.log.versions[table]
        told = self.told.setdefault(table, {})
        last: dict[str, dict[int, int]] = {}
        for partition, lane in enumerate(self.log.table(table)):
            for rec in lane[told.get(partition, 0) :]:
                if rec is not None and not rec.quiet:
                    last.setdefault(rec.writer, {})[partition] = rec.key.offset
            told[partition] = len(lane)
        if last:
            self.send(lambda now_ms: News(now_ms=now_ms, table=table, last=last))

    def _tail_triggers(self, _: None) -> None:
        offset = self.triggers_told
        slot = self.log.triggers[offset]
        self.triggers_told += 1
        self.send(lambda now_ms: Triggered(now_ms=now_ms, slot=slot, offset=offset))

    def _exit(self, _: None) -> None:
        """A clean stop: nothing is left that is not in the log."""
        self.world.counts["clean stop"] += 1
        assert not self.workers and not self.ended
        for slot in self.nodes:
            record, shard = self.engine.record(slot), shard_of(slot, self.log.shards)
            # Not where another host has opened the shard since: it goes on from what is stored, and this one is fenced.
            if record not in (None, SlotRecord()) and self.epochs.get(shard) == self.log.epochs[shard]:
                stored = self.log.stored[slot][0]
                assert SlotRecord.from_json(json.loads(stored)) == record, f"{slot} is not stored as it was"
        self.world.die(self)

    def _tick(self, _: None) -> None:
        self.wake_ms = None
        self.deliver(lambda now_ms: Tick(now_ms=now_ms))

    # Events in, commands out

    def _arrive(self, item: Arriving) -> None:
        if self.events[0] is not item:
            self.world.counts["event out of order"] += 1
        self.events.remove(item)
        if item.may_repeat and self.world.chance(0.08):
            self.world.counts["event twice"] += 1
            self.events.append(replace(item, not_before=self.world.steps + self.world.rng.randrange(60)))
        self.deliver(item.event)

    def deliver(self, make: Callable[[int], Event]) -> None:
        event = make(self.world.now_ms)
        self.world.handled += 1
        self.world.counts[type(event).__name__] += 1
        self.world.say("event", event)
        for command in self.engine.handle(event):
            self.world.say("  command", command)
            match command:
                case OpenShard():
                    assert command.shard in self.owned, "opens what is not its own"
                    self.wanted[command.shard] = command.opening
                    self.under_way.discard(command.shard)
                    self.refused.pop(command.shard, None)
                    self._begin(self._open(command))
                case CloseShard():
                    del self.wanted[command.shard]
                    self.under_way.discard(command.shard)
                    self.refused.pop(command.shard, None)
                case StartRun():
                    self._start(command)
                case Commit():
                    self._begin(self._commit(command, self._take(command)))
                case Discard():
                    worker = self.workers.get(command.slot)
                    if worker is not None and worker.ctx.start.run == command.run:
                        del self.workers[command.slot]
                    self.ended.pop((command.slot, command.run), None)
                case WakeAt():
                    self.wake_ms = command.at_ms

    # Runs

    def _start(self, start: StartRun) -> None:
        slot, now_ms = start.slot, self.world.now_ms
        node = self.nodes[slot]
        assert slot not in self.workers, f"two runs of {slot} at a time"
        assert len(self.workers) < LIMITS.runs_max, "too many runs at a time"
        assert not self.draining, "a run starts while the host drains"
        assert shard_of(slot, self.log.shards) in self.owned, "a run of a slot that is another's"
        assert start.run > self.last_run.get(slot, 0), f"run {start.run} of {slot} twice"
        self.last_run[slot] = start.run
        if start.reasons == ("news",) and not node.streams:
            assert now_ms >= self.rested.get(slot, 0), f"{slot} did not rest"
        ctx = Context(self.log, node.spec, start, self.tips.get(slot, Tip()).copy(), now_ms, self.world.tries)
        ctx.fixed_ms = self.world.rng.randint(1, 20)
        self.workers[slot] = Worker(slot, ctx, node.script(ctx))

    def _work(self, worker: Worker) -> None:
        ctx = worker.ctx
        ctx.loop_ms += self.world.rng.randint(0, 50)
        ctx.now_ms = self.world.now_ms
        worker.steps += 1
        try:
            if next(worker.script) == "checkpoint":
                worker.waits = True
                slot, run = worker.slot, ctx.start.run
                self.send(lambda now_ms: CheckpointWanted(now_ms=now_ms, slot=slot, run=run), once=True)
        except StopIteration:
            self._end(worker, ctx.outcome("ok"))
        except NodeFailed:
            self.world.counts["node raises"] += 1
            self._end(worker, ctx.failed())
        except NodeKilled:
            self.world.counts["node kills its worker"] += 1
            self._end(worker, ctx.outcome("died"))

    def _end(self, worker: Worker, outcome: RunOutcome) -> None:
        ctx, slot, run = worker.ctx, worker.slot, worker.ctx.start.run
        assert ctx.handed <= ctx.start.rows_max * 2, f"{slot} was handed {ctx.handed} rows"
        del self.workers[slot]
        if outcome.kind == "died":
            ctx.tip = ctx.base.copy()
            if self.fault != "rows of a dead worker kept":
                ctx.rows = []
        self.ended[slot, run] = worker
        self.tips[slot] = ctx.tip.copy()
        ended_ms = self.world.now_ms

        def arrives(now_ms: int) -> Event:
            self.rested.setdefault(slot, 0)
            if (slot, run) in self.ended and not outcome.streamed:
                self.rested[slot] = ended_ms + outcome.duration_ms
            return RunEnded(now_ms=now_ms, slot=slot, run=run, outcome=outcome)

        self.send(arrives)

    # Transactions

    def _begin(self, task: Iterator[str]) -> None:
        self.tasks.append(task)
        self._task(task)

    def _task(self, task: Iterator[str]) -> None:
        try:
            self.at[id(task)] = next(task)
        except StopIteration:
            self.at.pop(id(task), None)
            self.tasks.remove(task)

    def _open(self, command: OpenShard) -> Iterator[str]:
        """1. `opening`  2. `fenced`  3. `restored`: the engine is about to be told."""
        shard, opening, chance = command.shard, command.opening, self.world.chance
        if self.superseded:
            self.world.die(self)
            return
        early = self.log.read(shard)
        yield "opening"
        if self.wanted.get(shard) != opening:
            return
        if chance(0.06):
            self.world.counts["writer: cannot open"] += 1
            self.send(lambda now_ms: WriterLost(now_ms=now_ms, shard=shard, opening=opening, reason="away"))
            return
        self.epochs[shard] = self.log.open(shard)
        yield "fenced"
        stored = early if self.fault == "read before open" else self.log.read(shard)
        yield "restored"
        if self.wanted.get(shard) != opening:
            return
        for slot in [slot for slot in self.tips if shard_of(slot, self.log.shards) == shard]:
            del self.tips[slot]
        for slot, (_, tip) in stored.items():
            assert tip is not None
            self.tips[slot] = Tip({}, dict(tip.places)) if self.fault == "State not restored" else tip
        self.openings[shard] = opening
        records = {slot: record for slot, (record, _) in stored.items()}
        self.send(lambda now_ms: ShardOpened(now_ms=now_ms, shard=shard, opening=opening, records=records))

    def _take(self, command: Commit) -> Taken:
        """The rows and what is stored for all parts; each run's next part begins here."""
        shard = command.shard
        assert shard not in self.under_way, "two commits of a shard at a time"
        self.under_way.add(shard)
        if shard in self.refused:
            parts, taken = self.refused.pop(shard)
            assert parts == command.parts, "a refused commit is tried again as it was"
            return taken
        rows: list[tuple[str, Row]] = []
        stored: Stored = {}
        for part in command.parts:
            taken_rows, tip = self._take_part(part)
            rows += [(part.slot, row) for row in taken_rows]
            stored[part.slot] = (part.record, tip or stored.get(part.slot, (None, None))[1])
        return rows, stored

    def _take_part(self, part: CommitPart) -> tuple[list[Row], Tip | None]:
        if part.run is None:
            return [], None
        worker = self.ended.get((part.slot, part.run))
        if worker is not None and not part.final:
            return [], None  # it died while its checkpoint waited
        ctx = (worker or self.workers[part.slot]).ctx
        if part.dead_letter and ctx.in_hand is not None:
            key: Key = ctx.in_hand.key
            ctx.rows = [Row("dead", (part.slot, key))]
            ctx.tip.places[key[:2]] = key.offset + 1
            self.tips[part.slot] = ctx.tip.copy()
        rows, ctx.rows = ctx.rows, []
        ctx.base, ctx.in_hand = ctx.tip.copy(), None
        return rows, ctx.base

    def _commit(self, command: Commit, taken: Taken) -> Iterator[str]:
        """1. `sending`, while which the writer may be found lost and be opened anew: then this is dropped
        2. `durable`, the point of no return: the engine is about to be told.

        After an outcome that is not known the writer is thrown away, and the records after the next opening tell.
        """
        rows, stored = taken
        shard, number, chance, counts = command.shard, command.commit, self.world.chance, self.world.counts
        opening, epoch = command.opening, self.epochs[shard]

        def lost(reason: str) -> None:
            if self.wanted.get(shard) == opening:
                self.under_way.discard(shard)
            self.send(lambda now_ms: WriterLost(now_ms=now_ms, shard=shard, opening=opening, reason=reason))

        if chance(0.02):
            counts["writer: lost before a commit"] += 1
            lost("the log was away")
        yield "sending, checkpoint" if any(not part.final for part in command.parts) else "sending"
        if self.fault == "a commit outlives its opening":
            epoch = self.epochs[shard]
        elif self.openings.get(shard) != opening:
            return
        if chance(0.04):
            counts["writer: refused"] += 1
            if self.wanted.get(shard) == opening:  # else the shard was closed meanwhile
                self.under_way.discard(shard)
                self.refused[shard] = (command.parts, taken)
            self.send(lambda now_ms: CommitRefused(now_ms=now_ms, shard=shard, commit=number, reason="disk full"))
            return
        unknown = chance(0.05)
        happens = not unknown or self.world.rng.random() < 0.5
        if self.fault == "dead letter committed apart" and any(row.table == "dead" for _, row in rows):
            self.log.commit(shard, self.log.epochs[shard], [item for item in rows if item[1].table == "dead"], {})
            rows = [item for item in rows if item[1].table != "dead"]
            yield "sending"
        apart = stored
        if self.fault == "place outside the transaction":
            stored = {slot: (record, None) for slot, (record, _) in stored.items()}
        if self.fault == "marker after rows":
            rows = sorted(rows, key=lambda item: item[1].value == "marker")
        try:
            if happens:
                self.log.commit(shard, epoch, rows, stored)
            else:
                self.log.check_fence(shard, epoch)
        except Fenced:
            counts["writer: fenced"] += 1
            lost("fenced")
            if self.superseded:
                self.world.die(self)
            return
        if unknown and self.fault != "unknown taken as done":
            counts["writer: unknown, committed" if happens else "writer: unknown, not committed"] += 1
            if self.fault != "commit number ignored":
                lost("unknown")
                return
            self.epochs[shard] = epoch = self.log.open(shard)
            self.log.commit(shard, epoch, rows, stored)
        yield "durable"
        if self.fault == "place outside the transaction":
            self.log.commit(shard, self.log.epochs[shard], [], apart)
        for part in command.parts:
            if part.run is not None and part.final:
                self.ended.pop((part.slot, part.run), None)
            elif part.slot in self.workers and self.workers[part.slot].ctx.start.run == part.run:
                self.workers[part.slot].waits = False
        if self.wanted.get(shard) == opening:
            self.under_way.discard(shard)
        self.send(lambda now_ms: Committed(now_ms=now_ms, shard=shard, commit=number))
