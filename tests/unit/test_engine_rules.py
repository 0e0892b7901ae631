"""Single decisions of the engine: what is due, what goes together, what a failure costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.engine import (
    BadRecordError,
    BadScheduleError,
    CheckpointWanted,
    CloseShard,
    Command,
    Commit,
    CommitRefused,
    Committed,
    Cron,
    Deploy,
    Discard,
    Drain,
    Engine,
    EngineLimits,
    Manual,
    News,
    NodeSpec,
    OpenShard,
    Own,
    Requested,
    RunEnded,
    RunOutcome,
    ShardOpened,
    SlotRecord,
    StartRun,
    Tick,
    Triggered,
    WakeAt,
    WriterLost,
    check_schedule,
    last_fire_ms,
    next_fire_ms,
    shard_of,
)
from tailrace.engine.rules import tries_max
from tailrace.errors import SettingError

T0 = 1_700_000_000_000  # 2023-11-14 22:13:20 UTC


class Bench:
    """An engine with one shard, and a hand that feeds it."""

    def __init__(self, *specs: NodeSpec, records: dict[str, SlotRecord] | None = None, **options: Any) -> None:
        self.engine = Engine(shards=1, **options)
        self.now_ms = T0
        self.engine.handle(Own(now_ms=T0, shards=frozenset({0})))
        self.last: list[Command] = self.engine.handle(Deploy(now_ms=T0, specs=specs))
        opens = [command for command in self.last if isinstance(command, OpenShard)]
        assert opens == [OpenShard(shard=0, opening=1)]
        self.opening = 1
        self.send(ShardOpened(now_ms=T0, shard=0, opening=1, records=records or {}))

    def send(self, event: Any, *, after_ms: int = 0) -> list[Command]:
        self.now_ms += after_ms
        self.last = self.engine.handle(replace(event, now_ms=self.now_ms))
        for commit in self.of(Commit):
            self.commit: Commit = commit
        return self.last

    def news(self, table: str, offset: int, *, writer: str = "", after_ms: int = 0) -> list[StartRun]:
        self.send(News(now_ms=0, table=table, last={writer: {0: offset}}), after_ms=after_ms)
        return self.starts

    def end(self, start: StartRun, after_ms: int = 0, **outcome: Any) -> list[Command]:
        told = RunOutcome(**{"kind": "ok", **outcome})
        return self.send(RunEnded(now_ms=0, slot=start.slot, run=start.run, outcome=told), after_ms=after_ms)

    def tick(self, after_ms: int) -> list[StartRun]:
        self.send(Tick(now_ms=0), after_ms=after_ms)
        return self.starts

    def committed(self) -> list[StartRun]:
        """Answer the last commit that was asked for."""
        self.send(Committed(now_ms=0, shard=0, commit=self.commit.commit))
        return self.starts

    def of(self, kind: type[Any]) -> list[Any]:
        return [command for command in self.last if isinstance(command, kind)]

    @property
    def starts(self) -> list[StartRun]:
        return self.of(StartRun)


def stream(key: str = "n", table: str = "t", **more: Any) -> NodeSpec:
    return NodeSpec(key=key, reads=frozenset({table}), **more)


READ = {"seen": {"t": {0: 1}}, "streamed": frozenset({"t"}), "rows": 1}
"""Outcome of a run that streamed the first record of `t`."""


def test_news_starts_a_run_and_its_end_is_committed() -> None:
    bench = Bench(stream())
    (start,) = bench.news("t", 0)
    assert (start.slot, start.reasons, start.covers, start.rows_max) == ("n", ("news",), 1, 100)
    bench.end(start, **READ)
    (part,) = bench.commit.parts
    assert (part.slot, part.run, part.final) == ("n", start.run, True)
    assert part.record == SlotRecord(seen={"t": {0: 1}}, streamed=frozenset({"t"}), ran=True, run=start.run)
    assert bench.committed() == []
    assert bench.news("t", 0) == []  # again, or late: it lies before the cut


def test_a_record_at_the_cut_is_news_and_one_before_it_is_not() -> None:
    """`seen` is the next offset: the record there has not been read."""
    seen = {"n": SlotRecord(seen={"t": {0: 5}})}
    assert Bench(stream(), records=seen).news("t", 4) == []
    assert len(Bench(stream(), records=seen).news("t", 5)) == 1


def test_own_rows_fire_only_where_the_table_is_streamed() -> None:
    """A node that reads its own table whole would never rest; one that streams it feeds itself."""
    whole = {"n": SlotRecord(seen={"t": {0: 5}})}
    streamed = {"n": SlotRecord(seen={"t": {0: 5}}, streamed=frozenset({"t"}))}
    assert Bench(stream(), records=whole).news("t", 7, writer="n") == []
    assert len(Bench(stream(), records=streamed).news("t", 7, writer="n")) == 1
    assert len(Bench(stream(), records=whole).news("t", 7, writer="m")) == 1


def test_news_during_a_run_brings_the_next_one() -> None:
    bench = Bench(stream())
    (start,) = bench.news("t", 0)
    assert bench.news("t", 1) == []  # at most one run of a slot at a time
    bench.end(start, **READ)
    assert [again.reasons for again in bench.starts] == [("news",)]


def test_a_batch_node_rests_as_long_as_its_run_took() -> None:
    bench = Bench(stream())
    (start,) = bench.news("t", 0)
    bench.end(start, duration_ms=700, seen={"t": {0: 1}})
    bench.committed()
    assert bench.news("t", 1, after_ms=100) == []
    assert bench.of(WakeAt) == [WakeAt(at_ms=T0 + 700)]
    assert len(bench.tick(600)) == 1


def test_a_root_runs_once_also_after_a_restart() -> None:
    root = NodeSpec(key="r", is_root=True)
    bench = Bench(root)
    (start,) = bench.starts
    assert start.reasons == ("deploy",)
    bench.end(start)
    assert bench.committed() == []
    (part,) = bench.commit.parts
    assert Bench(root, records={"r": part.record}).starts == []


def test_a_manual_node_waits_for_its_trigger_and_answers_it_once() -> None:
    bench = Bench(NodeSpec(key="n", trigger=Manual(), reads=frozenset({"t"}), is_root=True))
    assert bench.starts == bench.news("t", 0) == []
    bench.send(Triggered(now_ms=0, slot="n", offset=4))
    (start,) = bench.starts
    assert start.trigger == 4
    bench.send(Triggered(now_ms=0, slot="n", offset=4))
    bench.end(start)
    assert bench.committed() == []
    assert bench.engine.record("n").trigger_offset == 5  # type: ignore[union-attr]


def test_a_trigger_that_takes_several_runs_is_answered_by_the_last() -> None:
    """Whoever hosts the node then: a run that ends or is cut short before leaves it where it is."""
    bench = Bench(stream(trigger=Manual()))
    bench.send(Triggered(now_ms=0, slot="n", offset=3))
    (start,) = bench.starts
    bench.send(CheckpointWanted(now_ms=0, slot="n", run=start.run, owes=True))
    assert record_of(bench).trigger_offset == 0
    bench.committed()
    bench.end(start, kind="failed", rows=1, owes=True)
    stored = bench.commit.parts[0].record
    other = Bench(stream(trigger=Manual()), records={"n": replace(stored, more=False)})
    other.send(Triggered(now_ms=0, slot="n", offset=3))
    assert [start.reasons for start in other.starts] == [("trigger",)]
    (start,) = bench.committed()
    assert start.reasons == ("trigger", "more")
    bench.end(start)
    assert record_of(bench).trigger_offset == 4 and bench.committed() == []


def test_a_new_schedule_is_saved_and_a_missed_fire_is_caught_up_once() -> None:
    """Saved at the first deploy, else nobody would know that the first fire was missed."""
    spec = NodeSpec(key="n", trigger=Cron("*/10 * * * *"), reads=frozenset({"t"}))
    bench = Bench(spec)
    (part,) = bench.commit.parts
    assert (part.run, part.record.fired_ms, bench.news("t", 0)) == (None, T0, [])
    later = Bench(spec, records={"n": part.record})
    (start,) = later.tick(3_600_000)
    assert (start.reasons, start.fire_ms) == (("schedule",), last_fire_ms("*/10 * * * *", T0 + 3_600_000))
    later.end(start)
    assert later.committed() == []
    assert later.tick(1) == []


def test_another_schedule_begins_anew() -> None:
    """Its fires of the past were never promised."""
    records = {"n": SlotRecord(schedule="0 22 * * *", fired_ms=T0 - 86_400_000)}
    bench = Bench(NodeSpec(key="n", trigger=Cron("0 9 * * *")), records=records)
    assert bench.starts == []
    assert bench.commit.parts[0].record == SlotRecord(schedule="0 9 * * *", fired_ms=T0)


def test_a_request_waits_for_its_time() -> None:
    bench = Bench(NodeSpec(key="r", is_root=True))
    bench.end(bench.starts[0], requested=Requested(delay_ms=5_000))
    assert bench.committed() == []
    assert bench.tick(4_999) == []
    assert [start.reasons for start in bench.tick(1)] == [("request",)]


def test_runs_that_end_during_a_commit_go_together() -> None:
    bench = Bench(*(stream(key) for key in "abc"))
    starts = bench.news("t", 0)
    bench.end(starts[0], **READ)
    assert [part.slot for part in bench.commit.parts] == ["a"]
    for start in starts[1:]:
        bench.end(start, **READ)
        assert bench.of(Commit) == []
    bench.committed()
    assert [part.slot for part in bench.commit.parts] == ["b", "c"]


def test_the_next_run_starts_before_the_last_is_committed_but_not_the_one_after() -> None:
    bench = Bench(stream())
    (first,) = bench.news("t", 10)
    bench.end(first, **READ, more=True)
    (second,) = bench.starts
    bench.end(second, **READ, more=True)
    assert bench.starts == []
    assert len(bench.committed()) == 1


@pytest.mark.parametrize(
    ("spec", "outcome", "options"),
    [
        pytest.param(stream(), READ, {"pipeline": False}, id="switched off"),
        pytest.param(stream(), {}, {}, id="batch"),
        pytest.param(stream(writes=frozenset({"t"})), READ, {}, id="reads its own rows"),
    ],
)
def test_otherwise_the_next_run_waits_for_the_commit(
    spec: NodeSpec, outcome: dict[str, Any], options: dict[str, Any]
) -> None:
    bench = Bench(spec, **options)
    (first,) = bench.news("t", 10)
    bench.end(first, **outcome)
    assert bench.starts == []
    assert len(bench.committed()) == 1


def test_a_lost_writer_drops_all_of_its_shard_and_what_was_restored_counts() -> None:
    bench = Bench(stream(), NodeSpec(key="r", is_root=True))
    (root,) = (start for start in bench.starts)
    (first,) = bench.news("t", 10)
    bench.end(first, **READ, more=True)
    (second,) = bench.starts
    bench.send(WriterLost(now_ms=0, shard=0, opening=1, reason="unknown"))
    dropped = {(command.slot, command.run) for command in bench.of(Discard)}
    assert dropped == {("n", first.run), ("n", second.run), ("r", root.run)}
    assert bench.of(OpenShard) == [OpenShard(shard=0, opening=2)]
    assert bench.end(second) == []  # too late
    record = SlotRecord(seen={"t": {0: 11}}, ran=True, run=first.run)
    bench.send(ShardOpened(now_ms=0, shard=0, opening=2, records={"n": record}))
    (again,) = bench.starts
    assert (again.slot, again.reasons) == ("r", ("deploy",))
    assert again.run > root.run


def test_a_shard_that_cannot_be_opened_is_tried_with_growing_pauses() -> None:
    bench = Bench(stream())
    pauses = []
    bench.send(WriterLost(now_ms=0, shard=0, opening=1))
    for opening in range(2, 12):
        assert bench.of(OpenShard) == [OpenShard(shard=0, opening=opening)]
        bench.send(WriterLost(now_ms=0, shard=0, opening=opening))
        (wake,) = bench.of(WakeAt)
        pauses.append(wake.at_ms - bench.now_ms)
        bench.tick(pauses[-1])
    assert pauses == [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000, 10_000]


def test_a_refused_commit_is_tried_again_as_it_was() -> None:
    bench = Bench(*(stream(key) for key in "ab"))
    starts = bench.news("t", 0)
    bench.end(starts[0], **READ)
    refused = bench.commit
    bench.send(CommitRefused(now_ms=0, shard=0, commit=refused.commit, reason="disk full"))
    bench.end(starts[1], **READ)
    assert bench.of(Commit) == []
    bench.tick(100)
    assert bench.commit.parts == refused.parts
    assert bench.commit.commit != refused.commit


def test_a_plain_failure_advances_and_waits_for_news() -> None:
    bench = Bench(stream())
    (start,) = bench.news("t", 0)
    bench.end(start, kind="failed", seen={"t": {0: 1}})
    assert bench.starts == bench.committed() == bench.tick(3_600_000) == []
    assert len(bench.news("t", 1)) == 1


def test_what_is_tried_again_gets_five_tries_in_an_hour_and_then_goes() -> None:
    bench = Bench(stream())
    bench.news("t", 0)
    tries, pauses = [], []
    while bench.starts:
        (start,) = bench.starts
        tries.append((start.try_number, start.rows_max, start.dead_letter_after_failure, start.again))
        bench.end(start, kind="died", rows=1, at="t/0/0", seen={"t": {0: 1}}, streamed=frozenset({"t"}))
        dead_letter = bench.commit.parts[0].dead_letter
        bench.committed()
        if not bench.starts:
            (wake,) = bench.of(WakeAt) or [WakeAt(at_ms=bench.engine.due("n", bench.now_ms).at_ms)]
            pauses.append(wake.at_ms - bench.now_ms)
            bench.tick(pauses[-1])
        if dead_letter:
            break
    # The first death is of one among a hundred rows; from then on the record is known, and counted.
    assert tries[:2] == [(1, 100, False, None), (2, 1, False, "t/0/0")]
    assert tries[-1] == (5, 1, True, "t/0/0")
    assert sum(pauses) >= 3_600_000
    record = bench.engine.record("n")
    assert record is not None
    assert (record.tries, record.seen) == (0, {"t": {0: 1}})


def test_a_trigger_tries_again_at_once_and_does_not_count() -> None:
    bench = Bench(stream())
    (start,) = bench.news("t", 0)
    bench.end(start, kind="failed", retry=True, at="x")
    bench.committed()
    bench.send(Triggered(now_ms=0, slot="n", offset=0), after_ms=100)
    (early,) = bench.starts
    assert early.reasons == ("trigger",)
    bench.end(early, kind="failed", retry=True, at="x")
    assert bench.committed() == []
    assert [later.try_number for later in bench.tick(9_900)] == [2]


def test_a_new_version_is_tried_at_once() -> None:
    """Whoever mends a node should not wait an hour to see it."""
    bench = Bench(stream(version="1"))
    (start,) = bench.news("t", 0)
    bench.end(start, kind="failed", retry=True, at="x")
    assert bench.committed() == []
    bench.send(Deploy(now_ms=0, specs=(stream(version="2"),)))
    assert [again.try_number for again in bench.starts] == [1]


def test_a_failure_further_on_is_a_first_try() -> None:
    bench = Bench(stream(), records={"n": SlotRecord(tries=4, retry_ms=T0, again="x")})
    (start,) = bench.starts
    assert start.dead_letter_after_failure
    bench.end(start, kind="failed", retry=True, at="y")
    record = bench.engine.record("n")
    assert record is not None
    assert (record.tries, record.again) == (1, "y")


def fail(bench: Bench, start: StartRun, **outcome: Any) -> None:
    """The run failed, and that is committed."""
    bench.end(start, kind="failed", reason="n.py:1: ValueError", **outcome)
    bench.committed()


def record_of(bench: Bench) -> SlotRecord:
    record = bench.engine.record("n")
    assert record is not None
    return record


def test_a_node_says_how_often_and_when_it_is_tried_again() -> None:
    """The last pause repeats; a node that says `retries: 0` is given up at once."""
    bench = Bench(stream(retries=3, pauses_ms=(5, 70)))
    (start,) = bench.news("t", 0)
    pauses = []
    while not start.dead_letter_after_failure:
        fail(bench, start, retry=True, at="x")
        at_ms = bench.engine.due("n", bench.now_ms).at_ms
        assert at_ms is not None
        pauses.append(at_ms - bench.now_ms)
        (start,) = bench.tick(pauses[-1])
    assert pauses == [5, 70, 70]
    (start,) = Bench(stream(retries=0)).news("t", 0)
    assert start.dead_letter_after_failure
    assert tries_max(stream(pauses_ms=(5, 70)), EngineLimits()) == 3


@pytest.mark.parametrize("kind", ["failed", "died"])
def test_a_node_that_stops_stands_still_until_a_person_does_something(kind: Any) -> None:
    """No news brings it on, no restart, and nothing is given up; a trigger tries once more, another version too."""
    bench = Bench(stream(retries=0, stops=True, version="1"))
    (start,) = bench.news("t", 0)
    bench.end(start, kind="failed", retry=True, at="x", rows=1)  # of several rows the host may not know which it was
    bench.committed()
    (start,) = bench.tick(10_000)
    assert not start.dead_letter_after_failure
    bench.end(start, kind=kind, reason="no such thing", retry=True, at="x")
    assert not bench.commit.parts[0].dead_letter
    assert bench.committed() == bench.news("t", 1) == bench.tick(90_000_000) == []
    standing = bench.engine.standing("n", bench.now_ms)
    assert (standing.kind, standing.error, standing.at_ms) == ("stopped", "no such thing", None)
    stored = SlotRecord.from_json(record_of(bench).to_json())
    assert Bench(stream(stops=True, version="1"), records={"n": stored}).starts == []
    bench.send(Triggered(now_ms=0, slot="n", offset=0))
    (start,) = bench.starts
    assert (start.again, start.reasons) == ("x", ("trigger",))
    bench.end(start, kind=kind, retry=True, at="x")
    assert bench.committed() == bench.tick(90_000_000) == []
    bench.send(Deploy(now_ms=0, specs=(stream(stops=True, version="2"),)))
    (start,) = bench.starts
    bench.end(start, **READ)
    assert record_of(bench).tries == 0


def failing(bench: Bench, offset: int, times: int) -> list[int]:
    """News comes, and the run fails at once, `times` times; returns after how many ms each run began."""
    waits = []
    for number in range(times):
        began_ms = bench.now_ms
        starts = bench.news("t", offset + number)
        while not starts:
            starts = bench.tick((bench.engine.due("n", bench.now_ms).at_ms or 0) - bench.now_ms)
        waits.append(bench.now_ms - began_ms)
        fail(bench, starts[0], seen={"t": {0: offset + number + 1}})
    return waits


def test_the_breaker_opens_when_runs_fail_at_once_and_lets_one_through_now_and_then() -> None:
    """News that comes meanwhile is not lost: it is what the one run is for. One that succeeds closes the breaker."""
    bench = Bench(stream())
    assert failing(bench, 0, 16) == [0, 0, 0, 0, 0, *(1_000 << n for n in range(9)), 300_000, 300_000]
    standing = bench.engine.standing("n", bench.now_ms)
    assert (standing.kind, standing.failures, standing.error) == ("paused", 16, "n.py:1: ValueError")
    assert standing.at_ms == bench.now_ms + 300_000
    assert bench.news("t", 20) == bench.news("t", 21) == []
    (start,) = bench.tick(300_000)
    assert (start.reasons, start.covers) == (("news",), 2)
    bench.end(start, seen={"t": {0: 22}})
    assert (record_of(bench).failures, record_of(bench).error, record_of(bench).shut_ms) == (0, "", None)
    bench.committed()
    assert len(bench.news("t", 22)) == 1


def test_a_trigger_or_another_version_closes_the_breaker() -> None:
    bench = Bench(stream(version="1"))
    failing(bench, 0, 9)
    bench.send(Triggered(now_ms=0, slot="n", offset=0))
    fail(bench, bench.starts[0], seen={"t": {0: 9}})
    assert failing(bench, 9, 5) == [0, 0, 0, 0, 1_000]
    bench.news("t", 14)
    bench.send(Deploy(now_ms=0, specs=(stream(version="2"),)))
    assert len(bench.starts) == 1


def test_records_that_are_given_up_do_not_open_the_breaker() -> None:
    """A sender of bad records would else hold up the good ones behind them."""
    bench = Bench(stream())
    for offset in range(20):
        (start,) = bench.news("t", offset) or bench.starts
        bench.end(start, kind="failed", seen={"t": {0: offset + 1}}, streamed=frozenset({"t"}), rows=1, progressed=True)
        (more,) = bench.starts or bench.committed()  # a run that failed at a record goes on after it
        bench.end(more, seen={"t": {0: offset + 1}}, streamed=frozenset({"t"}))
        bench.committed()


@pytest.mark.parametrize("flushes", [False, True])
def test_a_node_that_fails_at_records_of_its_own_pauses(flushes: bool) -> None:
    """Each run consumes a record and writes one: there is no end to them."""
    bench = Bench(stream(writes=frozenset({"t"})))
    (start,) = bench.news("t", 0)
    waits = []
    for offset in range(1, 9):
        if flushes:
            bench.send(CheckpointWanted(now_ms=0, slot="n", run=start.run))
            bench.committed()
        seen = {"t": {0: offset}}
        bench.end(start, kind="failed", seen=seen, streamed=frozenset({"t"}), rows=1, progressed=True)
        ended_ms, starts = bench.now_ms, bench.committed()
        starts = starts or bench.news("t", offset, writer="n")
        while not starts:
            starts = bench.tick((bench.engine.due("n", bench.now_ms).at_ms or 0) - bench.now_ms)
        waits.append(bench.now_ms - ended_ms)
        (start,) = starts
    assert waits == [0, 0, 0, 0, 1_000, 2_000, 4_000, 8_000]
    bench.end(start, seen={"t": {0: 9}}, streamed=frozenset({"t"}), rows=1)
    assert record_of(bench).failures == 0


def test_the_breaker_is_open_after_a_restart() -> None:
    shut = SlotRecord(failures=6, shut_ms=T0 + 2_000, seen={"t": {0: 3}}, ran=True)
    bench = Bench(stream(), records={"n": SlotRecord.from_json(shut.to_json())})
    assert bench.news("t", 3) == []
    assert len(bench.tick(2_000)) == 1


def test_how_a_node_stands() -> None:
    bench = Bench(stream())

    def kind() -> str:
        return bench.engine.standing("n", bench.now_ms).kind

    assert (kind(), Engine().standing("n", 0).kind) == ("idle", "opening")
    (start,) = bench.news("t", 0)
    assert kind() == "running" and bench.engine.behind("n") == {"t"}
    bench.end(start, kind="failed", reason="oh", seen={"t": {0: 1}})
    assert kind() == "failed" and bench.engine.behind("n") == frozenset()
    bench.committed()
    (start,) = bench.news("t", 1)
    bench.end(start, kind="failed", retry=True, at="x")
    assert (kind(), bench.engine.standing("n", bench.now_ms).at_ms) == ("retrying", bench.now_ms + 10_000)


def test_a_checkpoint_is_committed_while_the_run_goes_on() -> None:
    bench = Bench(stream())
    (start,) = bench.news("t", 0)
    bench.send(CheckpointWanted(now_ms=0, slot="n", run=start.run))
    (part,) = bench.commit.parts
    assert (part.final, part.record.more, part.record.seen) == (False, True, {})
    bench.end(start, **READ)
    bench.committed()
    assert [(part.final, part.record.more) for part in bench.commit.parts] == [(True, False)]


def test_the_bound_grows_inside_the_share_and_halves_far_beyond_it() -> None:
    """Twofold, or fourfold while there is much room: a backlog should not spend its first second on small runs."""
    bench = Bench(stream(), limits=EngineLimits(rows_max=5_000, share_ms=100))
    bench.news("t", 10_000)
    bounds = []
    for loop_ms in (10, 100, 10, 101, 201, 5, 5):
        (start,) = bench.starts
        bounds.append(start.rows_max)
        assert start.share_ms == 100
        bench.end(start, **READ, more=True, loop_ms=loop_ms, duration_ms=loop_ms + 1)
        starts = bench.starts
        bench.committed()
        bench.last = [*starts, *bench.last]
    assert bounds == [100, 400, 800, 3200, 3200, 1600, 5000]


def test_the_share_follows_the_fixed_cost() -> None:
    """A node that takes a second to begin should not spend its life beginning."""
    bench = Bench(stream())
    (start,) = bench.news("t", 10)
    bench.end(start, **READ, more=True, loop_ms=50, duration_ms=1_050)
    assert [again.share_ms for again in bench.starts] == [5_000]


def test_the_longest_waiting_goes_first_and_no_more_than_the_bound() -> None:
    bench = Bench(*(stream(key) for key in "abcd"), limits=EngineLimits(runs_max=2))
    a, b = bench.news("t", 0)
    assert [a.slot, b.slot] == ["a", "b"]
    bench.end(a, seen={"t": {0: 0}}, streamed=frozenset({"t"}), more=True)
    assert [start.slot for start in bench.starts] == ["c"]  # not "a" again, though it has more
    bench.end(b, **READ)
    assert [start.slot for start in bench.starts] == ["d"]


def test_a_removed_node_ends_its_run_and_stays_away() -> None:
    bench = Bench(stream())
    (start,) = bench.news("t", 0)
    bench.send(Deploy(now_ms=0, specs=()))
    bench.end(start, seen={"t": {0: 0}}, streamed=frozenset({"t"}), more=True)
    assert bench.commit.parts[0].run == start.run
    assert bench.starts == bench.committed() == bench.news("t", 5) == []


def test_draining_starts_nothing_and_commits_the_rest() -> None:
    bench = Bench(stream())
    (start,) = bench.news("t", 0)
    bench.send(Drain(now_ms=0))
    assert bench.engine.busy
    bench.end(start, **READ, more=True)
    assert bench.starts == bench.committed() == []
    assert not bench.engine.busy


def test_a_bad_schedule_leaves_the_deployment_out() -> None:
    bench = Bench(stream())
    with pytest.raises(BadScheduleError, match="five"):
        bench.send(Deploy(now_ms=0, specs=(NodeSpec(key="x", trigger=Cron("@hourly")),)))
    assert len(bench.news("t", 0)) == 1


@pytest.mark.parametrize("text", ["", "* * * *", "* * * * * *", "@daily", "61 * * * *", "0 0 31 2 *", "a b c d e"])
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(BadScheduleError):
        check_schedule(text)


@settings(max_examples=60)
@given(st.integers(T0, T0 + 10**11), st.sampled_from(["* * * * *", "*/30 * * * *", "0 22 * * *", "15 3 * * 1"]))
def test_last_and_next_fire_enclose_the_time(at_ms: int, text: str) -> None:
    last, after = last_fire_ms(text, at_ms), next_fire_ms(text, at_ms)
    assert last <= at_ms < after
    assert last % 60_000 == after % 60_000 == 0
    assert next_fire_ms(text, last) == after
    assert last_fire_ms(text, after) == after


CUTS = st.dictionaries(
    st.text(max_size=5), st.dictionaries(st.integers(0, 9), st.integers(0, 2**40), max_size=3), max_size=3
)
RECORDS = st.builds(
    SlotRecord,
    seen=CUTS,
    streamed=st.frozensets(st.text(max_size=5), max_size=3),
    more=st.booleans(),
    ran=st.booleans(),
    run=st.integers(0, 2**50),
    schedule=st.none() | st.text(max_size=9),
    wake_ms=st.none() | st.integers(0, 2**50),
    tries=st.integers(0, 9),
    again=st.none() | st.text(max_size=9),
    rest=st.fixed_dictionaries({}, optional={"from_the_future": st.integers()}),
)


@settings(max_examples=100)
@given(RECORDS)
def test_a_record_survives_being_stored(record: SlotRecord) -> None:
    """Also the fields of a newer version, which this one carries along."""
    assert SlotRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize(
    "value", [{"run": "7"}, {"more": 1}, {"tries": True}, {"seen": {"t": {"x": 1}}}, {"seen": [1]}, {"streamed": "t"}]
)
def test_a_damaged_record_is_told(value: dict[str, Any]) -> None:
    with pytest.raises(BadRecordError):
        SlotRecord.from_json(value)


def test_shards_never_move() -> None:
    """A slot's records lie under its shard's writer: another mapping would lose the fence."""
    assert [shard_of(slot, 32) for slot in ("a", "b", "graph/node")] == [15, 21, 14]
    assert {shard_of(f"slot {n}", 4) for n in range(100)} == {0, 1, 2, 3}


@pytest.mark.parametrize("bad", [{"runs_max": 0}, {"rows_max": 1}, {"pause_ms_max": 1}, {"retry_pauses_ms": ()}])
def test_limits_that_cannot_work_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        EngineLimits(**bad)


def test_a_rebalance_leaves_shards_that_stay_alone_and_drops_those_that_go() -> None:
    """Each rebalance takes all shards away and gives most of them back: only what is really gone may stop."""
    slots = {shard_of(f"n{number}", 2): f"n{number}" for number in range(20)}
    engine = Engine(shards=2)
    engine.handle(Own(now_ms=T0, shards=frozenset({0, 1})))
    engine.handle(Deploy(now_ms=T0, specs=tuple(stream(slot) for slot in slots.values())))
    for shard in slots:
        engine.handle(ShardOpened(now_ms=T0, shard=shard, opening=1, records={}))
    starts = engine.handle(News(now_ms=T0, table="t", last={"": {0: 0}}))
    runs = {start.slot: start.run for start in starts if isinstance(start, StartRun)}
    assert set(runs) == set(slots.values())
    assert engine.handle(Own(now_ms=T0, shards=frozenset({0, 1}))) == []
    gone = engine.handle(Own(now_ms=T0, shards=frozenset({1})))
    assert [command for command in gone if isinstance(command, CloseShard)] == [CloseShard(shard=0)]
    assert [(d.slot, d.run) for d in gone if isinstance(d, Discard)] == [(slots[0], runs[slots[0]])]
    assert engine.record(slots[0]) is None and engine.record(slots[1]) is not None
    back = engine.handle(Own(now_ms=T0, shards=frozenset({0, 1})))
    assert [command for command in back if isinstance(command, OpenShard)] == [OpenShard(shard=0, opening=2)]
