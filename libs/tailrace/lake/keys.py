"""Rows that share a unique key with later ones, or are deleted: found in files by their key columns and ids alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from tailrace.tables.schema import FieldType, arrow_to_records, is_json

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Gone"]

_COMPARED_BY_ARROW = {"Boolean", "Integer", "Decimal", "Text", "LongText", "Date", "DateTime"}
"""Types whose values are equal in Arrow exactly where they are equal in Python."""


class Gone:
    """What a tail takes out of the rows before it: all rows with one of its keys, and all with a deleted id."""

    def __init__(self, key: Sequence[str], fields: Mapping[str, FieldType]) -> None:
        self.key = tuple(key)
        self._fields = {name: fields[name] for name in key if name in fields}
        self._keys: set[tuple[object, ...]] = set()
        self._ids: set[str] = set()
        self._values: dict[str, Any] | None = None

    @property
    def columns(self) -> dict[str, FieldType]:
        """The fields that `mask` looks at."""
        return self._fields if self._keys else {}

    def add_keys(self, table: pa.Table) -> None:
        """The keys of later rows; one with a NULL in it is never equal to another."""
        if len(self._fields) == len(self.key):  # a part of the key that no row has is NULL in all of them
            self._keys.update(key for key in self._tuples(table) if None not in key)
        self._values = None

    def add_ids(self, ids: Iterable[str]) -> None:
        """Ids of deleted rows."""
        self._ids.update(ids)

    def __bool__(self) -> bool:
        return bool(self._keys or self._ids)

    def mask(self, table: pa.Table, id_column: str) -> pa.Array[Any] | None:
        """Which rows of `table` (with `columns` and the ids) stay, as booleans; None where all do."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        gone = np.zeros(table.num_rows, dtype=bool)
        if self._ids:
            gone |= pc.is_in(table.column(id_column), value_set=pa.array(sorted(self._ids), pa.string())).to_numpy()
        if self._keys:
            candidates = np.ones(table.num_rows, dtype=bool)
            for name, values in self._value_sets(table).items():
                candidates &= pc.is_in(table.column(name), value_set=values).to_numpy()
            places = np.flatnonzero(candidates)
            if len(places):
                tuples = self._tuples(table.take(pa.array(places)))
                gone[places] |= np.fromiter((key in self._keys for key in tuples), dtype=bool, count=len(places))
        return pa.array(~gone) if gone.any() else None

    def _tuples(self, table: pa.Table) -> Iterable[tuple[object, ...]]:
        records = arrow_to_records(table.select(self.key), self._fields, for_stream=True)
        return (tuple(_hashable(record[name]) for name in self.key) for record in records)

    def _value_sets(self, table: pa.Table) -> dict[str, Any]:
        """For each column that Arrow can compare: the values that the keys have in it."""
        import pyarrow as pa

        if self._values is None:
            self._values = {}
            for at, name in enumerate(self.key):
                kind = self._fields[name]
                if kind.name in _COMPARED_BY_ARROW and not is_json(kind):
                    column = [key[at] for key in self._keys]
                    self._values[name] = pa.array(column, type=table.schema.field(name).type)
        return self._values


def _hashable(value: object) -> object:
    if isinstance(value, dict | list):
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=str)
    return value
