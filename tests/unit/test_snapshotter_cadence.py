"""When a table is worth a snapshot, who attends to it, and what settings survive the way into the process."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.errors import SettingError
from tailrace.snapshotter import SnapshotterSettings, TableWish
from tailrace.snapshotter.cadence import News, due_ms, pause_ms
from tailrace.snapshotter.sharing import living, owner

PLACE = {"log_url": "sqlite:///t.db", "lake_url": "/lake", "staging_dir": "/staging"}
SETTINGS = SnapshotterSettings(**PLACE)
SINCE_MS = 1_700_000_000_000


def wait_s(
    records: int = 1, record_bytes: int = 100, *, freshness_s: float | None = None, keyed_rows: int = 0
) -> float:
    news = News(
        since_ms=SINCE_MS,
        records=records,
        record_bytes=record_bytes,
        keyed=keyed_rows > 0,
        rows=keyed_rows,
        freshness=timedelta(seconds=freshness_s) if freshness_s is not None else None,
    )
    return (due_ms(news, SETTINGS) - SINCE_MS) / 1000


def test_an_append_table_is_due_in_time_for_ten_seconds() -> None:
    """With time left to make the snapshot."""
    assert 5 <= wait_s() < 10


def test_a_store_may_ask_for_less() -> None:
    assert 0 < wait_s(freshness_s=1) < 1


def test_enough_for_a_commit_does_not_wait() -> None:
    """By records, and by bytes as far as the last step tells them."""
    assert wait_s(SETTINGS.step_records_max) == 0
    assert wait_s(10_000, SETTINGS.step_bytes_max // 10_000 + 1) == 0


def test_a_small_change_of_a_keyed_table_waits_for_more() -> None:
    """A merge writes whole files again; a tail of a tenth is worth it."""
    assert 300 < wait_s(99, keyed_rows=1_000) <= 600
    assert wait_s(100, keyed_rows=1_000) < 10
    assert wait_s(1, keyed_rows=1_000, freshness_s=1) < 1


@given(st.integers(1, 10**9), st.integers(0, 10**6), st.integers(0, 10**9), st.one_of(st.none(), st.floats(0.1, 1e6)))
def test_more_news_are_never_due_later(records: int, size: int, rows: int, freshness_s: float | None) -> None:
    before = wait_s(records, size, freshness_s=freshness_s, keyed_rows=rows)
    assert 0 <= wait_s(records + 1, size, freshness_s=freshness_s, keyed_rows=rows) <= before


def test_pauses_grow_up_to_a_bound() -> None:
    pauses = [pause_ms(failures, SETTINGS) for failures in range(1, 40)]
    assert pauses[:3] == [1_000, 2_000, 4_000]
    assert pauses == sorted(pauses) and pauses[-1] == 300_000


@given(st.sets(st.text(min_size=1), min_size=2, max_size=6), st.lists(st.text(), max_size=20))
def test_one_that_leaves_moves_only_its_own_tables(instances: set[str], topics: list[str]) -> None:
    gone = min(instances)
    for topic in topics:
        if owner(topic, instances) != gone:
            assert owner(topic, instances - {gone}) == owner(topic, instances)


def test_tables_are_spread() -> None:
    owners = [owner(f"shop.t{number}", ["a", "b", "c"]) for number in range(300)]
    assert all(60 < owners.count(name) < 140 for name in "abc")


def test_whoever_was_not_heard_of_is_dead() -> None:
    assert living({"old": 1_000, "new": 9_000}, now_ms=10_000, timeout_ms=5_000) == {"new"}


def test_settings_survive_the_way_into_the_process() -> None:
    settings = SnapshotterSettings(
        **PLACE,
        graphs=("shop", "mails"),
        tables={"shop.t1": TableWish(name="orders", freshness=timedelta(seconds=1.5))},
        idle_exit=None,
    )
    assert SnapshotterSettings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    "data",
    [
        {**PLACE, "freshnes_s": 1},
        {**PLACE, "freshness_s": 0},
        {**PLACE, "threads_max": 0},
        {"log_url": "sqlite:///t.db"},
    ],
)
def test_settings_that_cannot_work_are_refused(data: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        SnapshotterSettings.from_json(data)
