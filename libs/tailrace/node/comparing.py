"""How two lots of rows differ: what one run of a node wrote, and what the same run wrote when it ran again. Pure.

Rows with a unique key are matched by it. Without one equal rows are matched wherever they stand, and what is then left
over on both sides is matched in order, the first with the first: of a stream these are most often the same records.
Memory grows with the number of rows, by some hundred bytes each, and not with their size: they are gone through twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice, zip_longest
from typing import Any, Literal, TypeAlias

import orjson

__all__ = ["Comparison", "Difference", "compare_rows"]

Row: TypeAlias = Mapping[str, Any]
"""Values as JSON has them."""

Rows: TypeAlias = Callable[[], Iterable[Row]]
"""Gives the rows from the first on, the same ones each time."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that is not the same on both sides."""

    change: Literal["added", "removed", "changed"]
    was: Row | None
    now: Row | None
    fields: Sequence[str] = ()
    """Of a changed row, the fields whose values differ."""


@dataclass(slots=True)
class Comparison:
    """How many rows differ, and the first of them."""

    same: int = 0
    added: int = 0
    removed: int = 0
    changed: int = 0
    rows: list[Difference] = field(default_factory=list)

    @property
    def differing(self) -> int:
        """Rows that are not the same."""
        return self.added + self.removed + self.changed


def compare_rows(
    was: Rows, now: Rows, *, key: Sequence[str] = (), ignore: Collection[str] = (), shown_max: int = 1_000
) -> Comparison:
    """How `now` differs from `was`.

    A field without a value and a field that is not there are the same.

    Args:
        key: fields of the unique key; each side has a row of a key once. Empty: rows have none.
        ignore: fields whose values do not count, such as the time of a run.
        shown_max: most differing rows that are given; all are counted.
    """
    if key:
        return _by_key(was, now, key, frozenset(ignore) - frozenset(key), shown_max)
    return _by_row(was, now, frozenset(ignore), shown_max)


def _by_key(was: Rows, now: Rows, key: Sequence[str], ignore: Collection[str], shown_max: int) -> Comparison:
    before = {_digest(_part(row, key)): _digest(_counting(row, ignore)) for row in was()}
    after = {_digest(_part(row, key)): _digest(_counting(row, ignore)) for row in now()}
    removed = before.keys() - after.keys()
    added = after.keys() - before.keys()
    changed = {name for name, digest in before.items() if after.get(name, digest) != digest}
    found = Comparison(len(before) - len(removed) - len(changed), len(added), len(removed), len(changed))
    pairs: dict[bytes, list[Row | None]] = {}
    for row in was():
        name = _digest(_part(row, key))
        if (name in removed or name in changed) and len(pairs) < shown_max:
            pairs[name] = [row, None]
    for row in now():
        name = _digest(_part(row, key))
        if name in pairs:
            pairs[name][1] = row
        elif name in added and len(pairs) < shown_max:
            pairs[name] = [None, row]
    found.rows = [_difference(first, second, ignore) for first, second in pairs.values()]
    return found


def _by_row(was: Rows, now: Rows, ignore: Collection[str], shown_max: int) -> Comparison:
    before = Counter(_digest(_counting(row, ignore)) for row in was())
    after = Counter(_digest(_counting(row, ignore)) for row in now())
    same = before & after
    removed, added = before.total() - same.total(), after.total() - same.total()
    changed = min(removed, added)
    found = Comparison(same.total(), added - changed, removed - changed, changed)
    if found.differing:
        pairs = zip_longest(_left_over(was(), before - same, ignore), _left_over(now(), after - same, ignore))
        found.rows = [_difference(first, second, ignore) for first, second in islice(pairs, shown_max)]
    return found


def _left_over(rows: Iterable[Row], left: Counter[bytes], ignore: Collection[str]) -> Iterator[Row]:
    """Of equal rows the first ones are left over: which of them it is cannot be told."""
    left = left.copy()
    for row in rows:
        digest = _digest(_counting(row, ignore))
        if left[digest] > 0:
            left[digest] -= 1
            yield row


def _difference(was: Row | None, now: Row | None, ignore: Collection[str]) -> Difference:
    if was is None or now is None:
        return Difference("added" if was is None else "removed", was, now)
    names = [name for name in dict.fromkeys([*was, *now]) if name not in ignore]
    return Difference("changed", was, now, [name for name in names if _differ(was.get(name), now.get(name))])


def _differ(first: object, second: object) -> bool:
    """Not as Python compares: `1` is neither `true` nor `1.0`."""
    return _digest(first) != _digest(second)


def _part(row: Row, names: Iterable[str]) -> list[Any]:
    return [row.get(name) for name in names]


def _counting(row: Row, ignore: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None and name not in ignore}


def _digest(value: object) -> bytes:
    return blake2b(orjson.dumps(value, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()
