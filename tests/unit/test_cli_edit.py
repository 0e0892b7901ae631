"""Adding a node to a graph.yml: comments and layout stay, and what cannot be kept is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.cli.edit import GraphEditError, add_function, new_id, yaml_text
from tailrace.graph import is_id

ENTRY = {"node_file": "sub/b.py", "title": "b", "id": "abcdefgh"}
NEW = "- node_file: sub/b.py\n{0}  title: b\n{0}  id: abcdefgh\n"

CASES = {
    "empty": ("", "functions:\n  " + NEW.format("  ")),
    "no functions": ("title: x  # mine\n", "title: x  # mine\nfunctions:\n  " + NEW.format("  ")),
    "no line break at the end": ("title: x", "title: x\nfunctions:\n  " + NEW.format("  ")),
    "no functions yet": ("functions:\nstores: []\n", "functions:\n  " + NEW.format("  ") + "stores: []\n"),
    "an empty list": (
        "functions: []  # none\nstores: []\n",
        "functions: # none\n  " + NEW.format("  ") + "stores: []\n",
    ),
    "in the middle": (
        "functions:\n  - node_file: a.py   # first\n    id: a1\n\n# tables\nstores: []\n",
        "functions:\n  - node_file: a.py   # first\n    id: a1\n  " + NEW.format("  ") + "\n# tables\nstores: []\n",
    ),
    "without indent": (
        "functions:\n- node_file: a.py\n  id: a1\nstores: []\n",
        "functions:\n- node_file: a.py\n  id: a1\n" + NEW.format("") + "stores: []\n",
    ),
    "at the end, without a line break": (
        "functions:\n  - node_file: a.py # last",
        "functions:\n  - node_file: a.py # last\n  " + NEW.format("  "),
    ),
    "a nested last value": (
        "functions:\n  - node_file: a.py\n    display: {x: 1}\n    parameter_values:\n      text: |\n        two\n        lines\nstores: []\n",
        "functions:\n  - node_file: a.py\n    display: {x: 1}\n    parameter_values:\n      text: |\n        two\n        lines\n  "
        + NEW.format("  ")
        + "stores: []\n",
    ),
    "on one line": (
        "functions: [{node_file: a.py}]  # short\n",
        "functions: [{node_file: a.py}, {node_file: sub/b.py, title: b, id: abcdefgh}]  # short\n",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_entry_is_added_and_the_rest_stays(tmp_path: Path, case: str) -> None:
    before, after = CASES[case]
    graph = tmp_path / "graph.yml"
    graph.write_text(before)
    assert add_function(graph, ENTRY) == after


def test_a_node_can_bring_its_table_along(tmp_path: Path) -> None:
    graph = tmp_path / "graph.yml"
    entry = {"node_file": "b.sql", "id": "abcdefgh", "outputs": {"output_table": "b"}}
    function = "  - node_file: b.sql\n    id: abcdefgh\n    outputs: {output_table: b}\n"
    graph.write_text("title: x\n")
    made = add_function(graph, entry, {"table": "b", "id": "bcdefghi"})
    assert made == f"title: x\nfunctions:\n{function}stores:\n  - table: b\n    id: bcdefghi\n"
    graph.write_text("stores:\n- {table: b, id: mine}  # there already\n")
    made = add_function(graph, entry, {"table": "b", "id": "bcdefghi"})
    assert made == f"stores:\n- {{table: b, id: mine}}  # there already\nfunctions:\n{function}"


def test_windows_line_breaks_stay(tmp_path: Path) -> None:
    graph = tmp_path / "graph.yml"
    graph.write_bytes(b"functions:\r\n  - node_file: a.py\r\nstores: []\r\n")
    changed = add_function(graph, ENTRY)
    assert changed.count("\r\n") == changed.count("\n") == 6


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("functions: [\n", "cannot be read"),
        ("functions: 7\n", "no graph file"),
        ("[]\n", "no graph file"),
        ("functions:\n  - node_file: sub/b.py\n", "already"),
        ("{title: x, functions: []}\n", "unusual"),
        ("a: &a [{node_file: a.py}]\nfunctions: *a\n", "unusual"),
    ],
)
def test_what_cannot_be_kept_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    """The file is not touched, and the message holds what to add by hand."""
    graph = tmp_path / "graph.yml"
    graph.write_text(text)
    with pytest.raises(GraphEditError) as refused:
        add_function(graph, ENTRY)
    assert reason in str(refused.value)
    assert "node_file: sub/b.py" in refused.value.hint


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20))
def test_any_title_is_read_back(text: str) -> None:
    assert yaml.safe_load(f"title: {yaml_text(text)}\n") == {"title": text}


def test_new_ids_are_ids() -> None:
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100 and all(is_id(each) and len(each) == 8 for each in ids)
