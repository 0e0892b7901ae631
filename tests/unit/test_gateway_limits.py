"""How much a gateway takes: token buckets and room for bodies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.errors import SettingError
from tailrace.gateway import GatewaySettings
from tailrace.gateway.limits import Bucket, RateLimit, Room
from tailrace.gateway.metrics import Metrics


@given(
    st.integers(1, 20),
    st.floats(0.1, 100),
    st.lists(st.floats(0, 50), max_size=60),
)
def test_a_bucket_never_gives_more_than_its_limit(posts: int, window_s: float, waits_s: list[float]) -> None:
    """In any stretch of time: a bucketful, and what came back in it; and it says truly when there is a token."""
    bucket = Bucket(RateLimit(posts, window_s), 0.0)
    now_s, taken = 0.0, 0
    for wait_s in waits_s:
        now_s += wait_s
        if bucket.take(now_s):
            taken += 1
        else:
            assert bucket.wait_s > 0
        assert taken <= posts + now_s * posts / window_s + 1e-6
    while not bucket.take(now_s):
        now_s += bucket.wait_s + 1e-6


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(RateLimit(1, 10), 100.0)
    assert bucket.take(100.0)
    assert not bucket.take(0.0)


@given(st.lists(st.integers(0, 50), max_size=40))
def test_room_is_taken_and_given_back(sizes: list[int]) -> None:
    """Never over its bound by more than one that was alone."""
    room = Room(60)
    held = [size for size in sizes if room.take(size)]
    assert room.taken == sum(held) <= 60 or len([size for size in held if size]) == 1
    for size in held:
        room.give_back(size)
    assert room.taken == 0
    assert room.take(1_000)
    assert not room.take(1)


@pytest.mark.parametrize(("posts", "window_s"), [(0, 1), (1, 0), (1, -1), (1, float("inf")), (1, float("nan"))])
def test_a_limit_that_cannot_work_is_refused(posts: int, window_s: float) -> None:
    with pytest.raises(SettingError):
        RateLimit(posts, window_s)


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(SettingError, match="depth_max"):
        GatewaySettings(depth_max=0)
    with pytest.raises(SettingError, match="connections_max"):
        GatewaySettings(connections_max=0)


def test_metrics_have_a_bounded_number_of_webhooks() -> None:
    """Past a thousand they are counted together; two that write one topic share its samples."""
    metrics = Metrics()
    for number in range(1_200):
        metrics.of(f"hook{number}", f"topic{number}").accepted += 1
    text = metrics.exposition().decode()
    lines = [line for line in text.splitlines() if line.startswith("tailrace_webhook_accepted_total{")]
    assert len(lines) == 1_001
    assert 'tailrace_webhook_accepted_total{webhook="other"} 200.0' in lines
    two = Metrics()
    two.of("a", "shop.orders").accepted += 1
    two.of("b", "shop.orders").accepted += 2
    assert two.exposition().decode().count('accepted_total{webhook="shop.orders"} 3.0') == 1
