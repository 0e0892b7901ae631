"""What differs between two lots of rows, with a key and without one."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tailrace.node.comparing import Comparison, compare_rows

Rows = list[dict[str, Any]]


def compared(was: Rows, now: Rows, **options: Any) -> Comparison:
    return compare_rows(lambda: was, lambda: now, **options)


def counts(found: Comparison) -> tuple[int, int, int, int]:
    return found.same, found.added, found.removed, found.changed


def test_rows_with_a_key_are_matched_by_it() -> None:
    """Wherever they stand; a changed one tells which fields."""
    was = [{"k": 1, "a": 1, "b": "x"}, {"k": 2, "a": 2}, {"k": 3, "a": 3}]
    now = [{"k": 3, "a": 3}, {"k": 1, "a": 5, "b": "x"}, {"k": 4, "a": 4}]
    found = compared(was, now, key=["k"])
    assert counts(found) == (1, 1, 1, 1)
    assert [(each.change, list(each.fields)) for each in found.rows] == [
        ("changed", ["a"]),
        ("removed", []),
        ("added", []),
    ]
    assert (found.rows[0].was, found.rows[0].now) == (was[0], now[1])


def test_rows_without_a_key_are_matched_where_equal_then_in_order() -> None:
    """So one that is missing does not make all after it differ."""
    was = [{"n": n} for n in range(5)]
    assert counts(compared(was, was[:2] + was[3:])) == (4, 0, 1, 0)
    assert counts(compared(was, [{"n": 10 * n} for n in range(5)])) == (1, 0, 0, 4)
    found = compared([{"n": 1, "t": 7}, {"n": 2, "t": 7}], [{"n": 1, "t": 8}, {"n": 2, "t": 7}])
    assert counts(found) == (1, 0, 0, 1) and list(found.rows[0].fields) == ["t"]


def test_equal_rows_count_as_often_as_they_are_there() -> None:
    """Twice the same row is not once."""
    assert counts(compared([{"n": 1}] * 3, [{"n": 1}] * 2)) == (2, 0, 1, 0)


def test_no_value_is_no_field_and_types_count() -> None:
    """NULL in one schema may be a missing field in the other; 1 is not 1.0."""
    assert counts(compared([{"n": 1, "x": None}], [{"n": 1}])) == (1, 0, 0, 0)
    assert counts(compared([{"n": 1}], [{"n": 1.0}])) == (0, 0, 0, 1)
    assert counts(compared([{"n": 1}], [{"n": True}])) == (0, 0, 0, 1)


def test_ignored_fields_do_not_count() -> None:
    """The time of a run differs each time. A key counts though it be ignored."""
    was, now = [{"n": 1, "at": "10:00"}], [{"n": 1, "at": "10:01"}]
    assert counts(compared(was, now, ignore=["at"])) == (1, 0, 0, 0)
    assert counts(compared(was, now, key=["at"], ignore=["at"])) == (0, 1, 1, 0)


def test_all_are_counted_and_some_shown() -> None:
    """Or a large difference would be in memory as a whole."""
    was = [{"k": n, "v": n} for n in range(100)]
    now = [{"k": n, "v": -n} for n in range(50, 150)]
    for key in (["k"], []):
        found = compared(was, now, key=key, shown_max=7)
        assert found.differing >= 100 and len(found.rows) == 7


rows = st.lists(st.fixed_dictionaries({"k": st.integers(0, 5), "v": st.integers(0, 2)}), max_size=12)


@settings(max_examples=50)
@given(rows, rows)
def test_counts_add_up(was: Rows, now: Rows) -> None:
    """Each row of each side is in exactly one count, and what is shown is what is counted."""
    keyed = [list({row["k"]: row for row in side}.values()) for side in (was, now)]
    for (first, second), key in (((was, now), []), (keyed, ["k"])):
        found = compared(first, second, key=key)
        assert found.same + found.removed + found.changed == len(first)
        assert found.same + found.added + found.changed == len(second)
        shown = [each.change for each in found.rows]
        assert [shown.count(change) for change in ("added", "removed", "changed")] == [*counts(found)[1:]]
        assert all(each.fields for each in found.rows if each.change == "changed")
        values = [sorted((row["k"], row["v"]) for row in side) for side in (first, second)]
        assert (found.differing == 0) == (values[0] == values[1])
