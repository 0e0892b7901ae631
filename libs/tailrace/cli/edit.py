"""Adds entries to a `graph.yml` as text, so that comments, order and layout stay; refuses rather than spoils."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tailrace.errors import RejectedError

__all__ = ["GraphEditError", "add_function", "new_id", "yaml_text"]

ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./ -]*[A-Za-z0-9_]|[A-Za-z]")
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))


class GraphEditError(RejectedError):
    """A graph.yml could not be changed without a risk for what is in it; it was not touched."""

    def __init__(self, path: Path, reason: str, entry: str) -> None:
        self.path, self.reason, self.entry = path, reason, entry
        self.hint = f"add it by hand, below `functions:`\n{entry}"
        super().__init__(f"{path} was not changed: {reason}")


def new_id() -> str:
    """An id for a node: eight characters of `a-z2-7`."""
    return "".join(secrets.choice(ID_ALPHABET) for _ in range(8))


def yaml_text(value: str) -> str:
    """`value` as a YAML scalar on one line that is read back as this text."""
    plain = _PLAIN.fullmatch(value) is not None and value.lower() not in _WORDS
    return value if plain else json.dumps(value, ensure_ascii=False)


def add_function(
    graph: Path, entry: Mapping[str, str | Mapping[str, str]], store: Mapping[str, str] | None = None
) -> str:
    """The text of `graph` with `entry` as the last of its `functions`, and `store` of its `stores`, unless it has a
    store of that name.

    Raises:
        GraphEditError: rejected; it cannot be parsed, has that file already, or is laid out in a way that we do
            not dare to change.
    """
    lines = [f"{name}: {_scalar_or_map(value)}" for name, value in entry.items()]
    by_hand = "  - " + "\n    ".join(lines)
    try:
        text = graph.read_bytes().decode()
        before = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise GraphEditError(graph, f"it cannot be read ({' '.join(str(error).split())})", by_hand) from None
    before = {} if before is None else before
    if not isinstance(before, dict) or not all(
        isinstance(before.get(section) or [], list) for section in ("functions", "stores")
    ):
        raise GraphEditError(graph, "it is no graph file", by_hand)
    functions = before.get("functions") or []
    if any(isinstance(each, dict) and each.get("node_file") == entry["node_file"] for each in functions):
        raise GraphEditError(graph, f"it has a node with the file {entry['node_file']} already", by_hand)
    changed = _added(text, "functions", lines)
    wanted = {**before, "functions": [*functions, dict(entry)]}
    stores = before.get("stores") or []
    names = [each.get(key) for each in stores if isinstance(each, dict) for key in ("table", "stream")]
    if store is not None and store["table"] not in names:
        lines = [f"{name}: {yaml_text(value)}" for name, value in store.items()]
        changed = changed and _added(changed, "stores", lines)
        wanted["stores"] = [*stores, dict(store)]
    if changed is None or _parsed(changed) != wanted:
        raise GraphEditError(graph, "its layout is unusual", by_hand)
    return changed


def _scalar_or_map(value: str | Mapping[str, str]) -> str:
    if isinstance(value, str):
        return yaml_text(value)
    return "{" + ", ".join(f"{yaml_text(name)}: {yaml_text(item)}" for name, item in value.items()) + "}"


def _parsed(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _added(text: str, section: str, lines: list[str]) -> str | None:
    """The text with the entry put into the list `section`; None where there is no simple place for it."""
    newline = "\r\n" if "\r\n" in text else "\n"
    root = yaml.compose(text, yaml.SafeLoader)
    found = None
    if isinstance(root, yaml.MappingNode):
        found = next(((key, value) for key, value in root.value if key.value == section), None)
        if root.flow_style:
            return None
    if found is None:
        gap = "" if not text or text.endswith("\n") else newline
        return text + gap + _block(f"{section}:\n", "  ", lines, newline)
    key, value = found
    if isinstance(value, yaml.SequenceNode) and value.value and not value.flow_style:
        indent = " " * value.start_mark.column
        last = value.value[-1]
        end = _line_end(text, _last_character(text, last.end_mark.index))
        gap = "" if text[:end].endswith("\n") else newline
        return text[:end] + gap + _block("", indent, lines, newline) + text[end:]
    if isinstance(value, yaml.SequenceNode) and value.value:
        at = text.rindex("]", value.start_mark.index, value.end_mark.index)
        comma = "" if text[:at].rstrip().endswith(",") else ","
        return text[:at].rstrip() + f"{comma} {{{', '.join(lines)}}}" + text[at:]
    # the key with nothing, null or [] behind it
    start, stop = value.start_mark.index, value.end_mark.index
    colon = text.index(":", key.end_mark.index) + 1
    rest = text[colon:start].rstrip() if stop > start else ""
    after = text[stop:] if stop > start else text[colon:]
    line_end = _line_end(after, 0)
    tail = after[:line_end].rstrip()
    head = text[:colon] + rest + (f" {tail.lstrip()}" if tail.strip() else "") + newline
    return head + _block("", "  ", lines, newline) + after[line_end:]


def _block(head: str, indent: str, lines: list[str], newline: str) -> str:
    entry = f"\n{indent}  ".join(lines)
    return f"{head}{indent}- {entry}\n".replace("\n", newline)


def _last_character(text: str, end: int) -> int:
    """Index past the last character before `end` that is neither blank nor part of a comment line."""
    while end > 0:
        line_start = text.rfind("\n", 0, end - 1) + 1 if text[end - 1] == "\n" else text.rfind("\n", 0, end) + 1
        line = text[line_start:end].strip()
        if line and not line.startswith("#"):
            return line_start + len(text[line_start:end].rstrip())
        end = line_start
    return 0


def _line_end(text: str, at: int) -> int:
    """Index past the line break that ends the line at `at`."""
    found = text.find("\n", at)
    return len(text) if found < 0 else found + 1
