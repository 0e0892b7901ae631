"""Streams: each record once, and every rule about positions."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_apps import Nodes


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    nodes = Nodes(tmp_path, "a", "out")
    nodes.app.append("a", [{"n": n} for n in range(10)])
    return nodes


def seen(nodes: Nodes) -> list[int]:
    return [row["n"] for row in nodes.rows("out")]


APPEND_ALL = """
    out = Table("out", "w")
    for row in Table("a").as_stream():
        out.append(row)
"""


def test_rows_of_later_runs_follow_without_gap_or_repeat(nodes: Nodes) -> None:
    nodes.ok(APPEND_ALL)
    nodes.app.append("a", {"n": 10})
    nodes.ok(APPEND_ALL)
    nodes.ok(APPEND_ALL)
    assert seen(nodes) == list(range(11))


def test_a_run_ends_at_its_bound_and_says_that_more_is_left(nodes: Nodes) -> None:
    run = nodes.ok(APPEND_ALL, rows_max=4)
    assert run.outcome.more == ["k-a"] and seen(nodes) == [0, 1, 2, 3]
    assert nodes.ok(APPEND_ALL, rows_max=4).outcome.more == ["k-a"]
    assert nodes.ok(APPEND_ALL, rows_max=4).outcome.more == []
    assert seen(nodes) == list(range(10))


def test_a_bound_that_falls_on_the_last_row_leaves_nothing(nodes: Nodes) -> None:
    assert nodes.ok(APPEND_ALL, rows_max=10).outcome.more == []


def test_a_used_up_share_still_hands_out_one_row_for_each_stream(nodes: Nodes) -> None:
    nodes.app.append("b", [{"n": 100}, {"n": 101}])
    code = """
        out = Table("out", "w")
        for name in ("a", "b"):
            for row in Table(name).as_stream():
                out.append(row)
    """
    run = nodes.ok(code, rows_max=1)
    assert seen(nodes) == [0, 100] and run.outcome.more == ["k-a", "k-b"]


def test_breaking_out_keeps_the_place_after_the_last_record(nodes: Nodes) -> None:
    code = """
        out = Table("out", "w")
        for row in Table("a").as_stream():
            out.append(row)
            if row["n"] % 3 == 2:
                break
    """
    nodes.ok(code)
    assert seen(nodes) == [0, 1, 2]
    nodes.ok(code)
    assert seen(nodes) == [0, 1, 2, 3, 4, 5]


def test_all_streams_of_one_ordering_share_a_cursor(nodes: Nodes) -> None:
    nodes.ok("""
        table, out = Table("a"), Table("out", "w")
        for _ in range(3):
            out.append(next(table.as_stream().consume_records()))
        for row in Table("a").as_stream():
            out.append(row)
    """)
    assert seen(nodes) == list(range(10))


def test_an_iterator_goes_on_after_a_rollback_even_where_it_had_ended(nodes: Nodes) -> None:
    nodes.ok("""
        from itertools import islice
        stream, out = Table("a").as_stream(), Table("out", "w")
        it = iter(stream)
        first = [r["n"] for r in islice(it, 20)]
        assert first == list(range(10)), first
        stream.rollback()
        again = list(islice(it, 4))
        assert [r["n"] for r in again] == [0, 1, 2, 3], again
        stream.checkpoint()
        assert [r["n"] for r in islice(it, 2)] == [4, 5]
        stream.rollback()
        assert next(it)["n"] == 4
        out.append(again)
    """)
    assert seen(nodes) == [0, 1, 2, 3]
    nodes.ok(APPEND_ALL)
    assert seen(nodes) == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_rolled_back_rows_are_fresh(nodes: Nodes) -> None:
    """The code may have changed the dicts that it was given."""
    nodes.ok("""
        stream = Table("a").as_stream()
        for row in stream:
            row["n"] = None
        stream.rollback()
        assert [r["n"] for r in stream] == list(range(10))
    """)


def test_rewind_and_seek(nodes: Nodes) -> None:
    nodes.ok("""
        stream = Table("a").as_stream()
        ids = [r["patterns_id"] for r in stream]
        assert stream.order_by_field == "patterns_id"
        stream.rewind()
        assert len(list(stream)) == 10
        stream.seek(ids[6])
        assert [r["n"] for r in stream] == [7, 8, 9]
        stream.seek(ids[9])
        assert list(stream) == []
        stream.seek("0")
        assert len(list(stream)) == 10
        stream.seek("zzz")
        assert list(stream) == []
        stream.seek("")
        assert next(iter(stream))["n"] == 0
    """)
    nodes.ok("assert [r['n'] for r in Table('a').as_stream()] == list(range(1, 10))")


def test_a_batch_table_is_all_there_while_it_is_streamed(nodes: Nodes) -> None:
    nodes.ok("""
        table = Table("a")
        for row in table.as_stream():
            assert len(table.read()) == 10
    """)


# -- failures


def test_a_failing_loop_keeps_what_it_did_and_puts_the_record_aside(nodes: Nodes) -> None:
    code = """
        out, state = Table("out", "w"), State()
        for row in Table("a").as_stream():
            state.set_value("at", row["n"])
            row["extra"] = 1
            if row["n"] == 4:
                raise ValueError("no fours")
            out.append(row)
    """
    run = nodes.run(code)
    assert run.outcome.kind == "failed" and not run.outcome.retry
    assert run.error == "node.py:8: ValueError: no fours"
    assert seen(nodes) == [0, 1, 2, 3]
    (letter,) = nodes.app.dead_letters
    assert letter.table == "k-a" and letter.record == {"n": 4} and letter.error == run.error
    assert "no fours" in letter.traceback
    assert nodes.app.memory("node.py").state == {"at": 4}
    nodes.run(code)
    assert seen(nodes) == [0, 1, 2, 3, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    "loop",
    [
        "for row in Table('a').as_stream(): f(row)",
        "for i, row in enumerate(Table('a').as_stream()): f(row)",
        "it = iter(Table('a').as_stream())\nfor row in it: f(row)",
        "it = Table('a').as_stream().consume_records()\nwhile True: f(next(it))",
        "def g():\n    for row in Table('a').as_stream():\n        f(row)\ng()",
        "for row in Table('a').as_stream():\n    try:\n        f(row)\n    finally:\n        x = 1",
    ],
)
def test_the_record_in_hand_is_found_whatever_the_loop(nodes: Nodes, loop: str) -> None:
    head = "from patterns import *\ndef f(row):\n    if row['n'] == 2:\n        raise ValueError\n"
    (nodes.folder / "node.py").write_text(head + loop)
    run = nodes.app.run("node.py")
    assert run.outcome.kind == "failed"
    assert [letter.record for letter in nodes.app.dead_letters] == [{"n": 2}]


@pytest.mark.parametrize(
    "loop",
    [
        "list(Table('a').as_stream())\n1 / 0",
        "for row in Table('a').as_stream(): pass\n1 / 0",
        "for row in Table('a').as_stream(): break\n1 / 0",
        "for row in Table('a').as_stream():\n    try:\n        1 / 0\n    except ZeroDivisionError:\n        break\n1 / 0",
        "1 / 0",
    ],
)
def test_a_failure_outside_of_the_loop_blames_no_record(nodes: Nodes, loop: str) -> None:
    (nodes.folder / "node.py").write_text("from patterns import *\n" + loop)
    run = nodes.app.run("node.py")
    assert run.outcome.kind == "failed" and nodes.app.dead_letters == []


def test_exit_is_a_normal_end(nodes: Nodes) -> None:
    nodes.ok("""
        out = Table("out", "w")
        for row in Table("a").as_stream():
            out.append(row)
            if row["n"] == 1:
                exit()
    """)
    assert seen(nodes) == [0, 1]


# -- consume_with_rollback


BODIES = """
    import os
    out, state = Table("out", "w"), State()
    with Table("a").as_stream().consume_with_rollback() as rows:
        for row in rows:
            out.append(row)
            state.set_value("last", row["n"])
            if row["n"] == 5 and not state.get_value("healed"):
                raise RuntimeError("five")
"""


def test_a_failing_body_is_dropped_whole_and_handed_out_again(nodes: Nodes) -> None:
    run = nodes.run(BODIES)
    assert run.outcome.kind == "failed" and run.outcome.retry
    assert seen(nodes) == [0, 1, 2, 3, 4] and nodes.app.dead_letters == []
    assert nodes.app.memory("node.py").state == {"last": 4}
    nodes.app.memory("node.py").state["healed"] = True
    nodes.ok(BODIES)
    assert seen(nodes) == list(range(10))


def test_the_last_try_of_a_body_goes_to_the_dead_letters(nodes: Nodes) -> None:
    nodes.run(BODIES)
    run = nodes.run(BODIES, dead_letter=True)
    assert run.outcome.kind == "failed" and not run.outcome.retry
    assert [letter.record for letter in nodes.app.dead_letters] == [{"n": 5}]
    nodes.ok(BODIES)
    assert seen(nodes) == [0, 1, 2, 3, 4, 6, 7, 8, 9]


def test_another_record_than_the_one_that_kept_failing_has_its_own_tries(nodes: Nodes) -> None:
    run = nodes.run(BODIES, dead_letter=True)  # the first one passes, and so does not use up the last try
    assert run.outcome.retry and nodes.app.dead_letters == []


def test_looping_over_the_stream_itself_rolls_back_to_the_beginning(nodes: Nodes) -> None:
    nodes.run("""
        stream, out = Table("a").as_stream(), Table("out", "w")
        with stream.consume_with_rollback() as records:
            for row in stream:
                out.append(row)
                if row["n"] == 5:
                    raise RuntimeError
    """)
    assert seen(nodes) == []
    nodes.ok(APPEND_ALL)
    assert seen(nodes) == list(range(10))


def test_exit_in_a_body_ends_well_and_keeps_it(nodes: Nodes) -> None:
    nodes.ok("""
        out = Table("out", "w")
        with Table("a").as_stream().consume_with_rollback() as rows:
            for row in rows:
                out.append(row)
                if row["n"] == 3:
                    raise SystemExit
    """)
    assert seen(nodes) == [0, 1, 2, 3]


def test_a_body_that_fails_while_a_version_is_begun_takes_the_run_back_to_its_last_commit(nodes: Nodes) -> None:
    """Bodies before it wrote into a version that nobody will see: they must not count as done."""
    nodes.app.append("out", {"n": -1})
    code = """
        out = Table("out", "w")
        out.reset()
        with Table("a").as_stream().consume_with_rollback() as rows:
            for row in rows:
                out.append(row)
                assert row["n"] < 5 or State().get_value("healed")
    """
    assert nodes.run(code).outcome.retry
    assert seen(nodes) == [-1]
    nodes.app.memory("node.py").state["healed"] = True
    nodes.ok(code)
    assert seen(nodes) == list(range(10))


def test_retries_give_plain_code_another_try(nodes: Nodes) -> None:
    code = """
        out, state = Table("out", "w"), State()
        for row in Table("a").as_stream():
            out.append(row)
            state.set_value("at", row["n"])
            assert row["n"] != 5
    """
    run = nodes.run(code, again=True)
    assert run.outcome.retry and seen(nodes) == [] and nodes.app.memory("node.py").state == {}
    run = nodes.run(code, again=True, dead_letter=True)
    assert not run.outcome.retry and [letter.record for letter in nodes.app.dead_letters] == [{"n": 5}]
    assert seen(nodes) == [0, 1, 2, 3, 4, 5]


# -- versions


def test_a_new_version_is_streamed_from_its_first_row(nodes: Nodes) -> None:
    nodes.ok(APPEND_ALL)
    nodes.ok("Table('a', 'w').replace([{'n': 20}, {'n': 21}])", name="other.py")
    nodes.ok(APPEND_ALL)
    assert seen(nodes) == [*range(10), 20, 21]
    nodes.ok("Table('a', 'w').reset()", name="other.py")
    nodes.ok(APPEND_ALL)
    assert seen(nodes) == [*range(10), 20, 21]


def test_a_table_that_was_never_written_gives_nothing(nodes: Nodes) -> None:
    nodes.app.table("empty")
    nodes.ok("assert list(Table('empty').as_stream()) == []")


def test_truncated_and_superseded_rows_are_not_handed_out(nodes: Nodes) -> None:
    nodes.ok(
        """
        t = Table("keyed", "w")
        t.init(unique_on="k")
        t.upsert([{"k": 1, "v": "a"}, {"k": 2, "v": "b"}])
        t.upsert({"k": 1, "v": "c"})
        a = Table("a", "w")
        a.truncate()
        a.append({"n": 99})
    """
        if nodes.app.table("keyed")
        else "",
        name="other.py",
    )
    nodes.ok("""
        assert [(r["k"], r["v"]) for r in Table("keyed").as_stream()] == [(2, "b"), (1, "c")]
        assert [r["n"] for r in Table("a").as_stream()] == [99]
    """)


# -- positions in State


def test_the_position_shows_in_state_and_can_be_set_there(nodes: Nodes) -> None:
    key = f"latest_streamed_{nodes.app.table('a').ref.store_id}_patterns_id"
    nodes.ok("for row in Table('a').as_stream():\n        if row['n'] == 3: break")
    nodes.ok(f"""
        state = State()
        ids = [r["patterns_id"] for r in Table("a").read()]
        assert state.get() == {{{key!r}: ids[3]}}, state.get()
        state.set_value({key!r}, ids[7])
        assert [r["n"] for r in Table("a").as_stream()] == [8, 9]
        assert state.get_value({key!r}) == ids[9]
        state.reset()
        assert state.get_value({key!r}) is None
        assert len(list(Table("a").as_stream())) == 10
        state.set({{"x": 1, {key!r}: ids[8]}})
        assert [r["n"] for r in Table("a").as_stream()] == [9]
        assert state.get() == {{"x": 1, {key!r}: ids[9]}}
    """)
    assert nodes.app.memory("node.py").state == {"x": 1}
    nodes.ok("assert list(Table('a').as_stream()) == []")


def test_nodes_have_positions_of_their_own(nodes: Nodes) -> None:
    nodes.ok(APPEND_ALL)
    nodes.ok("assert len(list(Table('a').as_stream())) == 10", name="other.py")


# -- ordered by a field


@pytest.fixture
def scores(nodes: Nodes) -> Nodes:
    rows = [{"id": n, "score": score} for n, score in enumerate([5, 1, None, 3, 3, 9, 1])]
    nodes.app.append("scores", rows)
    return nodes


def test_order_by_sorts_leaves_out_null_and_goes_on_after_the_value(scores: Nodes) -> None:
    code = "print([r['id'] for r in Table('scores').as_stream(order_by='score')])"
    scores.ok("assert [r['id'] for r in Table('scores').as_stream(order_by='score')] == [1, 6, 3, 4, 0, 5]")
    scores.app.append("scores", [{"id": 7, "score": 4}, {"id": 8, "score": 10}])
    scores.ok("assert [r['id'] for r in Table('scores').as_stream(order_by='score')] == [8]")
    assert code


def test_order_by_does_not_stop_between_equal_values(scores: Nodes) -> None:
    code = """
        out = Table("out", "w")
        for row in Table("scores").as_stream(order_by="score"):
            out.append({"n": row["id"]})
    """
    assert scores.ok(code, rows_max=1).outcome.more == ["k-scores"]
    assert seen(scores) == [1, 6]
    scores.ok(code, rows_max=1)
    assert seen(scores) == [1, 6, 3, 4]
    while scores.ok(code, rows_max=1).outcome.more:
        pass
    assert seen(scores) == [1, 6, 3, 4, 0, 5]


def test_order_by_rolls_back_seeks_and_shows_in_state(scores: Nodes) -> None:
    key = f"latest_streamed_{scores.app.table('scores').ref.store_id}_score"
    scores.ok(f"""
        stream = Table("scores").as_stream(order_by="score")
        assert stream.order_by_field == "score"
        it = iter(stream)
        assert [next(it)["id"] for _ in range(3)] == [1, 6, 3]
        stream.checkpoint()
        assert next(it)["id"] == 4
        stream.rollback()
        assert next(it)["id"] == 4
        assert State().get_value({key!r}) == 3
        stream.seek(4)
        assert next(it)["id"] == 0
        State().set_value({key!r}, 1)
        assert [r["id"] for r in stream] == [3, 4, 0, 5]
        stream.rewind()
        assert len(list(stream)) == 6
    """)


def test_starting_value_counts_for_the_very_first_run_only(scores: Nodes) -> None:
    code = "assert [r['id'] for r in Table('scores').as_stream(order_by='score', starting_value={})] == {}"
    scores.ok(code.format(3, [0, 5]))
    scores.app.append("scores", {"id": 9, "score": 20})
    scores.ok(code.format(3, [9]))


def test_order_by_an_unknown_field_says_which_there_are(scores: Nodes) -> None:
    run = scores.run("list(Table('scores').as_stream(order_by='points'))")
    assert run.error is not None and "'points'" in run.error and "id, score" in run.error


def test_rows_without_ids_and_roles_have_no_order_to_be_streamed_in(nodes: Nodes) -> None:
    """Who gave up the ids must say what orders the rows; a column of creation times does."""
    nodes.app.table("bare")
    nodes.app.table("stamped")
    nodes.ok("""
        bare, stamped = Table("bare", "w"), Table("stamped", "w")
        bare.init(add_monotonic_id=None)
        stamped.init(add_monotonic_id=None, add_created="at")
        for table in (bare, stamped):
            table.append([{"n": 2}, {"n": 1}])
    """)
    nodes.ok(
        """
        stream = Table("stamped").as_stream()
        assert stream.order_by_field == "at" and [row["n"] for row in stream] == [2, 1]
        assert [row["n"] for row in Table("bare").as_stream(order_by="n")] == [1, 2]
    """,
        name="orders.py",
    )
    run = nodes.run("Table('bare').as_stream()", name="bare.py")
    assert run.error is not None and "OrderingError" in run.error and "order_by" in run.error


def test_after_a_reset_a_stream_gives_nothing(nodes: Nodes) -> None:
    """What the run itself has left behind is not handed out; what it begins is, to the next run."""
    nodes.app.append("other", [{"n": 1}, {"n": 2}])
    nodes.ok("""
        writer = Table("other", "w")
        writer.reset()
        assert list(Table("other").as_stream()) == [] and list(Table("other").as_stream(order_by="n")) == []
        writer.append({"n": 3})
        assert list(Table("other").as_stream()) == []
    """)
    nodes.ok("assert [row['n'] for row in Table('other').as_stream()] == [3]")


def test_a_role_given_to_init_is_the_default_order(nodes: Nodes) -> None:
    nodes.app.table("r")
    nodes.ok(
        """
        t = Table("r", "w")
        t.init(strictly_monotonic_ordering="seq", retention_days=7)  # what is no role is passed over
        t.append([{"seq": 3}, {"seq": 1}])
    """,
        name="other.py",
    )
    nodes.ok("""
        s = Table("r").as_stream()
        assert s.order_by_field == "seq" and [r["seq"] for r in s] == [1, 3]
    """)


# -- webhooks


def test_webhook_rows_fall_back_to_their_record_and_are_forwarded_whole(nodes: Nodes) -> None:
    nodes.app.post("hook", {"email": "a@b.c", "n": 1})
    nodes.ok("""
        from datetime import datetime
        for row in Table("hook").as_stream():
            assert row["email"] == "a@b.c" and row["record"]["n"] == 1
            assert isinstance(row["timestamp"], datetime)
            Table("out", "w").append(row)
    """)
    (row,) = nodes.rows("out")
    assert list(row) == ["timestamp", "record"]


def test_whatever_json_was_posted_can_be_read(nodes: Nodes) -> None:
    """A post that was accepted is a row: one that is a mere text or number must neither get lost nor stop the others."""
    nodes.app.post("hook", {"a": 1}, "words", 5, [1, "x"], True, None)
    nodes.ok("""
        records = [{"a": 1}, "words", 5, [1, "x"], True, None]
        assert [row["record"] for row in Table("hook").as_stream()] == records
        assert [row["record"] for row in Table("hook").as_stream(order_by="timestamp")] == records
        texts = ['{"a":1}', '"words"', "5", '[1,"x"]', "true", None]
        assert [row["record"] for row in Table("hook").read()] == texts
        assert [row["record"] for row in Table("hook").read_sql("select record from {{ hook }}")] == texts
        assert Table("hook").read_sql("select record ->> 'a' as a from {{ hook }}")[:2] == [{"a": "1"}, {"a": None}]
    """)


def test_threads_may_share_the_api(nodes: Nodes) -> None:
    nodes.ok("""
        from concurrent.futures import ThreadPoolExecutor
        out = Table("out", "w")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(out.append, Table("a").as_stream()))
    """)
    assert sorted(seen(nodes)) == list(range(10))
