"""Printing: tables and colours for people at a terminal, JSON for programs, nothing that a terminal could obey."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "clock_time",
    "colours",
    "console",
    "count",
    "duration",
    "moment",
    "print_json",
    "print_json_line",
    "print_table",
    "printable",
    "say",
    "short",
    "size",
]

WIDE = 1 << 15
"""Columns of what is no terminal: wide enough that nothing is cut or wrapped there."""


def colours(stream: IO[str]) -> bool:
    """Whether `stream` is shown by a terminal that wants colours."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def console(*, stderr: bool = False) -> Console:
    """A rich console; where it writes to no terminal, without colours and without a right edge."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    shown = colours(stream)
    return Console(
        file=stream,
        force_terminal=shown,
        no_color=not shown,
        width=None if stream.isatty() else WIDE,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
    )


def say(text: str, *, style: str = "") -> None:
    """A line for people, to standard error, so that standard output holds data alone."""
    codes = {"red": "31", "yellow": "33", "dim": "2", "green": "32"}
    for line in text.splitlines() or [""]:
        shown = printable(line)
        if style and colours(sys.stderr):
            shown = f"\x1b[{codes[style]}m{shown}\x1b[0m"
        print(shown, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """`value` as one JSON document."""
    option = orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0
    print(orjson.dumps(value, option=option, default=str).decode(), flush=True)


def print_json_line(value: Any) -> None:
    """`value` as one line of NDJSON."""
    print(orjson.dumps(value, default=str).decode(), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> None:
    """Rows below their headings; numbers' columns, named in `right`, are set to the right."""
    from rich.table import Table
    from rich.text import Text

    to = console()
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False, padding=(0, 2, 0, 0))
    rights = set(right)
    for name in columns:
        table.add_column(
            Text(printable(name)), justify="right" if name in rights else "left", overflow="ellipsis", no_wrap=True
        )
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    if to.is_terminal or to.width != WIDE:
        to.print(table)
        return
    with to.capture() as captured:
        to.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), flush=True)


def _cell(value: object) -> Any:
    from rich.text import Text

    if value is None:
        return Text("-", style="dim")
    if isinstance(value, Text):
        return value
    if isinstance(value, Mapping | list):
        return Text(printable(orjson.dumps(value, default=str).decode()))
    return Text(printable(str(value)))


def printable(text: str) -> str:
    """`text` without what a terminal would obey: control characters are shown as `\\x1b`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\t" else ascii(char)[1:-1] for char in text)


def short(text: str, characters_max: int) -> str:
    """`text`, or its beginning and an ellipsis."""
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"


def duration(ms: float) -> str:
    """A duration for people: `31 ms`, `2.4 s`, `3 min 20 s`."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    return f"{ms // 60_000:.0f} min {ms % 60_000 / 1000:.0f} s"


def count(number: int, word: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def clock_time(ms: int) -> str:
    """The local time of day of milliseconds since 1970."""
    from datetime import datetime

    return datetime.fromtimestamp(ms / 1000).strftime("%H:%M:%S")


def moment(ms: int) -> str:
    """Local date and time of milliseconds since 1970."""
    from datetime import datetime

    return datetime.fromtimestamp(ms / 1000).strftime("%Y-%m-%d %H:%M:%S")


def size(size_bytes: float) -> str:
    """`512 B`, `3.4 MB`."""
    for unit in ("B", "KB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"
