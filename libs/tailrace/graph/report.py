"""Errors as a compiler prints them."""

from __future__ import annotations

from tailrace.graph.model import App, GraphError

__all__ = ["format_error", "format_errors"]


def format_errors(app: App, folder: str = "") -> str:
    """One line for each error, `folder/graph.yml:12: error: [nodeid] message (hint)`, and a line that sums up.

    Args:
        folder: put before each file, so that terminals and editors can follow the path.
    """
    lines = [format_error(error, folder) for error in app.errors]
    errors = sum(error.severity == "error" for error in app.errors)
    warnings = len(app.errors) - errors
    found = [_count(number, word) for number, word in ((errors, "error"), (warnings, "warning")) if number]
    size = f"{_count(len(app.nodes), 'node')} and {_count(len(app.stores), 'store')}"
    lines.append(f"{_printable(app.title)}: {', '.join(found) or 'no errors'} in {size}")
    return "\n".join(lines)


def format_error(error: GraphError, folder: str = "") -> str:
    """One error on one line."""
    path = f"{folder.rstrip('/')}/{error.file}" if folder else error.file
    node = f"[{error.node_id}] " if error.node_id else ""
    hint = f" ({error.hint})" if error.hint else ""
    return _printable(f"{path}:{error.line}: {error.severity}: {node}{error.message}{hint}")


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _printable(text: str) -> str:
    """`text` on one line, and without what a hostile file could send to a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
