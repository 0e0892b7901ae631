"""Reading one map of a graph file key by key: typed values, or an error that names the line and what to write."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal

from tailrace.durations import duration
from tailrace.graph.model import ConnectionRef, SecretRef
from tailrace.graph.problems import Problems
from tailrace.graph.yamltree import Tree, plain

__all__ = ["Section", "parameter_value"]

_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_REFERENCE = re.compile(r"\$\{\{\s*(?:(connection)\s*\.\s*)?([A-Za-z0-9_-]+)\s*\}\}")
_TYPO_CUTOFF = 0.83
"""How alike a key must be to one that is missing; `description`, which older files have, is like `description_file` by 0.81."""


class Section:
    """A map whose keys are taken one by one; those never asked for are `rest()`.

    A missing key and one with an empty value are the same. A value of a wrong type is an error and counts as missing.
    """

    def __init__(self, tree: Tree, file: str, problems: Problems) -> None:
        assert isinstance(tree.value, dict), "the caller looks first"
        self.line = tree.line
        self.node_id: str | None = None
        """Set as soon as it is known, so that errors can name the node."""
        self._fields: Mapping[str, Tree] = tree.value
        self._lines = tree.key_lines
        self._file = file
        self._problems = problems
        self._taken: set[str] = set()

    def line_of(self, key: str) -> int:
        return self._lines.get(key, self.line)

    def has(self, key: str) -> bool:
        """Whether the key is there with a value; does not take it."""
        return key in self._fields and self._fields[key].value is not None

    def error(self, line: int, message: str, hint: str = "", severity: Literal["error", "warning"] = "error") -> None:
        self._problems.add(self._file, line, message, node_id=self.node_id, hint=hint, severity=severity)

    def tree(self, key: str) -> Tree | None:
        self._taken.add(key)
        tree = self._fields.get(key)
        return None if tree is None or tree.value is None else tree

    def text(self, key: str) -> str | None:
        """Text. A number or a date is used as written, but told: YAML may take it for something else."""
        tree = self.tree(key)
        return None if tree is None else self._text(tree, key)

    def raw(self, key: str) -> str | None:
        """A scalar exactly as written, whatever YAML takes it for: ids such as 00123456, versions such as 1.10."""
        tree = self.tree(key)
        if tree is None:
            return None
        if tree.text is None:
            self._wrong(tree, key, "text")
        return tree.text

    def texts(self, key: str) -> list[tuple[str, int]]:
        """A list of texts, each with its line; one text alone counts as a list of one."""
        tree = self.tree(key)
        if tree is None:
            return []
        if isinstance(tree.value, list):
            items = [(item.text, item.line) for item in tree.value if item.text is not None]
            if len(items) < len(tree.value):
                self._wrong(tree, key, "a list of texts")
            return [(text, line) for text, line in items if text]
        if tree.text is None:
            self._wrong(tree, key, "a list of texts")
            return []
        return [(tree.text, tree.line)]

    def entries(self, key: str) -> list[Tree]:
        """A list of maps."""
        tree = self.tree(key)
        if tree is None:
            return []
        if not isinstance(tree.value, list):
            self._wrong(tree, key, "a list")
            return []
        entries = []
        for item in tree.value:
            if isinstance(item.value, dict):
                entries.append(item)
            else:
                self._wrong(item, f"An entry of {key}", "a map of keys")
        return entries

    def map(self, key: str) -> Tree | None:
        tree = self.tree(key)
        if tree is not None and not isinstance(tree.value, dict):
            self._wrong(tree, key, "a map of keys")
            return None
        return tree

    def section(self, key: str) -> Section | None:
        tree = self.map(key)
        return None if tree is None else Section(tree, self._file, self._problems)

    def names(self, key: str) -> tuple[dict[str, str], dict[str, int]]:
        """A map from name to name, and the line of each."""
        tree = self.map(key)
        found: dict[str, str] = {}
        if tree is None:
            return found, {}
        assert isinstance(tree.value, dict)
        for name, item in tree.value.items():
            text = self._text(item, f"{key}.{name}")
            if text:
                found[name] = text
            elif item.value is None or text == "":
                self._wrong(item, f"{key}.{name}", "the name of a store")
        return found, dict(tree.key_lines)

    def plain_map(self, key: str) -> dict[str, object]:
        tree = self.map(key)
        value = plain(tree) if tree is not None else {}
        assert isinstance(value, dict)
        return value

    def integer(self, key: str, low: int, high: int) -> int | None:
        tree = self.tree(key)
        if tree is None:
            return None
        if not isinstance(tree.value, int) or isinstance(tree.value, bool) or not low <= tree.value <= high:
            self._wrong(tree, key, f"a whole number from {low} to {high}")
            return None
        return tree.value

    def flag(self, key: str, *, default: bool = False) -> bool:
        tree = self.tree(key)
        if tree is None:
            return default
        if not isinstance(tree.value, bool):
            self._wrong(tree, key, "true or false")
            return default
        return tree.value

    def choice(self, key: str, of: Sequence[str]) -> str | None:
        written = self.text(key)
        if written is not None and written not in of:
            message = f'{key} must be {", ".join(of[:-1])} or {of[-1]}, not "{written}"'
            self.error(self.line_of(key), message)
            return None
        return written

    def duration_s(self, key: str) -> float | None:
        """Seconds, from a number of them or from a text such as `90s`, `10m`, `1.5h`."""
        tree = self.tree(key)
        return None if tree is None else self._duration_s(tree, key)

    def durations_s(self, key: str) -> tuple[float, ...]:
        """A list of them; one alone counts as a list of one. Empty where any of them is wrong."""
        tree = self.tree(key)
        if tree is None:
            return ()
        trees = tree.value if isinstance(tree.value, list) else [tree]
        if not trees:
            self._wrong(tree, key, "a number of seconds or a text such as 90s, 10m or 2h, or a list of these")
        found = [self._duration_s(each, key) for each in trees]
        return tuple(seconds for seconds in found if seconds is not None) if None not in found else ()

    def _duration_s(self, tree: Tree, key: str) -> float | None:
        seconds = -1.0
        if isinstance(tree.value, int | float) and not isinstance(tree.value, bool):
            seconds = float(tree.value) if abs(tree.value) < 1e12 else -1.0
        elif isinstance(tree.value, str):
            with suppress(ValueError):
                seconds = duration(tree.value).total_seconds()
        if not (math.isfinite(seconds) and seconds > 0):
            self._wrong(tree, key, "a number of seconds or a text such as 90s, 10m or 2h")
            return None
        return seconds

    def size_bytes(self, key: str) -> int | None:
        """Bytes, from a number of them or from a text: `512MB` counts in thousands, `512M` and `512MiB` in 1,024s."""
        tree = self.tree(key)
        if tree is None:
            return None
        size = 0
        if isinstance(tree.value, int) and not isinstance(tree.value, bool):
            size = tree.value
        elif isinstance(tree.value, str) and (match := _SIZE.fullmatch(tree.value.strip())):
            decimal = tree.value.strip()[-1] in "bB" and not match[3]
            power = " KMGT".index(match[2].upper() or " ")
            size = int(float(match[1]) * (1000 if decimal else 1024) ** power)
        if not 0 < size < 1 << 50:
            self._wrong(tree, key, "a number of bytes or a text such as 512MB or 2GiB")
            return None
        return size

    def rest(self) -> dict[str, object]:
        """Keys that nobody asked for: carried along, never an error. One that is all but a key that is missing is told."""
        missing = self._taken - self._fields.keys()
        for key, line in self.rest_lines().items():
            for near in difflib.get_close_matches(key, missing, n=1, cutoff=_TYPO_CUTOFF):
                self.error(line, f'Key "{key}" has no effect', hint=f"is it meant to be {near}?", severity="warning")
        return {key: plain(tree) for key, tree in self._fields.items() if key not in self._taken}

    def rest_lines(self) -> dict[str, int]:
        """Where each key of `rest` stands."""
        return {key: self.line_of(key) for key in self._fields if key not in self._taken}

    def _text(self, tree: Tree, what: str) -> str | None:
        if isinstance(tree.value, str):
            return tree.value
        if tree.text is None:
            self._wrong(tree, what, "text")
            return None
        if tree.value is not None:
            self.error(tree.line, f"{what} must be text, not {_kind(tree)}", hint=f'write "{tree.text}" in quotes')
        return tree.text

    def _wrong(self, tree: Tree, what: str, wanted: str) -> None:
        self.error(tree.line, f"{what} must be {wanted}, not {_kind(tree)}")


def parameter_value(value: object) -> object:
    """A value of `parameter_values`: `${{ name }}` and `${{ connection.name }}` become references, the rest stays."""
    if isinstance(value, str) and (match := _REFERENCE.fullmatch(value.strip())):
        return ConnectionRef(match[2]) if match[1] else SecretRef(match[2])
    return value


def _kind(tree: Tree) -> str:
    if isinstance(tree.value, list):
        return "a list"
    if isinstance(tree.value, dict):
        return "a map"
    if tree.value is None:
        return "empty"
    shown = (tree.text or "")[:40]
    return {bool: "true/false", int: "the number", float: "the number", str: "the text"}.get(
        type(tree.value), "the date"
    ) + f" {shown!r}"
