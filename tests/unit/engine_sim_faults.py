"""Mistakes planted in the engine: each changes one line's worth of it, and the simulator must find each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import tailrace.engine.engine as inside
from tailrace.engine import (
    CommitRefused,
    Committed,
    News,
    Own,
    RunEnded,
    RunOutcome,
    ShardOpened,
    SlotRecord,
    WriterLost,
    rules,
)
from tailrace.engine.rules import after_run, at_checkpoint, has_news

Plant = Callable[[pytest.MonkeyPatch], None]

ENGINE_FAULTS: dict[str, Plant] = {}

FOCUS = {
    "other record counted as the same": "plain rollback",
    "stale opening taken": "plain",
    "older news replaces newer": "counts plain",
    "checkpoint ends the run": "answers ticks",
    "checkpoint answers nothing": "answers ticks",
    "open fire forgotten": "ticks",
    "what should stand still is given up": "halts",
    "nothing is due while the breaker is open": "breaks plain",
}
"""Apps in which a mistake that seldom matters comes up sooner: only so that the tests take seconds."""


def fault(name: str) -> Callable[[Plant], Plant]:
    def register(plant: Plant) -> Plant:
        ENGINE_FAULTS[name] = plant
        return plant

    return register


def _after(change: Callable[[SlotRecord, SlotRecord], SlotRecord]) -> Plant:
    """Change the record after a run: gets the one before and the one after."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        def faulty(record: SlotRecord, *args: Any) -> tuple[SlotRecord, bool]:
            after, dead_letter = after_run(record, *args)
            return change(record, after), dead_letter

        patch.setattr(inside, "after_run", faulty)

    return plant


ENGINE_FAULTS |= {
    "seen not advanced": _after(lambda before, after: replace(after, seen=before.seen)),
    "root's run forgotten": _after(lambda before, after: replace(after, ran=False)),
    "trigger not handled": _after(lambda before, after: replace(after, trigger_offset=before.trigger_offset)),
    "request forgotten": _after(lambda before, after: replace(after, wake_ms=None)),
    "tries not counted": _after(lambda before, after: replace(after, tries=min(after.tries, 1))),
    "no pause before a retry": _after(lambda before, after: replace(after, retry_ms=0 if after.tries else None)),
    "failure taken for success": _after(lambda before, after: replace(after, tries=0, retry_ms=None, more=False)),
    "open fire forgotten": _after(lambda before, after: replace(after, open_fire_ms=None)),
    "own rows of a stream forgotten": _after(lambda before, after: replace(after, streamed=frozenset())),
}


@fault("fire not committed")
def _(patch: pytest.MonkeyPatch) -> None:
    right = rules._answered
    patch.setattr(rules, "_answered", lambda record, going: replace(right(record, going), fired_ms=record.fired_ms))


@fault("own writes fire a batch node")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inside, "has_news", lambda slot, *args: has_news("nobody", *args))


@fault("other record counted as the same")
def _(patch: pytest.MonkeyPatch) -> None:
    def faulty(record: SlotRecord, going: Any, outcome: RunOutcome, *args: Any) -> tuple[SlotRecord, bool]:
        return after_run(record, going, replace(outcome, at=going.again), *args)

    patch.setattr(inside, "after_run", faulty)


@fault("wake-up lost when news arrives during a run")
def _(patch: pytest.MonkeyPatch) -> None:
    right = inside.Engine._run_ended

    def faulty(self: inside.Engine, event: RunEnded) -> None:
        seen: dict[str, dict[int, int]] = {table: dict(cut) for table, cut in event.outcome.seen.items()}
        for table, cut in seen.items():
            for offsets in self._news.get(table, {}).values():
                for partition, offset in offsets.items():
                    cut[partition] = max(cut.get(partition, 0), offset + 1)
        right(self, replace(event, outcome=replace(event.outcome, seen=seen)))

    patch.setattr(inside.Engine, "_run_ended", faulty)


@fault("older news replaces newer")
def _(patch: pytest.MonkeyPatch) -> None:
    right = inside.Engine._take_news

    def faulty(self: inside.Engine, event: News) -> None:
        self._news.get(event.table, {}).clear()
        right(self, event)

    patch.setattr(inside.Engine, "_take_news", faulty)


@fault("two runs of a slot at a time")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inside.Engine, "_may_start", lambda self, slot: slot.record is not None and slot.spec is not None)


@fault("next run of a node that reads its own rows not held back")
def _(patch: pytest.MonkeyPatch) -> None:
    def faulty(self: inside.Engine, slot: Any) -> bool:
        return slot.going is None and slot.record is not None and slot.spec is not None and len(slot.ended) <= 1

    patch.setattr(inside.Engine, "_may_start", faulty)


@fault("next run before the dead letter is placed")
def _(patch: pytest.MonkeyPatch) -> None:
    right = inside.Engine._may_start

    def faulty(self: inside.Engine, slot: Any) -> bool:
        slot.holds = False
        return right(self, slot)

    patch.setattr(inside.Engine, "_may_start", faulty)


@fault("refused commit dropped")
def _(patch: pytest.MonkeyPatch) -> None:
    right = inside.Engine._commit_refused

    def faulty(self: inside.Engine, event: CommitRefused) -> None:
        right(self, event)
        self._shards[event.shard].refused = None

    patch.setattr(inside.Engine, "_commit_refused", faulty)


@fault("answer to another commit taken")
def _(patch: pytest.MonkeyPatch) -> None:
    right = inside.Engine._committed

    def faulty(self: inside.Engine, event: Committed) -> None:
        under_way = self._shards[event.shard].under_way
        right(self, event if under_way is None else replace(event, commit=under_way.commit))

    patch.setattr(inside.Engine, "_committed", faulty)


@fault("restored records ignored")
def _(patch: pytest.MonkeyPatch) -> None:
    right = inside.Engine._shard_opened
    patch.setattr(
        inside.Engine,
        "_shard_opened",
        lambda self, event: right(self, event if event.opening == 1 else replace(event, records={})),
    )


@fault("stale opening taken")
def _(patch: pytest.MonkeyPatch) -> None:
    right = inside.Engine._shard_opened

    def faulty(self: inside.Engine, event: ShardOpened) -> None:
        right(self, replace(event, opening=self._shards[event.shard].opening))

    patch.setattr(inside.Engine, "_shard_opened", faulty)


@fault("run kept over a lost writer")
def _(patch: pytest.MonkeyPatch) -> None:
    right = inside.Engine._writer_lost

    def faulty(self: inside.Engine, event: WriterLost) -> None:
        right(self, event)
        self._out = [command for command in self._out if not isinstance(command, inside.Discard)]

    patch.setattr(inside.Engine, "_writer_lost", faulty)


@fault("shard that is another's kept")
def _(patch: pytest.MonkeyPatch) -> None:
    right = inside.Engine._own

    def faulty(self: inside.Engine, event: Own) -> None:
        kept = {shard.number for shard in self._shards if shard.owned}
        right(self, replace(event, shards=event.shards | kept))

    patch.setattr(inside.Engine, "_own", faulty)


@fault("every missed fire caught up")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inside, "last_fire_ms", lambda text, at_ms: 0)


@fault("beginning of a schedule not saved")
def _(patch: pytest.MonkeyPatch) -> None:
    right = inside.Engine._set_schedule

    def faulty(self: inside.Engine, slot: Any) -> None:
        right(self, slot)
        queue = self._shards[slot.shard].queue
        for part in [part for part in queue if part.run is None]:
            queue.remove(part)

    patch.setattr(inside.Engine, "_set_schedule", faulty)


@fault("next tick not said again")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inside.Engine, "_ripen", lambda self: None)


@fault("checkpoint ends the run")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inside, "at_checkpoint", lambda *args: replace(at_checkpoint(*args), more=False))


@fault("checkpoint answers nothing")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inside, "at_checkpoint", lambda record, going: replace(record, run=going.run, more=True))


@fault("bound never applied")
def _(patch: pytest.MonkeyPatch) -> None:
    right = inside.StartRun
    patch.setattr(inside, "StartRun", lambda **fields: right(**{**fields, "rows_max": 1_000}))


@fault("what should stand still is given up")
def _(patch: pytest.MonkeyPatch) -> None:
    def faulty(record: SlotRecord, going: Any, *args: Any) -> tuple[SlotRecord, bool]:
        return after_run(record, replace(going, stops=False), *args)

    patch.setattr(inside, "after_run", faulty)


@fault("nothing is due while the breaker is open")
def _(patch: pytest.MonkeyPatch) -> None:
    right = inside.is_due

    def faulty(spec: Any, record: SlotRecord, now_ms: int, **more: Any) -> Any:
        due = right(spec, record, now_ms, **more)
        return due if due.reasons or (record.shut_ms or 0) <= now_ms else inside.Due()

    patch.setattr(inside, "is_due", faulty)
