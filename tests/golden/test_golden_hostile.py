"""Apps and posts that mean harm, or that nobody thought of: nothing leaks, nothing breaks, and reasons are told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from golden import Golden, golden_up

APP = "hostile"
SECRET = "planted-in-the-environment"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Golden]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOLDEN_SECRET", SECRET)
        with golden_up(tmp_path_factory.mktemp("hostile") / "data", APP) as golden:
            yield golden


def test_a_node_sees_nothing_of_the_hosts_environment(house: Golden) -> None:
    for _ in range(2):
        house.passes("hoenviro", APP)
    house.passes("hofiles1", APP)
    seen = house.output("hofiles1")
    assert "own environment False" in seen and "parent environment True" not in seen
    assert "tailrace.db" not in next(line for line in seen.splitlines() if line.startswith("fds"))


def test_a_run_leaves_nothing_to_the_next(house: Golden) -> None:
    """Environment, module search path, builtins, modules and the working folder are as new."""
    for _ in range(3):
        house.passes("hotouche", APP)


def test_names_that_are_no_identifiers(house: Golden) -> None:
    """Columns and tables may be called anything; a node may call its own things like ours."""
    for node in ("hokeys01", "hostar01", "hoshadow"):
        house.passes(node, APP)


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b'{"data": "' + b"x" * 5_000_000 + b'"}', 413, "over 4194304 bytes"),
        (b'{"k":' * 900 + b"1" + b"}" * 900, 400, "nested deeper"),
        (b"[" * 5000 + b"]" * 5000, 400, ""),
        (b'{"a": NaN}', 400, "no JSON"),
        (b'{"a"', 400, "no JSON"),
        (b'{"name": "\\ud800"}', 400, "no JSON"),
        ('{"a": 1}'.encode("utf-16"), 400, "UTF-8"),
        (b"", 400, ""),
    ],
    ids=["large", "deep", "deeper", "nan", "cut off", "half a surrogate", "utf-16", "nothing"],
)
def test_posts_that_are_refused_say_why(house: Golden, body: bytes, status: int, reason: str) -> None:
    before = len(house.rows("posts", APP, limit=20_000))
    answer = house.post("posts", body)
    assert answer.status_code == status and reason in answer.json()["detail"]
    assert len(house.rows("posts", APP, limit=20_000)) == before


def test_posts_that_are_odd_are_taken(house: Golden) -> None:
    """Ten thousand records in one array, 4 MB in one record, keys that the platform uses itself."""
    house.send(
        "posts",
        [{"name": f"n{n}"} for n in range(10_000)],
        {"name": "big", "data": "x" * 4_000_000},
        {"name": "ours", "patterns_id": "zzz", "timestamp": "1", "record": {"a": 1}},
        b'{"name": "integer", "n": 1000000000000000000000000000000}',
        b'{"name": "first", "name": "last"}',
        {},
        [],
    )
    rows = house.until(lambda: house.rows("counted", APP, limit=20_000), wanted=lambda rows: len(rows) >= 10_005)
    assert [row["name"] for row in rows] == [
        *(f"n{n}" for n in range(10_000)), "big", "ours", "integer", "last", None,
    ]  # fmt: skip
    assert rows[10_000]["size"] > 4_000_000
    posts = house.rows("posts", APP, limit=20_000)
    assert posts[10_001]["record"]["patterns_id"] == "zzz" != posts[10_001]["patterns_id"]
