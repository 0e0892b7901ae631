"""What `up` prints: quiet runs folded, failures at once, nothing that a terminal would obey, and never a wait."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from tailrace.cli.feed import WAITING_MAX, Entry, Feed, Folding, line_text, run_text
from tailrace.cli.output import duration, printable


def run(kind: str = "ok", **values: Any) -> dict[str, Any]:
    return {
        "type": "run", "run": "r", "graph": "app", "node": "n1", "title": "copy", "reasons": ("news",), "kind": kind,
        "started_ms": 0, "duration_ms": 10, "rows_in": 1, "rows_out": 2, "runs": 1, "try_number": 1, "covers": 1,
        "error": None, "traceback": None, **values,
    }  # fmt: skip


def line(text: str) -> dict[str, Any]:
    return {"type": "line", "graph": "app", "node": "n1", "title": "copy", "at_ms": 0, "stream": "stdout", "text": text}


def test_quiet_runs_within_a_second_become_one() -> None:
    folding = Folding(1.0)
    assert len(folding.add(run(), 0.0)) == 1, "the first is shown at once"
    assert [folding.add(run(), at) for at in (0.1, 0.5, 0.9)] == [[], [], []]
    assert folding.due(0.99) == []
    (folded,) = folding.due(1.0)
    assert (folded["runs"], folded["rows_in"], folded["rows_out"], folded["covers"]) == (3, 3, 6, 3)
    assert folding.due(5.0) == [] and not folding.holds


def test_a_failure_is_shown_at_once_and_after_what_was_held_back() -> None:
    """In order, so that it is clear what had been done before."""
    folding = Folding(1.0)
    folding.add(run(), 0.0)
    folding.add(run(), 0.1)
    shown = folding.add(run("failed"), 0.2)
    assert [entry["kind"] for entry in shown] == ["ok", "failed"]


def test_nodes_are_folded_apart_and_the_rest_is_not_lost() -> None:
    folding = Folding(1.0)
    for node in ("n1", "n2"):
        folding.add(run(node=node), 0.0)
        folding.add(run(node=node), 0.1)
    assert sorted(entry["node"] for entry in folding.rest()) == ["n1", "n2"]


def test_lines_are_never_folded() -> None:
    folding = Folding(1.0)
    assert [len(folding.add(line("x"), 0.0)) for _ in range(3)] == [1, 1, 1]


def test_a_run_tells_what_it_read_wrote_and_covers() -> None:
    text = run_text(run(covers=3, runs=2, rows_in=1200, rows_out=1)).plain
    assert "✓ copy" in text and "1,200 in, 1 row out" in text and "covers 3 commits" in text and "2 runs" in text


def test_a_failed_run_shows_error_and_traceback_below() -> None:
    text = run_text(run("timed_out", error="copy.py:3: too slow", traceback="Traceback\n  here", try_number=2)).plain
    head, *below = text.splitlines()
    assert "✗ copy" in head and "timed out" in head and "try 2" in head
    assert [part.strip() for part in below] == ["copy.py:3: too slow", "Traceback", "here"]


def test_output_cannot_command_the_terminal() -> None:
    """Nodes print what webhooks bring in; escape sequences are shown, not obeyed."""
    assert "\x1b" not in line_text(line("\x1b]0;owned\x07\x1b[2J")).plain
    assert printable("a\tb\x1b[31m") == "a\tb\\x1b[31m"


def test_a_printer_that_stands_still_holds_nobody_up() -> None:
    """`put` never waits: what is over the bound is counted, and the rest is printed once it goes on."""
    go_on, shown = threading.Event(), list[Entry]()

    def show(entries: Sequence[Mapping[str, Any]]) -> None:
        go_on.wait(30)
        shown.extend(entries)

    feed = Feed(show, fold=False)
    for _ in range(WAITING_MAX + 7):
        feed.put(line("x"))
    feed.start()
    assert feed.missed == 7
    go_on.set()
    feed.stop(timeout_s=30)
    assert len(shown) == WAITING_MAX


def test_a_closed_pipe_ends_the_printing_alone() -> None:
    def show(entries: Sequence[Mapping[str, Any]]) -> None:
        raise BrokenPipeError

    feed = Feed(show)
    feed.start()
    feed.put(line("x"))
    feed.stop(timeout_s=30)


def test_durations_are_for_people() -> None:
    assert [duration(ms) for ms in (0, 31, 2400, 200_000)] == ["0 ms", "31 ms", "2.4 s", "3 min 20 s"]
