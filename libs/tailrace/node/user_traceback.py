"""Errors of node code as its author should see them: their frames only, paths from the app's folder, and a way out."""

from __future__ import annotations

import os
import resource
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from tailrace.errors import TailraceError

__all__ = ["ErrorPlace", "error_hint", "error_place", "format_user_traceback", "is_app_file"]

FRAMES_MAX = 2_000
"""Longest chain of calls that is looked at; with a raised recursion limit there are millions, and no memory left."""

REPEATS_MIN = 100
"""From so many calls in a row of one function on, an error for want of memory is told as recursion without end."""

_RECURSION_HINT = "a function calls itself without end; the repeated lines above show which"

TEXT_CHARS_MAX = 32_000
"""Longest traceback that is kept; one holds thousands of frames, or an error text that is a whole response body."""

_OURS = tuple(
    {
        str(Path(__file__).resolve().parents[1]) + os.sep,  # tailrace
        str(Path(__file__).resolve().parents[2] / "patterns") + os.sep,
    }
)

_RUNNER = str(Path(__file__).resolve().with_name("script.py"))
"""What calls node code: all frames above are not the author's."""

_DISTRIBUTIONS = {
    # What is installed under another name than it is imported by; those that people ask for most.
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python-headless",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "google": "google-api-python-client",
    "jwt": "pyjwt",
    "psycopg2": "psycopg2-binary",
    "sklearn": "scikit-learn",
    "slack": "slack_sdk",
    "yaml": "pyyaml",
}


class ErrorPlace(NamedTuple):
    """Where in the app an error arose."""

    file: str
    """Path from the app's folder, with slashes."""

    line: int
    """From 1."""


def is_app_file(path: str, app_dir: str | Path) -> bool:
    """Whether `path` belongs to the app itself, and not to a virtual environment inside of its folder."""
    prefix = f"{app_dir}{os.sep}"
    return path.startswith(prefix) and f"{os.sep}site-packages{os.sep}" not in path[len(prefix) - 1 :]


def error_place(exc: BaseException, app_dir: str | Path) -> ErrorPlace | None:
    """The innermost line of the app that `exc` came through; None where it never was in the app's code."""
    app_dir = os.path.realpath(app_dir)
    if isinstance(exc, SyntaxError) and exc.filename and is_app_file(exc.filename, app_dir):
        return ErrorPlace(_relative(exc.filename, app_dir), exc.lineno or 1)
    place = None
    frame = exc.__traceback__
    while frame is not None:
        path = frame.tb_frame.f_code.co_filename
        if is_app_file(path, app_dir):
            place = ErrorPlace(_relative(path, app_dir), frame.tb_lineno or 1)
        frame = frame.tb_next
    return place


def format_user_traceback(exc: BaseException, app_dir: str | Path) -> str:
    """`exc` as Python prints it, beginning at the app's first frame, without frames of ours, and with a hint.

    Libraries' frames stay, as they show what the app's call ended in. An error of ours says all of that in its text: of
    it, and of what it was made of, only the app's frames are shown. At most `TEXT_CHARS_MAX` characters, cut in the middle.
    """
    app_dir = os.path.realpath(app_dir)
    endless = isinstance(exc, MemoryError | SystemError) and _repeats(exc.__traceback__) >= REPEATS_MIN
    frames_cut = _shorten(exc)
    tree = traceback.TracebackException(type(exc), exc, exc.__traceback__, compact=True)
    _tidy(tree, exc, app_dir)
    text = "".join(tree.format())
    if not tree.stack and tree.__cause__ is None and tree.__context__ is None:  # a file that does not even parse
        text = text.removeprefix("Traceback (most recent call last):\n")
    if frames_cut:
        text += f"({frames_cut:,} calls in the middle are left out)\n"
    # Out of memory that deep, Python may raise anything ("SystemError: error return without exception set"), and
    # may have had no memory left for most of the chain of calls.
    hint = _RECURSION_HINT if frames_cut or endless else error_hint(exc)
    if hint is not None:
        text += f"hint: {hint}\n"
    if len(text) > TEXT_CHARS_MAX:
        half = TEXT_CHARS_MAX // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half:,} characters left out ...\n{text[-half:]}"
    return text


def error_hint(exc: BaseException) -> str | None:
    """What to write or set instead, for mistakes that are often made; None for all others."""
    if isinstance(exc, ModuleNotFoundError) and exc.name is not None:
        return _missing_module_hint(exc.name)
    if isinstance(exc, ImportError) and exc.name == "datetime":
        return "the module `datetime` has a class of the same name: `from datetime import datetime`"
    if isinstance(exc, MemoryError):
        limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
        if limit != resource.RLIM_INFINITY:
            return (
                f"the node hit its memory limit of {limit / (1 << 30):.2g} GiB: read large tables in chunks "
                "(`chunksize=`), or stream them"
            )
    if isinstance(exc, RecursionError):
        return _RECURSION_HINT
    if isinstance(exc, PermissionError) and exc.filename is not None:
        return "a node reads its app's files, and writes below `tempfile.gettempdir()` alone"
    return None


def _missing_module_hint(name: str) -> str | None:
    parent, _, child = name.rpartition(".")
    if name == "datetime.datetime":
        return "write `from datetime import datetime`, and `datetime.now()` where the time is needed"
    if name.partition(".")[0] == "patterns_components":
        return (
            "install it beside Tailrace with `pip install --no-deps patterns-components`: what it depends on would take "
            "the place of the module `patterns`"
        )
    if parent in sys.modules and not hasattr(sys.modules[parent], "__path__"):
        return f"`{parent}` is a module, not a package: write `from {parent} import {child}`"
    if parent:
        return None
    if name in sys.stdlib_module_names:
        return None
    package = _DISTRIBUTIONS.get(name, name)
    return (
        f"if `{name}` is a package from PyPI, list `{package}` in a pip requirements file and name that file under "
        "the key `requirements_file` in graph.yml; if it is a file of this app, check its name and folder"
    )


def _repeats(frame: TracebackType | None) -> int:
    """Longest row of calls of one and the same function."""
    longest, row, last = 0, 0, None
    while frame is not None:
        code = frame.tb_frame.f_code
        row = row + 1 if code is last else 1
        longest, last, frame = max(longest, row), code, frame.tb_next
    return longest


def _shorten(exc: BaseException) -> int:
    """Take the middle out of chains over FRAMES_MAX calls, which frees what they hold; how many were taken out."""
    cut = 0
    seen: set[int] = set()
    waiting: list[BaseException | None] = [exc]
    while waiting:
        error = waiting.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        cut += _shorten_chain(error.__traceback__)
        waiting += [error.__cause__, error.__context__]
    return cut


def _shorten_chain(first: TracebackType | None) -> int:
    length, frame = 0, first
    while frame is not None:
        length, frame = length + 1, frame.tb_next
    if first is None or length <= FRAMES_MAX:
        return 0
    head = first
    for _ in range(FRAMES_MAX // 2 - 1):
        assert head.tb_next is not None, "it is longer than that"
        head = head.tb_next
    tail = head
    for _ in range(length - FRAMES_MAX + 1):
        assert tail.tb_next is not None, "it is longer than that"
        tail = tail.tb_next
    head.tb_next = tail
    return length - FRAMES_MAX


def _tidy(tree: traceback.TracebackException, exc: BaseException, app_dir: str) -> None:
    """Clean `tree`, which tells of `exc`, and the errors that it was caused by or holds, in place."""
    if isinstance(exc, TailraceError):
        if exc.__cause__ is not None and error_place(exc.__cause__, app_dir) is None:
            tree.__cause__ = None
        if exc.__context__ is not None and error_place(exc.__context__, app_dir) is None:
            tree.__context__ = None
        tree.stack[:] = [frame for frame in tree.stack if is_app_file(frame.filename, app_dir)]
    seen: set[int] = set()
    waiting: list[traceback.TracebackException | None] = [tree]
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        begin = max((n for n, frame in enumerate(node.stack, 1) if frame.filename == _RUNNER), default=0)
        frames = [frame for frame in node.stack[begin:] if not _is_ours(frame.filename)]
        own = [number for number, frame in enumerate(frames) if is_app_file(frame.filename, app_dir)]
        # What lies above the app's first frame called it. Where there is none (an error in a library, say, that
        # the app's error was caused by), everything stays.
        frames = frames[own[0] :] if own else frames
        for frame in frames:
            _ = frame.line  # read from the file before its name changes
            frame.filename = _shown(frame.filename, app_dir)
        node.stack[:] = frames
        if getattr(node, "filename", None):  # a SyntaxError
            node.filename = _shown(node.filename, app_dir)
        waiting += [node.__cause__, node.__context__, *(getattr(node, "exceptions", None) or ())]


def _is_ours(path: str) -> bool:
    return path.startswith((*_OURS, "<frozen importlib", "<frozen runpy"))


def _relative(path: str, app_dir: str) -> str:
    return Path(path).relative_to(app_dir).as_posix()


def _shown(path: str, app_dir: str) -> str:
    if is_app_file(path, app_dir):
        return _relative(path, app_dir)
    _, found, rest = path.rpartition(f"{os.sep}site-packages{os.sep}")
    return rest if found else path
