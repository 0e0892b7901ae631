"""YAML with places: types, limits and every kind of broken text end as values or problems with a line."""

from __future__ import annotations

import pytest

from tailrace.graph.yamltree import parse_yaml, plain


def test_values_know_their_lines() -> None:
    tree, problems = parse_yaml("a: 1\nb:\n  - x\n  - {c: d}\n")
    assert problems == () and tree is not None
    assert plain(tree) == {"a": 1, "b": ["x", {"c": "d"}]}
    assert tree.key_lines == {"a": 1, "b": 2}
    assert isinstance(tree.value, dict) and tree.value["b"].line == 3


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n"])
def test_nothing_is_nothing(text: str) -> None:
    tree, problems = parse_yaml(text)
    assert (tree is None or tree.value is None) and problems == ()


def test_scalars_keep_what_was_written() -> None:
    """An id such as 00123456 is no octal number, and 12:30 is no 750."""
    tree, _ = parse_yaml("a: 00123456\nb: 12:30\nc: 1.10\non: no\n3: x")
    assert tree is not None and isinstance(tree.value, dict)
    assert {key: item.text for key, item in tree.value.items()} == {
        "a": "00123456",
        "b": "12:30",
        "c": "1.10",
        "on": "no",
        "3": "x",
    }
    assert tree.value["b"].value == "12:30"


def test_a_key_written_twice_is_a_warning_and_the_last_one_counts() -> None:
    tree, problems = parse_yaml("a: 1\nb: 2\na: 3")
    assert tree is not None and plain(tree) == {"a": 3, "b": 2}
    assert [(each.line, each.severity) for each in problems] == [(3, "warning")]


def test_merge_keys() -> None:
    tree, problems = parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {z: 4}]}")
    assert tree is not None and problems == ()
    assert plain(tree) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}, "c": {"x": 1, "y": 2, "z": 4}}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: [", 2),
        ("a: 1\n b: 2", 2),
        ("a: 1\n---\nb: 2", 2),
        ("a: *b", 1),
        ("a: 1\nb: \x07", 2),
        ("\n\n\t- a", 3),
        ('a: "\\UFFFFFFFF"', 1),
        ("a: &a [*a]", 1),
        ("[" * 100, 1),
        ("a: " + "x" * 1_000_001, 1),
        ("[" + "1," * 60_000 + "]", 1),
        ("%YAML 3.0\n---\na", 1),
    ],
)
def test_text_that_cannot_be_read(text: str, line: int) -> None:
    tree, (problem,) = parse_yaml(text)
    assert tree is None
    assert problem.line == line and problem.severity == "error"


def test_a_bomb_of_aliases_is_refused() -> None:
    """Nine lines that stand for 10^9 values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    tree, (problem,) = parse_yaml("\n".join(lines))
    assert tree is None and "aliases" in problem.message


@pytest.mark.parametrize("value", ["!!int foo", "!!python/object:os.system x", "2020-13-45", "!!map x", "9" * 5000])
def test_a_scalar_that_cannot_be_read_stays_text(value: str) -> None:
    tree, problems = parse_yaml(f"a: 1\nb: {value}")
    assert tree is not None
    assert plain(tree) == {"a": 1, "b": value.split(" ", 1)[-1]}
    assert all(each.line == 2 for each in problems)


def test_half_characters_do_not_get_in() -> None:
    """A lone surrogate could be neither hashed nor printed later."""
    tree, _ = parse_yaml('a: "\\ud800x"\n')
    assert tree is not None and plain(tree) == {"a": "\ufffdx"}
