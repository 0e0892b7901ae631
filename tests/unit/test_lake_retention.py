"""What may go, and what must stay, decided from facts alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import orjson
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
    assert decide([facts(part)], NOW_MS, LIMITS).lanes[0].trim_before == 120
    assert decide([facts(version(1, 2 * DAY_MS))], NOW_MS, LIMITS).lanes[0].trim_before == 500


def test_a_version_goes_a_week_after_it_was_superseded() -> None:
    plan = decide([facts(version(1, 8 * DAY_MS), version(2, 6 * DAY_MS))], NOW_MS, LIMITS)
    assert gone(plan) == ["t_0000000001"]
    assert "7 days" in plan.versions[0].why


def test_what_a_run_may_still_read_stays_whatever_is_asked_for() -> None:
    """A run reads the version that it pinned: its limit, and an hour."""
    nothing = RetentionLimits(retention=timedelta(0))
    assert gone(decide([facts(version(1, HOUR_MS))], NOW_MS, nothing)) == []
    assert gone(decide([facts(version(1, 2 * HOUR_MS))], NOW_MS, nothing)) == ["t_0000000001"]


def test_records_go_once_they_are_old_and_in_the_lake() -> None:
    assert decide([facts(in_lake=300, old_before=500)], NOW_MS, LIMITS).lanes[0].trim_before == 300
    assert decide([facts(in_lake=900, old_before=500)], NOW_MS, LIMITS).lanes[0].trim_before == 500
    assert decide([facts(in_lake=100, old_before=500, log_start=200)], NOW_MS, LIMITS).empty


def test_a_version_that_is_in_the_log_alone_holds_its_records() -> None:
    """It was superseded before any snapshot; a week later it holds nothing any more."""
    assert decide([facts(version(1, DAY_MS, folder=False, first=123))], NOW_MS, LIMITS).lanes[0].trim_before == 123
    assert decide([facts(version(1, 8 * DAY_MS, folder=False, first=123))], NOW_MS, LIMITS).lanes[0].trim_before == 500


def test_of_many_versions_a_hundred_stay_and_one_an_hour() -> None:
    """One a minute for two days."""
    many = [version(number, (2_880 - number) * 60_000) for number in range(2_880)]
    kept = {each.name for each in many} - set(gone(decide([facts(*many)], NOW_MS, LIMITS)))
    assert {each.name for each in many[-100:]} <= kept
    assert 100 + 45 <= len(kept) <= 100 + 48


@given(st.lists(st.integers(0, 3 * DAY_MS), min_size=150, max_size=200, unique=True), st.integers(0, DAY_MS))
def test_what_a_round_leaves_the_next_one_leaves_too(ages: list[int], later_ms: int) -> None:
    """Unless time has passed: then what goes are those that grew too old."""
    all_versions = [version(number, age) for number, age in enumerate(sorted(ages, reverse=True))]
    first = set(gone(decide([facts(*all_versions)], NOW_MS, LIMITS)))
    left = [each for each in all_versions if each.name not in first]
    assert gone(decide([facts(*left)], NOW_MS, LIMITS)) == []
    assert set(gone(decide([facts(*left)], NOW_MS + later_ms, LIMITS))) <= {each.name for each in left}


def test_delta_tables_of_forgotten_versions_go() -> None:
    """A fold keeps the newest versions; what it has forgotten nobody can ask for."""
    plan = decide([replace(facts(), forgotten=(version(1, 0),))], NOW_MS, LIMITS)
    assert gone(plan) == ["t_0000000001"] and "forgotten" in plan.versions[0].why


def test_a_plan_survives_being_noted() -> None:
    plan = decide([facts(version(1, 8 * DAY_MS))], NOW_MS, LIMITS)
    plan = replace(plan, lanes=(plan.lanes[0]._replace(files=("w/r.1/a.parquet",)),))
    assert RetentionPlan.from_json(plan.to_json()) == plan


# -- several partitions -----------------------------------------------------------------------------------------------


def lane(*superseded: VersionFacts, active: str = "t_now", newest_ms: int = NOW_MS) -> TopicFacts:
    """What was found of one partition."""
    return replace(facts(*superseded), active=active, newest_ms=newest_ms)


def in_lane(number: int, lane: int, age_ms: int, dropped_ms: int | None = None) -> VersionFacts:
    known = version(number, age_ms)
    return known._replace(folder=f"shop/t_{number:010}/partition={lane}", dropped_ms=dropped_ms)


def test_a_version_goes_from_all_partitions_or_from_none() -> None:
    """It must have been superseded in each of them long enough."""
    old, young = in_lane(1, 0, 8 * DAY_MS), in_lane(1, 1, 6 * DAY_MS)
    assert decide([lane(old), lane(young)], NOW_MS, LIMITS).empty is False, "records go"
    assert not decide([lane(old), lane(young)], NOW_MS, LIMITS).hidden
    assert not decide([lane(old), lane(active=old.name)], NOW_MS, LIMITS).hidden
    plan = decide([lane(old), lane(old._replace(folder=None, in_log_from=123))], NOW_MS, LIMITS)
    assert [each.name for each in plan.hidden] == [old.name] and not plan.versions
    assert plan.hidden[0].folder == "shop/t_0000000001", "the folder of the version, with those of all partitions"
    assert [each.trim_before for each in plan.lanes] == [500, 123], "it can be brought back still"


def test_a_partition_that_has_not_come_to_a_version_keeps_it() -> None:
    """One that never had it, and knows younger ones, does not; nor does one that never had a record."""
    old = in_lane(1, 0, 8 * DAY_MS)
    behind = lane(newest_ms=old.begun_ms - 1)
    assert not decide([lane(old), behind], NOW_MS, LIMITS).hidden
    assert decide([lane(old), lane()], NOW_MS, LIMITS).hidden


def test_a_version_is_hidden_first_and_goes_when_nobody_can_bring_it_back() -> None:
    """A run that saw it before may restore it until its own end."""
    hidden = [in_lane(1, each, 8 * DAY_MS, dropped_ms=NOW_MS - HOUR_MS) for each in range(2)]
    plan = decide([lane(each) for each in hidden], NOW_MS, LIMITS)
    assert not plan.versions and not plan.hidden
    plan = decide([lane(each) for each in hidden], NOW_MS + HOUR_MS, LIMITS)
    assert gone(plan) == ["t_0000000001"] and plan.versions[0].folder == "shop/t_0000000001"
    brought_back = hidden[0]._replace(dropped_ms=None)
    plan = decide([lane(hidden[1]), lane(brought_back)], NOW_MS + HOUR_MS, LIMITS)
    assert not plan.versions and plan.hidden, "one that a partition shows again begins anew"


def test_delta_tables_go_that_all_partitions_have_forgotten() -> None:
    old = in_lane(1, 0, 0)._replace(name="orders_0000000001")
    other = in_lane(1, 1, 0)._replace(name="t_0000000001")
    plan = decide([replace(lane(), forgotten=(old,)), replace(lane(), forgotten=(other,))], NOW_MS, LIMITS)
    assert [(each.name, each.folder) for each in plan.versions] == [("orders_0000000001", "shop/t_0000000001")]
    assert not decide([replace(lane(), forgotten=(old,)), lane()], NOW_MS, LIMITS).versions


def test_a_plan_over_partitions_survives_being_noted() -> None:
    plan = decide([lane(in_lane(1, each, 8 * DAY_MS)) for each in range(2)], NOW_MS, LIMITS)
    assert RetentionPlan.from_json(orjson.loads(orjson.dumps(plan.to_json()))) == plan


def test_a_note_of_an_earlier_release_is_understood() -> None:
    plan = decide([facts(version(1, 8 * DAY_MS))], NOW_MS, LIMITS)
    noted = {"topic": plan.topic, "versions": [each._asdict() for each in plan.versions], **plan.lanes[0]._asdict()}
    assert RetentionPlan.from_json(orjson.loads(orjson.dumps(noted))) == plan
