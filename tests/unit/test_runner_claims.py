"""What a runner holds and may open, as the group gives and takes."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from tailrace.runner.spread import ClaimLimits, Claims

LET_GO_S = 6.0
ALL = frozenset(range(4))


def claims() -> Claims:
    return Claims(ClaimLimits(let_go=timedelta(seconds=LET_GO_S)), 0.0)


def test_nothing_is_held_before_the_first_assignment() -> None:
    new = claims()
    assert new.held(1.0) == frozenset() and not new.may_open(1.0)


def test_a_rebalance_alone_stops_nothing() -> None:
    """All is taken back before each assignment; opening then would take a shard from its new owner."""
    runner = claims()
    runner.assigned(ALL, 1.0)
    runner.revoked(2.0)
    assert runner.held(2.0 + LET_GO_S - 0.1) == ALL and not runner.may_open(2.1)
    runner.assigned(frozenset({0, 1}), 3.0)
    assert runner.held(3.0) == {0, 1} and runner.may_open(3.0)


def test_without_a_new_assignment_it_lets_go_in_time() -> None:
    runner = claims()
    runner.assigned(ALL, 1.0)
    runner.revoked(2.0)
    assert runner.held(2.0 + LET_GO_S) == frozenset()
    assert not runner.is_lost(2.0 + LET_GO_S) and runner.is_lost(2.0 + 6 * LET_GO_S)


def test_a_shard_that_another_opened_is_left_to_it_for_a_while() -> None:
    """Two that open it in turns would both do nothing else; but if the other was wrong, somebody must have it again."""
    runner = claims()
    runner.assigned(ALL, 1.0)
    runner.taken(2, 1.0)
    assert runner.held(1.1) == ALL - {2}
    assert runner.held(1.0 + LET_GO_S) == ALL


def test_who_stood_still_opens_nothing_before_it_has_heard_from_the_group() -> None:
    runner = claims()
    runner.assigned(ALL, 1.0)
    runner.awake(1.2)
    assert runner.may_open(1.3)
    assert not runner.may_open(1.2 + LET_GO_S), "it has not even noticed yet"
    runner.awake(1.2 + LET_GO_S)
    assert not runner.may_open(1.3 + LET_GO_S)
    runner.assigned(frozenset({3}), 2.0 + LET_GO_S)
    assert runner.may_open(2.0 + LET_GO_S)


@given(st.lists(st.sampled_from(["assigned", "revoked", "taken", "awake", "still"]), max_size=40))
def test_what_is_held_was_given_last(happens: list[str]) -> None:
    """Whatever comes in whatever order: never more than the last assignment, and never nothing for ever after it."""
    runner, now_s, given_last = claims(), 0.0, frozenset[int]()
    for number, what in enumerate(happens):
        now_s += 10 if what == "still" else 0.2
        if what == "assigned":
            given_last = frozenset({number % 4, 0})
            runner.assigned(given_last, now_s)
        elif what == "revoked":
            runner.revoked(now_s)
        elif what == "taken":
            runner.taken(number % 4, now_s)
        runner.awake(now_s)
        assert runner.held(now_s) <= given_last
    runner.assigned(ALL, now_s)
    assert runner.held(now_s) == ALL and runner.may_open(now_s)
