"""YAML as a tree that knows its lines, whatever the text: bounded in size and depth, with problems instead of errors.

PyYAML's own loader drops the places of values, takes the last of two equal keys in silence, lets a few lines of
aliases grow to gigabytes, and raises whatever it happens to stumble over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from types import NoneType

import yaml

from tailrace.graph.problems import Problem
from tailrace.graph.texts import whole

__all__ = ["YAML_CHARACTERS_MAX", "Tree", "parse_yaml", "plain"]

YAML_CHARACTERS_MAX = 1_000_000
"""Longest file that is read: a graph of 1,000 nodes takes a fifth of it, and the parser some seconds for it all."""
VALUES_MAX = 50_000
"""Most values in one file, aliases expanded: what a bomb of aliases is stopped by."""
DEPTH_MAX = 50
"""Deepest nesting, aliases expanded. Real files nest six levels; the parser recurses at each."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A value and where it stands."""

    value: object
    """A scalar, a `list[Tree]` or a `dict[str, Tree]`."""
    line: int
    text: str | None = None
    """A scalar as written, whatever YAML takes it for; None for lists and maps."""
    key_lines: Mapping[str, int] = field(default_factory=dict)
    """For a map: where each key stands."""


def parse_yaml(text: str) -> tuple[Tree | None, tuple[Problem, ...]]:
    """The one document in `text`; None when it is empty or cannot be read (then there is a problem)."""
    if len(text) > YAML_CHARACTERS_MAX:
        hint = f"keep it under {YAML_CHARACTERS_MAX} characters; subgraphs can share the load"
        return None, (Problem(1, f"File of {len(text)} characters is too large", hint=hint),)
    problems: list[Problem] = []
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        tree = None if node is None else _Converter(loader, problems).convert(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        return None, (Problem(line, f"Error parsing YAML: {error.problem or error.context or 'unreadable'}"),)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return None, (Problem(line, f"Error parsing YAML: character {error.character!r} is not allowed"),)
    except Exception as error:  # PyYAML lets through what its parts raise, such as OverflowError for "\UFFFFFFFF"
        line = 1 if loader is None else loader.line + 1
        return None, (Problem(line, f"Error parsing YAML: {whole(str(error))}"),)
    return tree, tuple(problems)


def plain(tree: Tree) -> object:
    """The value alone: scalars, lists and maps with text keys."""
    if isinstance(tree.value, dict):
        return {key: plain(item) for key, item in tree.value.items()}
    if isinstance(tree.value, list):
        return [plain(item) for item in tree.value]
    return tree.value


class _Loader(yaml.SafeLoader):
    """Composes nodes, no deeper and no more of them than the limits say."""

    nodes = depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.nodes += 1
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {DEPTH_MAX} levels", problem_mark=self.get_mark())
        if self.nodes > VALUES_MAX:
            raise yaml.MarkedYAMLError(problem=f"more than {VALUES_MAX} values", problem_mark=self.get_mark())
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_SCALARS = (int, float, bytes, date, NoneType)


class _Converter:
    """Expands aliases and turns nodes into a tree, within the limits."""

    def __init__(self, loader: _Loader, problems: list[Problem]) -> None:
        self._loader = loader
        self._problems = problems
        self._values = 0
        self._around: list[yaml.Node] = []

    def convert(self, node: yaml.Node) -> Tree:
        line = node.start_mark.line + 1
        self._values += 1
        if self._values > VALUES_MAX or len(self._around) > DEPTH_MAX or any(node is each for each in self._around):
            problem = "aliases expand to too much: write the values out"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            return Tree(self._scalar(node, line), line, whole(node.value))
        self._around.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return Tree([self.convert(item) for item in node.value], line)
            return self._map(node, line)
        finally:
            self._around.pop()

    def _scalar(self, node: yaml.ScalarNode, line: int) -> object:
        if node.tag in _NUMBERS and node.style is None and ":" in node.value:
            return whole(node.value)  # YAML 1.1 takes 12:30 for 750; whoever writes it means the text
        try:
            value = self._loader.construct_object(node)
            if isinstance(value, str):
                return whole(value)
        except (yaml.YAMLError, ValueError, OverflowError, KeyError, TypeError):
            message = f"Value cannot be read as {node.tag.rpartition(':')[2]}: {whole(node.value)[:80]!r}"
            self._problems.append(Problem(line, message, hint="quote it if it is text"))
            return whole(node.value)
        return value if isinstance(value, _SCALARS) else whole(node.value)

    def _map(self, node: yaml.Node, line: int) -> Tree:
        items: dict[str, Tree] = {}
        lines: dict[str, int] = {}
        merged: dict[str, Tree] = {}
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._problems.append(Problem(key_line, "A key must be text, not a list or a map"))
                continue
            value = self.convert(value_node)
            if key_node.tag == "tag:yaml.org,2002:merge":
                for source in value.value if isinstance(value.value, list) else [value]:
                    if isinstance(source.value, dict):
                        merged = {**source.value, **merged}
                        lines = {**source.key_lines, **lines}
                continue
            key = whole(key_node.value)
            if key in items:
                message = f'Key "{key}" is written twice: the last one counts'
                self._problems.append(Problem(key_line, message, "warning"))
            items[key], lines[key] = value, key_line
        return Tree({**merged, **items}, line, key_lines=lines)
