"""What a node's code asks for at once: whether a worker that has the large libraries ready serves it better."""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection, Iterable

__all__ = ["wants_libraries"]

_OURS = frozenset({"patterns", "orjson"})
"""Any worker has these."""

_LOADING = frozenset({"read", "read_dataframe", "read_sql", "execute_sql", "record_count"})
"""What in the node API may need pyarrow, pandas or duckdb whatever it is given."""


def wants_libraries(texts: Iterable[bytes], own: Collection[str]) -> bool:
    """Whether these files, of one node and what it may import of its app, will load large libraries in a usual run.

    A guess: it decides which zygote a worker is forked from, and so what it costs, never what it can do. One that has the
    libraries is three times as large, which each fork and each end of a worker pays for (about 9 ms); one that lacks them
    imports them by itself, once (0.1 to 0.4 s).

    Args:
        own: names of the app's own modules.
    """
    known = sys.stdlib_module_names | _OURS | set(own)
    for text in texts:
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False  # it will not run
        for each in ast.walk(tree):
            if isinstance(each, ast.Import):
                if any(alias.name.partition(".")[0] not in known for alias in each.names):
                    return True
            elif isinstance(each, ast.ImportFrom):
                if not each.level and (each.module or "").partition(".")[0] not in known:
                    return True
            elif (isinstance(each, ast.Attribute) and each.attr in _LOADING) or (
                isinstance(each, ast.keyword) and each.arg == "order_by"
            ):
                return True
    return False
