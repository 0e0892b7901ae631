"""What may go, and what must stay, decided from facts alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from tailrace.lake.retention import RetentionLimits, RetentionPlan, TopicFacts, VersionFacts, decide

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
LIMITS = RetentionLimits()


def version(
    number: int, age_ms: int, *, folder: bool = True, first: int = 0, begun_ms: int | None = None
) -> VersionFacts:
    begun_ms = NOW_MS - age_ms - 1 if begun_ms is None else begun_ms
    in_log_from, path = (None, f"f{number}") if folder else (first, None)
    return VersionFacts(f"t_{number:010}", begun_ms, NOW_MS - age_ms, in_log_from, path, 10, 1_000)


def facts(*superseded: VersionFacts, in_lake: int = 1_000, old_before: int = 500, log_start: int = 0) -> TopicFacts:
    return TopicFacts(
        topic="shop.t", log_start=log_start, in_lake=in_lake, folded=1_000, old_before=old_before, superseded=superseded
    )


def gone(plan: RetentionPlan) -> list[str]:
    return [each.name for each in plan.versions]


def test_a_version_that_is_in_the_lake_in_part_keeps_the_rest_in_the_log() -> None:
    """Of two snapshotters one may have begun a version's Delta table while the other passed it over."""
    part = version(1, 2 * DAY_MS)._replace(in_log_from=120)
    assert decide(facts(part), NOW_MS, LIMITS).trim_before == 120
    assert decide(facts(version(1, 2 * DAY_MS)), NOW_MS, LIMITS).trim_before == 500


def test_a_version_goes_a_week_after_it_was_superseded() -> None:
    plan = decide(facts(version(1, 8 * DAY_MS), version(2, 6 * DAY_MS)), NOW_MS, LIMITS)
    assert gone(plan) == ["t_0000000001"]
    assert "7 days" in plan.versions[0].why


def test_what_a_run_may_still_read_stays_whatever_is_asked_for() -> None:
    """A run reads the version that it pinned: its limit, and an hour."""
    nothing = RetentionLimits(retention=timedelta(0))
    assert gone(decide(facts(version(1, HOUR_MS)), NOW_MS, nothing)) == []
    assert gone(decide(facts(version(1, 2 * HOUR_MS)), NOW_MS, nothing)) == ["t_0000000001"]


def test_records_go_once_they_are_old_and_in_the_lake() -> None:
    assert decide(facts(in_lake=300, old_before=500), NOW_MS, LIMITS).trim_before == 300
    assert decide(facts(in_lake=900, old_before=500), NOW_MS, LIMITS).trim_before == 500
    assert decide(facts(in_lake=100, old_before=500, log_start=200), NOW_MS, LIMITS).empty


def test_a_version_that_is_in_the_log_alone_holds_its_records() -> None:
    """It was superseded before any snapshot; a week later it holds nothing any more."""
    assert decide(facts(version(1, DAY_MS, folder=False, first=123)), NOW_MS, LIMITS).trim_before == 123
    assert decide(facts(version(1, 8 * DAY_MS, folder=False, first=123)), NOW_MS, LIMITS).trim_before == 500


def test_of_many_versions_a_hundred_stay_and_one_an_hour() -> None:
    """One a minute for two days."""
    many = [version(number, (2_880 - number) * 60_000) for number in range(2_880)]
    kept = {each.name for each in many} - set(gone(decide(facts(*many), NOW_MS, LIMITS)))
    assert {each.name for each in many[-100:]} <= kept
    assert 100 + 45 <= len(kept) <= 100 + 48


@given(st.lists(st.integers(0, 3 * DAY_MS), min_size=150, max_size=200, unique=True), st.integers(0, DAY_MS))
def test_what_a_round_leaves_the_next_one_leaves_too(ages: list[int], later_ms: int) -> None:
    """Unless time has passed: then what goes are those that grew too old."""
    all_versions = [version(number, age) for number, age in enumerate(sorted(ages, reverse=True))]
    first = set(gone(decide(facts(*all_versions), NOW_MS, LIMITS)))
    left = [each for each in all_versions if each.name not in first]
    assert gone(decide(facts(*left), NOW_MS, LIMITS)) == []
    assert set(gone(decide(facts(*left), NOW_MS + later_ms, LIMITS))) <= {each.name for each in left}


def test_delta_tables_of_forgotten_versions_go() -> None:
    """A fold keeps the newest versions; what it has forgotten nobody can ask for."""
    plan = decide(replace(facts(), forgotten=(version(1, 0),)), NOW_MS, LIMITS)
    assert gone(plan) == ["t_0000000001"] and "forgotten" in plan.versions[0].why


def test_a_plan_survives_being_noted() -> None:
    plan = replace(decide(facts(version(1, 8 * DAY_MS)), NOW_MS, LIMITS), files=("w/r.1/a.parquet",))
    assert RetentionPlan.from_json(plan.to_json()) == plan
