"""Runs and lines of output as people read them, and the thread that prints them while `up` goes on.

Entries are mappings: `RunEntry` and `LogLine` of the journal, as they also come over HTTP.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tailrace.cli.output import clock_time, console, count, duration, print_json_line, printable

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["Entry", "Feed", "Folding", "entry_printer", "line_text", "run_text"]

Entry = Mapping[str, Any]

FOLD_S = 1.0
"""A node's runs within this long after one that was shown are shown as one: a stream node runs many times a second."""

WAITING_MAX = 5_000
"""Most entries that wait to be printed; what comes on top is counted, not shown: a terminal may stand still."""


def run_text(entry: Entry, title_width: int = 12) -> Text:
    """One run on one line, with its error and traceback below."""
    from rich.text import Text

    good = entry["kind"] == "ok"
    text = Text(clock_time(entry["started_ms"]), style="dim")
    text.append(" ✓ " if good else " ✗ ", style="bold green" if good else "bold red")
    text.append(f"{printable(entry['title']):<{title_width}} ", style="bold cyan" if good else "bold red")
    if not good:
        text.append(f"{entry['kind'].replace('_', ' ')} ", style="red")
    read = f"{entry['rows_in']:,} in, " if entry["rows_in"] else ""
    text.append(f"{read}{count(entry['rows_out'], 'row')} out ")
    text.append(f" {duration(entry['duration_ms'])}  ", style="magenta")
    text.append(_why(entry), style="dim")
    if entry.get("error"):
        text.append(f"\n           {printable(entry['error'])}", style="red")
    if entry.get("traceback"):
        for line in entry["traceback"].rstrip().splitlines():
            text.append(f"\n           {printable(line)}", style="dim red")
    return text


def _why(entry: Entry) -> str:
    parts = [", ".join(entry["reasons"])]
    if entry["covers"] > 1:
        parts.append(f"covers {count(entry['covers'], 'commit')}")
    if entry["runs"] > 1:
        parts.append(count(entry["runs"], "run"))
    if entry["try_number"] > 1:
        parts.append(f"try {entry['try_number']}")
    return " · ".join(part for part in parts if part)


def line_text(entry: Entry, title_width: int = 12) -> Text:
    """One line that a node printed, or that is said about it."""
    from rich.text import Text

    styles = {"stderr": "yellow", "tailrace": "dim italic"}
    text = Text(clock_time(entry["at_ms"]), style="dim")
    text.append(" │ ", style="dim")
    text.append(f"{printable(entry['title']):<{title_width}} ", style="cyan")
    text.append(printable(entry["text"].rstrip("\n")), style=styles.get(entry["stream"], ""))
    return text


class Folding:
    """Many quiet runs of a node become one entry a second; what failed or was printed is never held back."""

    def __init__(self, fold_s: float = FOLD_S) -> None:
        self._fold_s = fold_s
        self._shown_s: dict[str, float] = {}
        self._held: dict[str, dict[str, Any]] = {}

    def add(self, entry: Entry, now_s: float) -> list[Entry]:
        """What is to be shown now that `entry` has come."""
        if entry["type"] != "run":
            return [entry]
        node = f"{entry['graph']}/{entry['node']}"
        quiet = entry["kind"] == "ok"
        held = self._held.pop(node, None)
        if quiet and (held is not None or now_s < self._shown_s.get(node, float("-inf")) + self._fold_s):
            self._held[node] = _together(held, entry)
            return []
        self._shown_s[node] = now_s
        return [entry] if held is None else [held, entry]

    def due(self, now_s: float) -> list[Entry]:
        """What has been held back for long enough."""
        nodes = [node for node in self._held if now_s >= self._shown_s.get(node, 0.0) + self._fold_s]
        self._shown_s.update(dict.fromkeys(nodes, now_s))
        return [self._held.pop(node) for node in nodes]

    def rest(self) -> list[Entry]:
        """All that is held back: it is the end."""
        held, self._held = list(self._held.values()), {}
        return list(held)

    @property
    def holds(self) -> bool:
        """Whether anything is held back."""
        return bool(self._held)


def _together(first: dict[str, Any] | None, second: Entry) -> dict[str, Any]:
    if first is None:
        return dict(second)
    added = {name: first[name] + second[name] for name in ("runs", "rows_in", "rows_out", "duration_ms", "covers")}
    reasons = tuple(dict.fromkeys((*first["reasons"], *second["reasons"])))
    return {**second, **added, "reasons": reasons, "started_ms": first["started_ms"]}


def entry_printer(*, as_json: bool, title_width: int = 12) -> Callable[[Sequence[Entry]], None]:
    """What prints entries: as NDJSON, or in colour for people."""
    if as_json:

        def print_lines(entries: Sequence[Entry]) -> None:
            for entry in entries:
                print_json_line(entry)

        return print_lines
    to = console()

    def print_texts(entries: Sequence[Entry]) -> None:
        for entry in entries:
            make = run_text if entry["type"] == "run" else line_text
            to.print(make(entry, title_width), soft_wrap=True)
        to.file.flush()

    return print_texts


class Feed:
    """Prints entries in a thread of its own, so that a terminal that stands still does not hold up the nodes."""

    def __init__(self, show: Callable[[Sequence[Entry]], None], *, fold: bool = True) -> None:
        self._show = show
        self._folding = Folding(FOLD_S if fold else 0.0)
        self._news = threading.Condition()
        self._waiting: deque[Entry] = deque()
        self._missed = 0
        self._ended = False
        self._thread = threading.Thread(target=self._print, name="feed", daemon=True)

    def start(self) -> None:
        """Begin to print; what came before waits until now."""
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Have `entry` printed soon; never waits."""
        with self._news:
            if len(self._waiting) >= WAITING_MAX:
                self._missed += 1
                return
            self._waiting.append(entry)
            self._news.notify()

    def stop(self, timeout_s: float = 1.0) -> None:
        """Print what is left, and end; waits no longer than `timeout_s`."""
        with self._news:
            self._ended = True
            self._news.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @property
    def missed(self) -> int:
        """Entries that were not printed, because too many waited."""
        return self._missed

    def _print(self) -> None:
        while True:
            with self._news:
                if not self._waiting and not self._ended:
                    self._news.wait(0.2 if self._folding.holds else None)
                entries, self._waiting = list(self._waiting), deque()
                ended = self._ended
            now_s = time.monotonic()
            shown = [found for entry in entries for found in self._folding.add(entry, now_s)]
            shown += self._folding.rest() if ended else self._folding.due(now_s)
            try:
                self._show(shown)
            except OSError:  # nobody reads our output any more; the nodes go on
                self._show = lambda _: None
            if ended and not self._waiting:
                return
