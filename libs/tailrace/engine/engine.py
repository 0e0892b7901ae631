"""The engine: state and event in, commands out.

What it holds is a cache of what the log says (records, news, triggers) and of what the host is doing (runs, commits).
A record counts from the moment its part is in the queue, so the next run can build upon it; if the writer is lost, all
of that is dropped together and the records that come with the next opening count instead.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from tailrace.engine.limits import EngineLimits
from tailrace.engine.model import (
    CheckpointWanted,
    CloseShard,
    Command,
    Commit,
    CommitPart,
    CommitRefused,
    Committed,
    Cron,
    Deploy,
    Discard,
    Drain,
    Event,
    News,
    NodeSpec,
    OpenShard,
    Own,
    RunEnded,
    ShardOpened,
    SlotRecord,
    SlotsFound,
    StartRun,
    Tick,
    Triggered,
    WakeAt,
    WriterLost,
    shard_of,
)
from tailrace.engine.pace import Pace
from tailrace.engine.rules import (
    Due,
    Going,
    after_run,
    at_checkpoint,
    first_fire_ms,
    has_news,
    is_due,
    tries_max,
    with_schedule,
)
from tailrace.engine.schedule import check_schedule, last_fire_ms
from tailrace.engine.standing import Standing, standing_of

__all__ = ["Engine"]


@dataclass(slots=True, kw_only=True)
class _Slot:
    key: str
    shard: int
    spec: NodeSpec | None = None
    record: SlotRecord | None = None
    """The newest one, committed or on its way; None until the shard is open."""
    pace: Pace | None = None
    going: Going | None = None
    ended: list[int] = field(default_factory=list)
    """Runs that have ended and are not committed, in order."""
    holds: bool = False
    """Nothing starts before they are: where the next run begins is settled only by their commit."""
    last_run: int = 0
    last_trigger: int = -1
    triggers: int = 0
    """Triggers since the last run began."""
    pieces: int = 0
    """Pieces of news since the last run began."""
    rest_until_ms: int = 0
    fire_ms: int | None = None
    """The first fire that is not done with."""
    due_since_ms: int | None = None
    """Stands in the ready heap under this time."""
    ask_at_ms: int | None = None
    """Stands in the timer heap under this time."""


@dataclass(slots=True, kw_only=True)
class _Shard:
    number: int
    owned: bool = False
    """It is this host's."""
    opening: int = 0
    """Number of the last opening; 0: never opened."""
    stands: Literal["closed", "opening", "open"] = "closed"
    queue: deque[CommitPart] = field(default_factory=deque)
    under_way: Commit | None = None
    refused: Commit | None = None
    """Waits until `next_ms` to be tried again."""
    refusals: int = 0
    losses: int = 0
    """Openings in a row that led to no commit."""
    next_ms: int | None = None
    """When to try the refused commit again, or to open again."""


class Engine:
    """Decides which node runs when, what is committed together, and what happens after each failure.

    `handle` takes one event and returns the commands to carry out, in order. It never raises for what comes from
    outside in a legal order; events that come too late change nothing, nor do those that come twice
    (`CheckpointWanted` must not). Nothing runs before it is told which shards it owns.

    Args:
        shards: how many the slots are spread over; never changes over a log's life.
        pipeline: let a slot's next run start while its last one is still being committed. Only for nodes that
            stream and read none of the tables they write: their next run must see what the last one wrote.
    """

    def __init__(self, *, shards: int = 4, limits: EngineLimits | None = None, pipeline: bool = True) -> None:
        self._limits = limits or EngineLimits()
        self._pipeline = pipeline
        self._slots: dict[str, _Slot] = {}
        self._shards = [_Shard(number=number) for number in range(shards)]
        self._readers: dict[str, list[_Slot]] = {}
        self._news: dict[str, dict[str, dict[int, int]]] = {}
        self._ready: list[tuple[int, int, str]] = []
        self._timers: list[tuple[int, str]] = []
        self._running = 0
        self._commits = 0
        self._turn = 0
        self._draining = False
        self._told_wake_ms: int | None = None
        self._out: list[Command] = []
        self._now_ms = 0

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits to be committed; a drained engine that is not busy has nothing to lose."""
        return self._running > 0 or any(shard.queue or shard.under_way or shard.refused for shard in self._shards)

    def record(self, slot: str) -> SlotRecord | None:
        """The slot's newest record, which may still be on its way into the log; None while its shard is not open."""
        known = self._slots.get(slot)
        return known.record if known else None

    def due(self, slot: str, now_ms: int) -> Due:
        """Why `slot` should run now, or when to ask again. One that is running may be due for what it is reading."""
        known = self._slots.get(slot)
        return self._due(known, now_ms) if known else Due()

    def standing(self, slot: str, now_ms: int) -> Standing:
        """How `slot` stands."""
        known = self._slots.get(slot)
        running = known is not None and known.going is not None
        return standing_of(self.record(slot), self.due(slot, now_ms), now_ms, running=running)

    def behind(self, slot: str) -> frozenset[str]:
        """Tables that hold a record which `slot` has not seen, and which fires it."""
        known = self._slots.get(slot)
        if known is None or known.spec is None or known.record is None:
            return frozenset()
        record = known.record
        return frozenset(t for t in known.spec.reads if has_news(slot, record, t, self._news.get(t, {})))

    def handle(self, event: Event) -> list[Command]:
        """Take in what has happened; return what to do, in this order.

        Raises:
            BadScheduleError: rejected; a deployed schedule cannot be used. The whole deployment is left out.
        """
        self._now_ms = event.now_ms
        match event:
            case Deploy():
                self._deploy(event)
            case Own():
                self._own(event)
            case News():
                self._take_news(event)
            case RunEnded():
                self._run_ended(event)
            case Committed():
                self._committed(event)
            case Triggered():
                self._triggered(event)
            case CheckpointWanted():
                self._checkpoint(event)
            case ShardOpened():
                self._shard_opened(event)
            case SlotsFound():
                self._slots_found(event)
            case CommitRefused():
                self._commit_refused(event)
            case WriterLost():
                self._writer_lost(event)
            case Drain():
                self._draining = True
            case Tick():
                self._told_wake_ms = None  # its timer is spent: say the next time again, even if it is the same
        self._ripen()
        self._start_runs()
        for shard in self._shards:
            self._commit(shard)
        self._tell_wake()
        out, self._out = self._out, []
        return out

    # What has happened

    def _deploy(self, event: Deploy) -> None:
        for spec in event.specs:
            if isinstance(spec.trigger, Cron):
                check_schedule(spec.trigger.text)
        specs = {spec.key: spec for spec in event.specs}
        assert len(specs) == len(event.specs), "two nodes of one deployment have the same key"
        for slot in self._slots.values():
            slot.spec = specs.get(slot.key)
        for key, spec in specs.items():
            self._slot(key).spec = spec
        self._readers = {}
        for spec in event.specs:
            for table in spec.reads:
                self._readers.setdefault(table, []).append(self._slots[spec.key])
        self._open_needed()
        for slot in self._slots.values():
            self._set_schedule(slot)
            self._look(slot)

    def _own(self, event: Own) -> None:
        for shard in self._shards:
            if shard.owned and shard.number not in event.shards:
                if shard.stands != "closed":
                    self._out.append(CloseShard(shard=shard.number))
                self._drop(shard, "its shard is another host's now")
                shard.losses = shard.refusals = 0
                shard.owned = False
            elif not shard.owned and shard.number in event.shards:
                shard.owned = True
                for slot in self._slots.values():
                    if slot.shard == shard.number:
                        slot.pieces = slot.triggers = 0
        self._open_needed()

    def _take_news(self, event: News) -> None:
        writers = self._news.setdefault(event.table, {})
        raised: dict[str, int] = {}
        for writer, offsets in event.last.items():
            known = writers.setdefault(writer, {})
            for partition, offset in offsets.items():
                if offset > known.get(partition, -1):
                    known[partition] = offset
                    raised[writer] = raised.get(writer, 0) + 1
        if not raised:
            return
        for slot in self._readers.get(event.table, ()):
            if not self._shards[slot.shard].owned:
                continue
            own = slot.record is not None and event.table not in slot.record.streamed
            if any(writer != slot.key or not own for writer in raised):
                slot.pieces += 1
                self._look(slot)

    def _triggered(self, event: Triggered) -> None:
        slot = self._slot(event.slot)
        if event.offset > slot.last_trigger:
            slot.last_trigger = event.offset
            if self._shards[slot.shard].owned:
                slot.triggers += 1
                self._look(slot)

    def _shard_opened(self, event: ShardOpened) -> None:
        shard = self._shards[event.shard]
        if shard.stands != "opening" or event.opening != shard.opening:
            return
        shard.stands = "open"
        for key in event.records:
            self._slot(key)
        for slot in self._slots.values():
            if slot.shard == shard.number:
                slot.record = event.records.get(slot.key, SlotRecord())
                slot.pace = Pace.first(self._limits, tries=slot.record.tries)
                self._set_schedule(slot)
                self._look(slot)

    def _slots_found(self, event: SlotsFound) -> None:
        for key, record in event.records.items():
            slot = self._slot(key)
            at_rest = slot.spec is None and slot.going is None and not slot.ended
            if self._shards[slot.shard].stands == "open" and at_rest:
                slot.record = record
                slot.pace = Pace.first(self._limits, tries=record.tries)

    def _run_ended(self, event: RunEnded) -> None:
        slot = self._slots.get(event.slot)
        if slot is None or slot.going is None or slot.going.run != event.run:
            return  # discarded meanwhile
        going, outcome, shard = slot.going, event.outcome, self._shards[slot.shard]
        assert slot.record is not None and slot.pace is not None and shard.stands == "open"
        slot.going = None
        self._running -= 1
        slot.pace.learn(outcome, self._limits, rows_max=going.rows_max, share_ms=going.share_ms)
        slot.rest_until_ms = 0 if outcome.streamed else event.now_ms + outcome.duration_ms
        slot.record, dead_letter = after_run(slot.record, going, outcome, event.now_ms, self._limits)
        # A checkpoint that still waits goes along with the end: after a death the host has dropped what it had.
        for part in [part for part in shard.queue if (part.slot, part.run) == (slot.key, going.run)]:
            shard.queue.remove(part)
        part = CommitPart(slot=slot.key, run=going.run, final=True, record=slot.record, dead_letter=dead_letter)
        shard.queue.append(part)
        slot.ended.append(going.run)
        slot.holds = dead_letter
        self._set_schedule(slot)
        self._look(slot)

    def _checkpoint(self, event: CheckpointWanted) -> None:
        slot = self._slots.get(event.slot)
        if slot is None or slot.going is None or slot.going.run != event.run:
            return
        assert slot.record is not None
        shard = self._shards[slot.shard]
        if any((part.slot, part.run) == (slot.key, event.run) for part in shard.queue):
            return
        slot.record = at_checkpoint(slot.record, slot.going, owes=event.owes)
        shard.queue.append(CommitPart(slot=slot.key, run=event.run, final=False, record=slot.record))

    def _committed(self, event: Committed) -> None:
        shard = self._shards[event.shard]
        if shard.under_way is None or shard.under_way.commit != event.commit:
            return
        parts, shard.under_way = shard.under_way.parts, None
        shard.losses = shard.refusals = 0
        for part in parts:
            if part.final:
                slot = self._slots[part.slot]
                slot.ended = [run for run in slot.ended if run != part.run]
                self._look(slot)

    def _commit_refused(self, event: CommitRefused) -> None:
        shard = self._shards[event.shard]
        if shard.under_way is None or shard.under_way.commit != event.commit:
            return
        shard.refused, shard.under_way = shard.under_way, None
        shard.refusals += 1
        shard.next_ms = event.now_ms + self._limits.pause_ms(self._limits.commit_pause_ms, shard.refusals)

    def _writer_lost(self, event: WriterLost) -> None:
        shard = self._shards[event.shard]
        if shard.stands == "closed" or event.opening != shard.opening:
            return
        self._drop(shard, event.reason)
        shard.losses += 1
        if self._draining:
            return
        if shard.losses == 1:
            self._open(shard)
        else:
            pause_ms = self._limits.pause_ms(self._limits.open_pause_ms, shard.losses - 1)
            shard.next_ms = event.now_ms + pause_ms

    # What is due

    def _due(self, slot: _Slot, now_ms: int) -> Due:
        if slot.spec is None or slot.record is None:
            return Due()
        return is_due(
            slot.spec,
            slot.record,
            now_ms,
            news=any(has_news(slot.key, slot.record, table, self._news.get(table, {})) for table in slot.spec.reads),
            triggered=slot.last_trigger >= slot.record.trigger_offset,
            rest_until_ms=slot.rest_until_ms,
            fire_ms=slot.fire_ms,
        )

    def _may_start(self, slot: _Slot) -> bool:
        if slot.going is not None or slot.record is None or slot.spec is None:
            return False
        if not slot.ended:
            return True
        pipelined = self._pipeline and slot.record.streamed and not slot.spec.reads & slot.spec.writes
        return bool(pipelined) and not slot.holds and len(slot.ended) == 1

    def _look(self, slot: _Slot) -> None:
        """Put the slot where it belongs now: among the ready, among those that wait for a time, or nowhere."""
        slot.ask_at_ms = None
        if not self._may_start(slot):
            slot.due_since_ms = None
            return
        due = self._due(slot, self._now_ms)
        if not due.reasons:
            slot.due_since_ms = None
            if due.at_ms is not None:
                slot.ask_at_ms = due.at_ms
                heapq.heappush(self._timers, (due.at_ms, slot.key))
        elif slot.due_since_ms is None:
            slot.due_since_ms = self._now_ms
            self._turn += 1
            heapq.heappush(self._ready, (self._now_ms, self._turn, slot.key))

    def _ripen(self) -> None:
        """Look at every slot and shard whose time has come."""
        while self._timers and self._timers[0][0] <= self._now_ms:
            at_ms, key = heapq.heappop(self._timers)
            if self._slots[key].ask_at_ms == at_ms:
                self._look(self._slots[key])
        for shard in self._shards:
            if shard.next_ms is not None and shard.next_ms <= self._now_ms:
                shard.next_ms = None
                if shard.stands == "closed" and not self._draining:
                    self._open(shard)

    def _start_runs(self) -> None:
        """Start what is due, the longest waiting first, as far as there is room."""
        while self._ready and self._running < self._limits.runs_max and not self._draining:
            since_ms, _, key = heapq.heappop(self._ready)
            slot = self._slots[key]
            if slot.due_since_ms != since_ms:
                continue
            slot.due_since_ms = None
            due = self._due(slot, self._now_ms) if self._may_start(slot) else Due()
            if due.reasons:
                self._start(slot, due)

    def _start(self, slot: _Slot, due: Due) -> None:
        spec, record, pace, now_ms = slot.spec, slot.record, slot.pace, self._now_ms
        assert spec is not None and record is not None and pace is not None
        slot.last_run = max(slot.last_run + 1, record.run + 1, now_ms)
        fresh = record.tries == 0 or spec.version != record.tried
        counts = fresh or (record.retry_ms or 0) <= now_ms
        try_number = 1 if fresh else record.tries + 1
        fire_ms = record.open_fire_ms
        if record.schedule is not None and slot.fire_ms is not None and slot.fire_ms <= now_ms:
            fire_ms = max(slot.fire_ms, last_fire_ms(record.schedule, now_ms))
        going = Going(
            run=slot.last_run,
            reasons=due.reasons,
            # One row while something fails: then the row in hand is the one that fails, also for a worker that died.
            rows_max=1 if record.tries else pace.rows_max,
            share_ms=pace.share_ms(self._limits),
            version=spec.version,
            trigger_offset=slot.last_trigger + 1,
            fire_ms=fire_ms,
            wake_ms=record.wake_ms if record.wake_ms is not None and record.wake_ms <= now_ms else None,
            counts=counts,
            again=record.again,
            fresh=fresh,
            last_try=counts and try_number >= tries_max(spec, self._limits),
            pauses_ms=spec.pauses_ms or self._limits.retry_pauses_ms,
            stops=spec.stops,
            writes=spec.writes,
        )
        slot.going = going
        self._running += 1
        # News that came before the shard was opened again was counted for a run that is lost.
        pieces = max(slot.pieces, 1) if "news" in due.reasons else slot.pieces
        self._out.append(
            StartRun(
                slot=slot.key,
                run=going.run,
                reasons=going.reasons,
                rows_max=going.rows_max,
                share_ms=going.share_ms,
                try_number=try_number,
                again=record.again,
                dead_letter_after_failure=going.last_try and not spec.stops,
                covers=pieces + slot.triggers + (1 if "schedule" in due.reasons else 0),
                fire_ms=fire_ms,
                trigger=slot.last_trigger if "trigger" in due.reasons else None,
            )
        )
        slot.pieces = slot.triggers = 0

    # Shards

    def _slot(self, key: str) -> _Slot:
        if key not in self._slots:
            shard = shard_of(key, len(self._shards))
            # On an open shard the record is known: there is none.
            record = SlotRecord() if self._shards[shard].stands == "open" else None
            pace = None if record is None else Pace.first(self._limits, tries=0)
            self._slots[key] = _Slot(key=key, shard=shard, record=record, pace=pace)
        return self._slots[key]

    def _set_schedule(self, slot: _Slot) -> None:
        """Bring the record in line with the node's schedule, and save it if that changes it."""
        if slot.record is None:
            return
        record = with_schedule(slot.record, slot.spec, self._now_ms)
        if record is not slot.record:
            slot.record = record
            self._shards[slot.shard].queue.append(CommitPart(slot=slot.key, run=None, final=False, record=record))
        slot.fire_ms = first_fire_ms(record)

    def _open_needed(self) -> None:
        """Open the shards of ours that have something to do and were never opened, or were another's."""
        for slot in self._slots.values():
            shard = self._shards[slot.shard]
            needed = slot.spec is not None and shard.owned and not self._draining
            if needed and shard.stands == "closed" and shard.losses == 0:
                self._open(shard)

    def _drop(self, shard: _Shard, reason: str) -> None:
        """Its writer is not ours any more: forget all that came after the last commit, and that one, too."""
        shard.stands, shard.next_ms = "closed", None
        shard.queue.clear()
        shard.under_way = shard.refused = None
        for slot in self._slots.values():
            if slot.shard != shard.number:
                continue
            for run in slot.ended:
                self._out.append(Discard(slot=slot.key, run=run, reason=reason))
            if slot.going is not None:
                self._out.append(Discard(slot=slot.key, run=slot.going.run, reason=reason))
                self._running -= 1
            slot.ended, slot.going, slot.record = [], None, None
            slot.due_since_ms = slot.ask_at_ms = None

    def _open(self, shard: _Shard) -> None:
        shard.opening += 1
        shard.stands = "opening"
        self._out.append(OpenShard(shard=shard.number, opening=shard.opening))

    def _commit(self, shard: _Shard) -> None:
        """Commit what waits, together, unless a commit is under way or pausing."""
        if shard.stands != "open" or shard.under_way is not None or shard.next_ms is not None:
            return
        if shard.refused is not None:
            parts, shard.refused = shard.refused.parts, None
        elif shard.queue:
            parts = tuple(shard.queue.popleft() for _ in range(min(len(shard.queue), self._limits.commit_parts_max)))
            for part in parts:
                going = self._slots[part.slot].going
                if going is not None and going.run == part.run:
                    going.checkpointed = True
        else:
            return
        self._commits += 1
        shard.under_way = Commit(shard=shard.number, opening=shard.opening, commit=self._commits, parts=parts)
        self._out.append(shard.under_way)

    def _tell_wake(self) -> None:
        while self._timers and self._slots[self._timers[0][1]].ask_at_ms != self._timers[0][0]:
            heapq.heappop(self._timers)
        times = [shard.next_ms for shard in self._shards if shard.next_ms is not None]
        if self._timers:
            times.append(self._timers[0][0])
        wake_ms = min(times, default=None)
        if wake_ms != self._told_wake_ms:
            self._told_wake_ms = wake_ms
            self._out.append(WakeAt(at_ms=wake_ms))
