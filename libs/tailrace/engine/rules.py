"""The rules of firing and failing: is this slot due, and what does it remember after a run.

Functions of values; `Engine` holds the values and applies them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tailrace.engine.limits import EngineLimits
from tailrace.engine.model import Cron, NodeSpec, Reactive, Reason, RunOutcome, SlotRecord
from tailrace.engine.schedule import next_fire_ms

__all__ = ["Due", "Going", "after_run", "at_checkpoint", "has_news", "is_due", "tries_max", "with_schedule"]

Last = Mapping[str, Mapping[int, int]]
"""Of one table: slot that wrote to partition to the offset of its last record that fires."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Why a slot should run now; without reasons, when to ask again (None: when something happens)."""

    reasons: tuple[Reason, ...] = ()
    at_ms: int | None = None


@dataclass(slots=True, kw_only=True)
class Going:
    """A run that is going on, and what it takes on with it."""

    run: int
    reasons: tuple[Reason, ...]
    rows_max: int
    share_ms: int
    version: str
    trigger_offset: int
    """Next offset after the triggers that it answers."""
    fire_ms: int | None = None
    wake_ms: int | None = None
    """The request that it answers."""
    counts: bool = True
    """Its failure counts as a try; not so for one that a person started before its time."""
    again: str | None = None
    """The record that it tries again."""
    fresh: bool = True
    """It is the first try, or the first one of this version."""
    last_try: bool = False
    pauses_ms: tuple[int, ...] = ()
    """Before the next tries."""
    stops: bool = False
    """What is given up is kept, and the slot stands still at it."""
    writes: frozenset[str] = frozenset()
    """Tables that the node writes."""
    checkpointed: bool = False
    """Part of it is in a transaction already."""


def has_news(slot: str, record: SlotRecord, table: str, last: Last) -> bool:
    """Whether `table` holds a record that should fire `slot`: at or after its cut, and not its own.

    Its own count where it streams the table, so that a node can feed itself; where it reads the table whole they do
    not, or it would never rest.
    """
    seen = record.seen.get(table, {})
    for writer, offsets in last.items():
        if writer == slot and table not in record.streamed:
            continue
        for partition, offset in offsets.items():
            if offset >= seen.get(partition, 0):
                return True
    return False


def is_due(
    spec: NodeSpec,
    record: SlotRecord,
    now_ms: int,
    *,
    news: bool,
    triggered: bool,
    rest_until_ms: int,
    fire_ms: int | None,
) -> Due:
    """Whether the slot of `spec` should run at `now_ms`.

    `news` and `triggered` tell whether there is any, `rest_until_ms` until when news has to wait, and `fire_ms` the first
    fire that is not done with. While something is being tried again nothing but a person's trigger or a new
    version of the node comes before its time; what else has come up meanwhile goes along with that try. So it is while
    the circuit breaker is open: what is due stays due, and starts the run that is let through when its time has come.
    """
    reasons: list[Reason] = ["trigger"] if triggered else []
    later: list[int] = []
    shut_ms = 0 if record.shut_ms is None or triggered or spec.version != record.tried else record.shut_ms

    def at(ms: int, reason: Reason) -> None:
        if max(ms, shut_ms) <= now_ms:
            reasons.append(reason)
        else:
            later.append(max(ms, shut_ms))

    if record.tries:
        if spec.version != record.tried:
            reasons.append("retry")
        elif record.retry_ms is not None:
            at(record.retry_ms, "retry")
    else:
        if record.more:
            at(now_ms, "more")
        if record.wake_ms is not None:
            at(record.wake_ms, "request")
        match spec.trigger:
            case Reactive():
                if spec.is_root and not record.ran:
                    reasons.append("deploy")
                if news:
                    at(rest_until_ms, "news")
            case Cron() if fire_ms is not None:
                at(fire_ms, "schedule")
    return Due(reasons=tuple(reasons), at_ms=None if reasons else min(later, default=None))


def tries_max(spec: NodeSpec, limits: EngineLimits) -> int:
    """How many tries what fails gets in all."""
    if spec.retries is not None:
        return spec.retries + 1
    return len(spec.pauses_ms) + 1 if spec.pauses_ms else limits.tries_max


def with_schedule(record: SlotRecord, spec: NodeSpec | None, now_ms: int) -> SlotRecord:
    """`record` under the schedule of `spec` (None: the node is gone); the same object where nothing changes.

    A schedule that is new begins now: its earlier fires were never promised. Saved before its first fire, so
    that a fire which nobody was up for is known to be missing.
    """
    text = spec.trigger.text if spec is not None and isinstance(spec.trigger, Cron) else None
    if text == record.schedule:
        return record
    return replace(record, schedule=text, fired_ms=0 if text is None else now_ms, open_fire_ms=None)


def first_fire_ms(record: SlotRecord) -> int | None:
    """The first fire that is not done with, if the slot has a schedule."""
    return None if record.schedule is None else next_fire_ms(record.schedule, record.fired_ms)


def _answered(record: SlotRecord, going: Going, *, owes: bool) -> SlotRecord:
    """`record` with what the run took on marked as answered; its triggers not where it `owes` something of them. Whoever
    calls this sees to it that the run goes on."""
    fired_ms = record.fired_ms
    if going.fire_ms is not None and record.schedule is not None:
        fired_ms = max(fired_ms, going.fire_ms)
    return replace(
        record,
        run=going.run,
        ran=True,
        wake_ms=None if record.wake_ms == going.wake_ms else record.wake_ms,
        fired_ms=fired_ms,
        # Not so where the schedule was changed meanwhile: then that fire is none of it.
        open_fire_ms=going.fire_ms if going.fire_ms == fired_ms else None,
        trigger_offset=record.trigger_offset if owes else max(record.trigger_offset, going.trigger_offset),
    )


def at_checkpoint(record: SlotRecord, going: Going, *, owes: bool = False) -> SlotRecord:
    """What the slot remembers once part of a run is committed: whatever dies then, the run goes on.

    Fire, trigger and request are answered by what follows, and do not bring a run of their own; news stays due until the
    end tells what was read. What failed before is behind it, but for failures of a node that feeds itself.
    """
    after = replace(_answered(record, going, owes=owes), more=True, tries=0, retry_ms=None, again=None)
    if record.failures and _feeds_itself(going, record.streamed):
        return after
    return replace(after, tried="", failures=0, shut_ms=None)


def after_run(
    record: SlotRecord, going: Going, outcome: RunOutcome, now_ms: int, limits: EngineLimits
) -> tuple[SlotRecord, bool]:
    """What the slot remembers after a run, and whether the host must write the dead letter of one that died.

    A run that is to be tried again keeps `seen`, so that what it read stays due. Any other end advances it: what a
    failed run did counts, and what it left waits for the next news, or goes on at once where rows are left.

    A failed run that consumed a record goes on in any case: it may not have come to its other streams. That ends,
    because each time there is a record less (where the node writes them itself, the breaker sees to a pause); one that
    failed before it read anything would fail for ever.

    Where what is given up is kept, the slot stands still: it is due again when it is triggered, or in another version.
    """
    after = _answered(record, going, owes=outcome.owes)
    streamed = outcome.streamed if outcome.kind == "ok" else record.streamed | outcome.streamed
    wake_ms = after.wake_ms
    if outcome.requested is not None:
        # Of two requests the earlier one counts: the run that it brings can ask again.
        wanted_ms = now_ms + outcome.requested.delay_ms
        wake_ms = wanted_ms if wake_ms is None else min(wake_ms, wanted_ms)
    after = replace(after, streamed=streamed, wake_ms=wake_ms)
    progressed = outcome.progressed or going.checkpointed
    other = progressed or outcome.at != going.again
    once_more = (outcome.kind == "died" or outcome.retry) and (other or not going.last_try or going.stops)
    given_up = outcome.kind == "died" and not once_more and outcome.at is not None
    kept = progressed or given_up or (outcome.rows > 0 and not outcome.retry)
    kept = kept and not _feeds_itself(going, streamed)
    after = _with_breaker(after, going, outcome, now_ms, limits, kept=kept)
    if once_more:
        if not (going.counts or other):
            return replace(after, tried=record.tried), False
        tries = 1 if going.fresh or other else record.tries + 1
        retry_ms = None
        if other or not going.last_try:
            retry_ms = now_ms + going.pauses_ms[min(tries, len(going.pauses_ms)) - 1]
        return replace(after, tries=tries, retry_ms=retry_ms, again=outcome.at, tried=going.version), False
    after = replace(
        after,
        seen={**record.seen, **outcome.seen},
        more=outcome.more or (outcome.kind != "ok" and (outcome.rows > 0 or outcome.progressed)),
        open_fire_ms=None,
        tries=0,
        retry_ms=None,
        again=None,
    )
    return after, outcome.kind == "died"


def _feeds_itself(going: Going, streamed: frozenset[str]) -> bool:
    """Whether a record that was consumed need be no step towards an end: the node may have written it itself."""
    return not going.writes.isdisjoint(streamed)


def _with_breaker(
    record: SlotRecord, going: Going, outcome: RunOutcome, now_ms: int, limits: EngineLimits, *, kept: bool
) -> SlotRecord:
    """`record` with the failures in a row that got nowhere, and until when nothing runs because of them. `kept` tells
    whether this run got somewhere.

    A record that was consumed is progress, by way of the dead letters, too: else a sender of bad records could hold up
    the good ones behind them. Not so of a Table that the node writes itself: it could fail for ever at its own. A
    person's trigger and another version of the node begin to count anew.
    """
    if outcome.kind == "ok":
        return replace(record, failures=0, shut_ms=None, tried="", error="")
    anew = "trigger" in going.reasons or going.version != record.tried
    failures = 0 if kept else 1 if anew else record.failures + 1
    open_ms = limits.breaker_ms(failures)
    return replace(
        record,
        failures=failures,
        shut_ms=None if open_ms is None else now_ms + open_ms,
        tried=going.version if failures else "",
        error=(outcome.reason or outcome.kind)[: limits.error_characters_max],
    )
