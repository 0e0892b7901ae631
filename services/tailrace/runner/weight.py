"""What a node's code asks for at once: whether a worker that has the large libraries ready serves it better."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import PurePosixPath
from typing import NamedTuple

__all__ = ["wants_libraries"]

_KNOWN = sys.stdlib_module_names | {"patterns", "orjson"}
"""Any worker has these."""

_LOADING = frozenset({"read", "read_dataframe", "read_sql", "execute_sql", "record_count"})
"""What in the node API may need pyarrow, pandas or duckdb whatever it is given."""


def wants_libraries(paths: Iterable[str], files: Mapping[str, bytes]) -> set[str]:
    """Those Python files of an app that, with those that they import, will load large libraries in a usual run.

    A guess: it decides which zygote a worker is forked from, and so what it costs, never what it can do. One that has the
    libraries is three times as large, which each fork and each end of a worker pays for (about 9 ms), and the first waits
    until they are loaded; one that lacks them imports them by itself, once (0.1 to 0.4 s).

    Args:
        files: the app's Python files.
    """
    modules: dict[str, set[str]] = {}
    for path in files:
        pure = PurePosixPath(path)
        for name in (*pure.parts[:-1], pure.stem):
            modules.setdefault(name, set()).add(path)
    asked = cache(lambda path: _asked(files[path]))
    return {path for path in paths if _wants(path, modules, asked)}


def _wants(path: str, modules: Mapping[str, set[str]], asked: Callable[[str], _Asked]) -> bool:
    waiting, seen = [path], {path}
    while waiting:
        imports, loads = asked(waiting.pop())
        if loads:
            return True
        for name, relative in imports:
            own = modules.get(name, set())
            if not own and not relative and name not in _KNOWN:
                return True
            waiting += own - seen
            seen |= own
    return False


class _Asked(NamedTuple):
    """What a file asks for: modules, each with whether it is named relatively, and reading whole Tables."""

    imports: frozenset[tuple[str, bool]] = frozenset()
    loads: bool = False


def _asked(text: bytes) -> _Asked:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _Asked()  # it will not run
    imports: set[tuple[str, bool]] = set()
    loads = False
    for each in ast.walk(tree):
        if isinstance(each, ast.Import):
            imports |= {(alias.name.partition(".")[0], False) for alias in each.names}
        elif isinstance(each, ast.ImportFrom):
            modules = [each.module] if each.module else [alias.name for alias in each.names]
            imports |= {(module.partition(".")[0], each.level > 0) for module in modules}
        elif (isinstance(each, ast.Attribute) and each.attr in _LOADING) or (
            isinstance(each, ast.keyword) and each.arg == "order_by"
        ):
            loads = True
    return _Asked(frozenset(imports), loads)
