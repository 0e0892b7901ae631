"""A clock that jumps an hour: what is told in docs/operations.md, held."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailrace.engine import Cron, NodeSpec, SlotRecord
from tailrace.engine.rules import first_fire_ms, is_due, with_schedule
from tailrace.log import NewRecord, Partition, TopicSpec, open_log
from tailrace.runtime import Runtime
from tailrace.tables import SeenIds

HOUR_MS = 3_600_000
NOON_MS = 1_700_000_000_000 // (24 * HOUR_MS) * (24 * HOUR_MS) + 12 * HOUR_MS


class JumpingClock:
    """A wall clock that is set; durations go on as if nothing had happened."""

    def __init__(self, now_ms: int) -> None:
        self.wall_ms = now_ms

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic_s(self) -> float:
        return 0.0


def due(record: SlotRecord, spec: NodeSpec, now_ms: int) -> bool:
    fire_ms = first_fire_ms(record)
    return bool(is_due(spec, record, now_ms, news=False, triggered=False, rest_until_ms=0, fire_ms=fire_ms).reasons)


def test_a_fire_is_done_once_when_the_clock_goes_back() -> None:
    spec = NodeSpec(key="node", trigger=Cron("*/10 * * * *"))
    record = with_schedule(SlotRecord(), spec, NOON_MS)
    assert not due(record, spec, NOON_MS)
    assert due(record, spec, NOON_MS + HOUR_MS)
    done = with_schedule(SlotRecord(), spec, NOON_MS + HOUR_MS)  # a run at the new time has done them all
    assert not due(done, spec, NOON_MS + HOUR_MS)
    for back_ms in range(0, HOUR_MS, HOUR_MS // 12):
        assert not due(done, spec, NOON_MS + back_ms)
    assert due(done, spec, NOON_MS + HOUR_MS + HOUR_MS // 6)


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS])
def test_a_post_is_known_again_after_a_jump(jump_ms: int) -> None:
    """Within its window, less the jump: an hour of twenty-four."""
    seen = SeenIds(24 * HOUR_MS, 1_000)
    seen.add("delivery-1", NOON_MS)
    assert seen.has("delivery-1", NOON_MS + jump_ms)
    seen.add("delivery-2", NOON_MS + jump_ms)
    assert seen.has("delivery-1", NOON_MS + jump_ms)
    assert seen.has("delivery-2", NOON_MS)


def test_the_log_keeps_its_order_and_its_births_apart(tmp_path: Path) -> None:
    """Records are numbered by the log, and a topic that is made again is born later, whatever the clock says."""
    clock = JumpingClock(NOON_MS)
    log = open_log(f"sqlite://{tmp_path}/tailrace.db", runtime=Runtime(clock=clock))
    first = log.create_topics([TopicSpec("shop.orders")])["shop.orders"].born_ms
    log.append(Partition("shop.orders"), [NewRecord(b"1")])
    clock.wall_ms -= HOUR_MS
    written = log.append(Partition("shop.orders"), [NewRecord(b"2")])
    assert written.start == 1
    log.delete_topics(["shop.orders"])
    assert log.create_topics([TopicSpec("shop.orders")])["shop.orders"].born_ms > first
    log.close()
