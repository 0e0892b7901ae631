"""When a run commits, what belongs to it, and what a failure goes back to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from patterns import State, Table
from tailrace.node.session import COMMIT_PAUSE_S
from tailrace.runtime import ManualClock
from tailrace.testing.app import TestApp

PAUSE_MS = int(COMMIT_PAUSE_S * 1000) + 1


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def app(tmp_path: Path, clock: ManualClock) -> Iterator[TestApp]:
    app = TestApp(tmp_path, stores=["a", "out"], clock=clock, staging=tmp_path)
    app.append("a", [{"n": n} for n in range(6)])
    yield app


def numbers(app: TestApp) -> list[int]:
    return [row["n"] for row in app.read("out")]


def test_bodies_commit_at_most_once_a_pause(app: TestApp, clock: ManualClock) -> None:
    """A commit costs milliseconds: more of them would be most of the work."""
    with app.inside() as host:
        with Table("a").as_stream().consume_with_rollback() as rows:
            for row in rows:
                Table("out", "w").append(row)
                State().set_value("n", row["n"])
                if row["n"] in (1, 4):
                    clock.advance_ms(PAUSE_MS)
        assert [progress.state for progress in host.commits] == [{"n": 1}, {"n": 4}]
        assert numbers(app) == [0, 1, 2, 3, 4]
        assert [progress.places["k-a"] for progress in host.commits] == [(0, 2), (0, 5)]
        assert [progress.rows_in for progress in host.commits] == [2, 5]
        assert [progress.rows_out for progress in host.commits] == [2, 5]
    assert numbers(app) == [0, 1, 2, 3, 4, 5]


def test_a_failing_body_keeps_those_that_were_committed_and_those_that_were_not(
    app: TestApp, clock: ManualClock
) -> None:
    with app.inside() as host:
        try:
            with Table("a").as_stream().consume_with_rollback() as rows:
                for row in rows:
                    Table("out", "w").append(row)
                    if row["n"] == 1:
                        clock.advance_ms(PAUSE_MS)
                    if row["n"] == 4:
                        raise ValueError
        except ValueError:
            pass
        assert len(host.commits) == 1
        assert [row["n"] for row in Table("out", "w").read()] == [0, 1, 2, 3]
    assert numbers(app) == [0, 1, 2, 3]
    with app.inside():
        assert [row["n"] for row in Table("a").as_stream()] == [4, 5]


def test_a_checkpoint_of_plain_code_commits_what_it_did(app: TestApp, clock: ManualClock) -> None:
    with app.inside() as host:
        stream = Table("a").as_stream()
        for row in stream:
            Table("out", "w").append(row)
            clock.advance_ms(PAUSE_MS)
            stream.checkpoint()
        assert len(host.commits) == 6 and numbers(app) == list(range(6))


def test_nothing_is_committed_while_a_version_is_not_finished(app: TestApp, clock: ManualClock) -> None:
    """Or the records would be consumed, and what they made be lost, should the process die."""
    with app.inside() as host:
        out = Table("out", "w")
        out.reset()
        stream = Table("a").as_stream()
        for row in stream:
            out.append(row)
            clock.advance_ms(PAUSE_MS)
            stream.checkpoint()
        out.flush()
        assert host.commits == []
    assert numbers(app) == list(range(6))


def test_staged_files_of_each_commit_lie_in_a_folder_of_their_own(app: TestApp) -> None:
    import orjson

    with app.inside() as host:
        for _ in range(2):
            Table("out", "w").append([{"n": n, "s": "x" * 300} for n in range(3000)])
            Table("out", "w").append([{"n": n, "s": "x" * 300} for n in range(3000)])
            Table("out", "w").flush()
        stage = host.order.stage
    paths = [orjson.loads(value)["path"] for _, _, value in app.table("out").records]
    assert paths == [f"{stage}.{part}/{number}.parquet" for part in (0, 1) for number in (0, 1)]


def test_a_table_that_was_committed_is_read_as_of_the_new_cut(app: TestApp) -> None:
    with app.inside():
        out = Table("out", "w")
        out.append({"n": 1})
        first = out.read()
        out.flush()
        again = out.read()
        assert first[0]["patterns_id"] is None and again[0]["patterns_id"] is not None
        out.append({"n": 2})
        assert [row["n"] for row in out.read()] == [1, 2]


def test_inputs_stay_as_of_the_cut_while_others_write(app: TestApp) -> None:
    with app.inside():
        table = Table("a")
        assert len(table.read()) == 6
        app.append("a", {"n": 99})
        assert len(table.read()) == 6
        assert [row["n"] for row in table.as_stream()] == list(range(6))
    with app.inside():
        assert [row["n"] for row in Table("a").as_stream()] == [99]


def test_a_session_that_raises_commits_nothing_more(app: TestApp) -> None:
    with pytest.raises(KeyError), app.inside():
        Table("out", "w").append({"n": 1})
        raise KeyError
    assert numbers(app) == []
