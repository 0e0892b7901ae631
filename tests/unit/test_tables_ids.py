"""`patterns_id` is a place in the log written as text: its order, its inverse, its uniqueness."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.tables import BadIdError, IdMaker, parse_id
from tailrace.tables.ids import place_number, places_of

BORN_MS = 1_700_000_000_000
offsets = st.integers(0, (1 << 40) - 1)
rows = st.integers(0, 65_535)


def test_an_id_has_26_lower_case_characters() -> None:
    """As the original's ULIDs: programs cut, compare and index them."""
    text = IdMaker("shop.orders", BORN_MS).id_at(5, 3)
    assert len(text) == 26
    assert text == text.lower()


@given(offsets, rows, st.integers(0, 255), st.integers(0, (1 << 48) - 1))
def test_an_id_can_be_turned_back_into_its_place(offset: int, row: int, partition: int, born_ms: int) -> None:
    """`Stream.seek` and deletes by id rest on it."""
    place = parse_id(IdMaker("shop.orders", born_ms, partition).id_at(offset, row))
    assert (place.born_ms, place.partition, place.offset, place.row) == (born_ms, partition, offset, row)


@given(st.tuples(offsets, rows), st.tuples(offsets, rows))
def test_text_order_is_log_order(one: tuple[int, int], other: tuple[int, int]) -> None:
    """Plain string comparison is the stream's order."""
    ids = IdMaker("shop.orders", BORN_MS)
    assert (ids.id_at(*one) < ids.id_at(*other)) == (one < other)


def test_a_topic_born_later_has_greater_ids() -> None:
    """A restored or migrated table continues after the old one, for those who kept an id."""
    old, new = IdMaker("shop.orders", BORN_MS), IdMaker("shop.orders", BORN_MS + 1)
    assert old.id_at((1 << 40) - 1, 65_535) < new.id_at(0, 0)


def test_tables_born_together_do_not_share_ids() -> None:
    """Ids are unique over the platform."""
    assert IdMaker("shop.orders", BORN_MS).id_at(1, 1) != IdMaker("shop.bills", BORN_MS).id_at(1, 1)


@given(st.lists(st.tuples(offsets, rows), max_size=20), st.integers(0, 255))
def test_many_ids_at_once_are_those_one_by_one(places: list[tuple[int, int]], partition: int) -> None:
    """Made, and turned back into places, vectorised for Arrow."""
    ids = IdMaker("shop.orders", BORN_MS, partition)
    numbers = np.array([place_number(*place) for place in places], np.int64)
    array = ids.array(numbers)
    array.validate(full=True)
    assert array.to_pylist() == [ids.id_at(*place) for place in places]
    assert places_of(array).tolist() == numbers.tolist()
    assert places_of(pa.chunked_array([array, array[1:]])).tolist() == [*numbers.tolist(), *numbers[1:].tolist()]


@pytest.mark.parametrize("text", ["", "abc", "u" * 26, "0" * 25, "0" * 27, "0" * 25 + "I"])
def test_any_other_text_is_refused(text: str) -> None:
    """A seek to something that is no id must not land anywhere."""
    with pytest.raises(BadIdError):
        parse_id(text)
    with pytest.raises(BadIdError):
        places_of(pa.array(["0" * 26, text, None]))
    with pytest.raises(BadIdError):
        places_of(pa.array([text]))
