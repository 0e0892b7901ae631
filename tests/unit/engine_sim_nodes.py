"""The simulated nodes: scripts as generators that yield after each step, and what a run of one does to its context."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from engine_sim_log import Key, Rec, Row, SimLog, Tip

from tailrace.engine import Cron, Manual, NodeSpec, Requested, RunOutcome, StartRun

Step: TypeAlias = Literal["step", "checkpoint"]
Script: TypeAlias = Callable[["Context"], Iterator[Step]]

SCHEDULE = "*/30 * * * *"
ASKED = 5


class NodeFailed(Exception):
    """The script raised."""


class NodeKilled(Exception):
    """The script took its worker down with it."""


@dataclass
class Context:
    """One run as its code sees it: a pinned cut, State, places and a buffer of rows."""

    log: SimLog
    spec: NodeSpec
    start: StartRun
    tip: Tip
    began_ms: int
    tries: dict[tuple[str, Key], list[int]]
    now_ms: int = 0
    rows: list[Row] = field(default_factory=list)
    requested: Requested | None = None
    loop_ms: int = 0
    fixed_ms: int = 1
    handed: int = 0
    streamed: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)
    """Tables whose streams were cut short."""
    in_hand: Rec | None = None
    saved: tuple[Tip, int] | None = None
    """Savepoint of a body under `consume_with_rollback`: the tip and how many rows."""
    bodies: int = 0

    def __post_init__(self) -> None:
        self.cut = {table: self.log.ends(table) for table in sorted(self.spec.reads)}
        self.triggers = self.log.triggers.count(self.spec.key)
        self.base = self.tip.copy()
        """What the last commit of this run holds, at first where it began."""

    def read(self, table: str) -> list[Rec]:
        return self.log.records(table, self.cut[table])

    def emit(self, table: str, value: Any, *, quiet: bool = False) -> None:
        self.rows.append(Row(table, value, quiet))

    def stream(self, table: str, *, rollback: bool = False) -> Iterator[Rec]:
        """Rows after the place, up to the cut, the bound and the share; each is consumed as it is handed out."""
        self.streamed.add(table)
        handed = 0
        again = self.again()
        for partition, lane in enumerate(self.log.table(table)):
            place = self.tip.places.get((table, partition), 0)
            for offset in range(place, self.cut[table][partition]):
                rec = lane[offset]
                if rec is None:
                    self.tip.places[table, partition] = offset + 1
                    continue
                if again is not None and again != rec.key:
                    self.left.add(table)
                    break
                if handed >= self.start.rows_max or self.loop_ms >= self.start.share_ms:
                    self.left.add(table)
                    return
                if rollback:
                    self.saved = (self.tip.copy(), len(self.rows))
                self.tip.places[table, partition] = offset + 1
                handed += 1
                self.handed += 1
                self.in_hand = rec
                self.tries.setdefault((self.spec.key, rec.key), []).append(self.now_ms)
                yield rec
                self.in_hand = None
                self.bodies += 1
                self.saved = None

    def again(self) -> Key | None:
        """The record to try again, if it is the next of its partition."""
        for table in self.cut if self.start.again else ():
            for partition, lane in enumerate(self.log.table(table)):
                place = self.base.places.get((table, partition), 0)
                rec = next((rec for rec in lane[place : self.cut[table][partition]] if rec is not None), None)
                if rec is not None and str(rec.key) == self.start.again:
                    return rec.key
        return None

    def behind(self, tip: Tip) -> dict[str, dict[int, int]]:
        """Places of streamed tables that end before the cut."""
        out: dict[str, dict[int, int]] = {}
        for table in self.streamed:
            for partition, end in self.cut[table].items():
                place = tip.places.get((table, partition), 0)
                if any(rec is not None for rec in self.log.table(table)[partition][place:end]):
                    out.setdefault(table, {})[partition] = place
        return out

    def outcome(
        self, kind: Literal["ok", "failed", "died"], *, retry: bool = False, progressed: bool = False
    ) -> RunOutcome:
        """What the worker, or after its death the host, tells."""
        tip = self.tip
        if kind == "died":
            tip = self.base.copy()
            if self.in_hand is not None:
                tip.places[self.in_hand.key[:2]] = self.in_hand.key.offset + 1
        behind = self.behind(tip) if kind != "ok" or self.left else {}
        return RunOutcome(
            kind=kind,
            reason=kind,
            seen={table: {**cut, **behind.get(table, {})} for table, cut in self.cut.items()},
            streamed=frozenset(self.streamed),
            more=bool(behind),
            rows=self.handed,
            duration_ms=self.fixed_ms + self.loop_ms,
            loop_ms=self.loop_ms,
            requested=self.requested,
            retry=retry,
            progressed=progressed,
            # Of several rows the host cannot tell which one killed the worker.
            at=str(self.in_hand.key) if self.in_hand and (kind != "died" or self.start.rows_max == 1) else None,
        )

    def failed(self) -> RunOutcome:
        """The script raised: drop the body in hand and ask for another try, or dead-letter the record."""
        rec = self.in_hand
        if rec is None:
            retry = bool(self.spec.retries) and not self.start.dead_letter_after_failure
            return self.outcome("failed", retry=retry)
        if self.saved is not None:
            saved, rows = self.saved
            self.tip = saved
            del self.rows[rows:]
            progressed = self.bodies > 0
            last = self.start.dead_letter_after_failure and self.start.again in {None, str(rec.key)}
            if progressed or not last:
                return self.outcome("failed", retry=True, progressed=progressed)
            self.tip.places[rec.key[:2]] = rec.key.offset + 1
        self.emit("dead", (self.spec.key, rec.key))
        return self.outcome("failed")


def work(ctx: Context, rec: Rec) -> None:
    """What a row makes a node do: nothing, raise, or die; some only at first."""
    kind, times = rec.value if rec.key.table == "in" else ("ok", 0)
    if kind not in {"raise", "kill"} or len(ctx.tries[ctx.spec.key, rec.key]) > times:
        return
    if kind == "raise":
        raise NodeFailed
    if kind == "kill":
        raise NodeKilled


def copies(
    source: str, target: str, *, rollback: bool = False, checkpoint: bool = False, fragile: bool = True
) -> Script:
    """A stream node: one output a row, and a counter in its State."""

    def script(ctx: Context) -> Iterator[Step]:
        yield "step"
        for rec in ctx.stream(source, rollback=rollback):
            yield "step"
            if fragile:
                work(ctx, rec)
            ctx.tip.state["n"] = ctx.tip.state.get("n", 0) + 1
            ctx.emit(target, ("of", rec.key))
            if checkpoint:
                yield "checkpoint"
        yield "step"

    return script


def joins(ctx: Context) -> Iterator[Step]:
    """Two streams in one run."""
    for table in ("in", "out"):
        for rec in ctx.stream(table):
            yield "step"
            work(ctx, rec)
            ctx.tip.state["n"] = ctx.tip.state.get("n", 0) + 1
            ctx.emit("joined", ("of", rec.key))
    yield "step"


def counts(source: str, target: str) -> Script:
    """A batch node: how many rows its input has."""

    def script(ctx: Context) -> Iterator[Step]:
        yield "step"
        ctx.emit(target, ("count", len(ctx.read(source))))
        yield "step"

    return script


def accumulates(ctx: Context) -> Iterator[Step]:
    """A batch node that reads what it wrote before."""
    yield "step"
    ctx.emit("acc", ("nth", len(ctx.read("acc")) + 1, len(ctx.read("in"))))
    yield "step"


def loops(ctx: Context) -> Iterator[Step]:
    """A stream node that feeds itself."""
    for rec in ctx.stream("loop"):
        yield "step"
        if rec.value[1] > 0:
            ctx.emit("loop", ("depth", rec.value[1] - 1, rec.key))
    yield "step"


def plants(ctx: Context) -> Iterator[Step]:
    """A root node."""
    for number in range(3):
        ctx.emit("seed", ("seed", number))
        yield "step"


def ticks(ctx: Context) -> Iterator[Step]:
    """A scheduled node."""
    ctx.emit("halves", "ticks")
    yield "checkpoint"
    if ctx.start.fire_ms is not None:
        ctx.emit("fires", ("fire", ctx.start.fire_ms, ctx.began_ms))


def answers(ctx: Context) -> Iterator[Step]:
    """A node that runs when triggered."""
    ctx.emit("halves", "answers")
    yield "checkpoint"
    ctx.emit("answers", ("triggers", ctx.triggers))


def asks(ctx: Context) -> Iterator[Step]:
    """A root node that asks for its next run, now and then quietly."""
    yield "step"
    number = ctx.tip.state["n"] = ctx.tip.state.get("n", 0) + 1
    quiet = number % 2 == 0 and number < ASKED
    ctx.emit("asked", ("nth", number), quiet=quiet)
    if number < ASKED:
        ctx.requested = Requested(delay_ms=7_000 if number == 2 else 0, trigger_downstream=not quiet)


def snaps(ctx: Context) -> Iterator[Step]:
    """A batch node that replaces a table: a marker begins the version, its rows follow."""
    yield "step"
    ctx.emit("snap", "marker")
    for rec in ctx.read("in"):
        ctx.emit("snap", ("of", rec.key))


def checks(ctx: Context) -> Iterator[Step]:
    """Reads the active version of that table."""
    yield "step"
    values = [rec.value for rec in ctx.read("snap")]
    start = max((n for n, value in enumerate(values) if value == "marker"), default=-1)
    ctx.emit("checked", ("count", len(values) - start - 1))


def fails(ctx: Context) -> Iterator[Step]:
    """A batch node with retries whose first two runs raise."""
    yield "step"
    tries = ctx.tries.setdefault((ctx.spec.key, Key("", 0, 0)), [])
    tries.append(ctx.now_ms)
    if len(tries) <= 2:
        raise NodeFailed
    ctx.emit("failed", ("count", len(ctx.read("in"))))


def breaks(ctx: Context) -> Iterator[Step]:
    """A batch node whose first runs raise, and that nobody tries again."""
    yield "step"
    seen = ctx.tries.setdefault((ctx.spec.key, Key("", 0, 0)), [])
    seen.append(len(ctx.read("in")))
    if len(seen) <= 7:
        raise NodeFailed
    ctx.emit("broken", ("count", seen[-1]))


@dataclass(frozen=True)
class SimNode:
    spec: NodeSpec
    script: Script
    streams: tuple[str, ...] = ()
    target: str = ""


def _node(key: str, script: Script, reads: str = "", writes: str = "", streams: str = "", **spec: Any) -> SimNode:
    reading = frozenset((reads + " " + streams).split())
    return SimNode(
        NodeSpec(key=key, reads=reading, writes=frozenset(writes.split()), **spec),
        script,
        tuple(streams.split()),
        writes.split(maxsplit=1)[0],
    )


NODES: dict[str, SimNode] = {
    node.spec.key: node
    for node in [
        _node("plain", copies("in", "out"), streams="in", writes="out"),
        _node("rollback", copies("in", "kept", rollback=True), streams="in", writes="kept"),
        _node("checkpoints", copies("in", "saved", checkpoint=True), streams="in", writes="saved"),
        _node("chain", copies("out", "out2", fragile=False), streams="out", writes="out2"),
        _node("planted", copies("seed", "grown", fragile=False), streams="seed", writes="grown"),
        _node("joins", joins, streams="in out", writes="joined"),
        _node("counts", counts("out", "counted"), reads="out", writes="counted"),
        _node("recounts", counts("counted", "recounted"), reads="counted", writes="recounted"),
        _node("accumulates", accumulates, reads="in acc", writes="acc"),
        _node("loops", loops, streams="loop", writes="loop"),
        _node("plants", plants, writes="seed", is_root=True),
        _node("ticks", ticks, writes="fires", is_root=True, trigger=Cron(SCHEDULE)),
        _node("answers", answers, writes="answers", trigger=Manual()),
        _node("asks", asks, writes="asked", is_root=True),
        _node("listens", counts("asked", "heard"), reads="asked", writes="heard"),
        _node("snaps", snaps, reads="in", writes="snap"),
        _node("checks", checks, reads="snap", writes="checked"),
        _node("breaks", breaks, reads="in", writes="broken"),
        _node("halts", copies("in", "halted", rollback=True), streams="in", writes="halted", retries=1, stops=True),
        _node("fails", fails, reads="in", writes="failed", retries=6),
    ]
}


def respec(node: SimNode, version: int) -> SimNode:
    """The same node, changed."""
    return replace(node, spec=replace(node.spec, version=str(version)))
