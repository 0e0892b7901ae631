"""Which rows of a version count: those that no later row of their key supersedes and nothing has deleted.

A key acts like an update: when a row comes, an earlier one of the same key is gone, and stays gone when the key changes
later. So a history is cut into *regimes*, in which the key and the types of its fields are the same: 2^53 and 2^53 + 1
are two keys as Integer, and one when they have become Float. What is gone is found regime by regime, and so is the
same whether the rows come from the log or from a snapshot made anywhere between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from tailrace.tables.fold import VersionView
from tailrace.tables.schema import FieldType, is_json

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from tailrace.tables.ids import Places

__all__ = ["FOREVER", "LastOfKey", "Live", "Regime", "key_array", "regimes_of"]

FOREVER = 1 << 40
"""An offset after all others."""

_PENDING_ROWS = 1 << 20
"""Rows that wait until they are compared with the keys known so far: fewer would compare those too often."""


class Regime(NamedTuple):
    """Offsets `start <= offset < stop` in which `key` is in force and its fields have the types `fields`."""

    start: int
    stop: int
    key: tuple[str, ...]
    fields: Mapping[str, FieldType]
    step: int
    """The number of schemas that came into force up to its end: they say how its rows are seen."""


def regimes_of(view: VersionView) -> list[Regime]:
    """The regimes of a version that have a key, in order."""
    events = sorted({*(at for at, _ in view.keys), *(at for at, _ in view.schemas)})
    found: list[Regime] = []
    key: tuple[str, ...] = ()
    fields: Mapping[str, FieldType] = {}
    for at in events:
        key = next((named for first, named in view.keys if first == at), key)
        step = sum(first <= at for first, _ in view.schemas)
        before, fields = fields, view.fields_at(at)
        last = found[-1] if found else None
        if last is not None and last.key == key and all(before.get(name) in (None, fields.get(name)) for name in key):
            found[-1] = last._replace(fields=fields, step=step)
            continue
        if last is not None:
            found[-1] = last._replace(stop=at)
        found.append(Regime(at, FOREVER, key, fields, step))
    return [regime for regime in found if regime.key]


class LastOfKey:
    """Of rows that come in the order of their places, the last one of each key. Memory grows with the keys."""

    def __init__(self) -> None:
        import numpy as np

        self._keys: pa.Array[Any] | None = None
        self._places: Places = np.empty(0, np.int64)
        self._pending: list[tuple[pa.Array[Any], Places]] = []
        self._pending_rows = 0
        self._superseded: list[Places] = []

    def add(self, keys: pa.Array[Any], places: Places) -> None:
        """Rows with these keys; those whose key is NULL have none."""
        import numpy as np

        if keys.null_count:
            places = places[np.asarray(keys.is_valid())]
            keys = keys.drop_null()
        if len(keys):
            self._pending.append((keys, places))
            self._pending_rows += len(keys)
            if self._pending_rows > max(_PENDING_ROWS, len(self._places)):
                self._settle()

    def keys(self) -> pa.Array[Any] | None:
        """Each key once; None where there is none."""
        self._settle()
        return self._keys

    def superseded(self) -> Places:
        """The places of the rows after which another one of their key came, in order."""
        import numpy as np

        self._settle()
        return np.sort(np.concatenate([np.empty(0, np.int64), *self._superseded]))

    def _settle(self) -> None:
        import numpy as np
        import pyarrow as pa

        if not self._pending:
            return
        known = [] if self._keys is None else [self._keys]
        keys = pa.concat_arrays([*known, *(keys for keys, _ in self._pending)])
        places = np.concatenate([self._places, *(places for _, places in self._pending)])
        self._pending, self._pending_rows = [], 0
        encoded: Any = keys.dictionary_encode()
        codes = encoded.indices.to_numpy()
        last = np.empty(len(encoded.dictionary), np.int64)
        last[codes] = places  # of several the last one stays, and they are in order
        self._superseded.append(places[last[codes] != places])
        self._keys, self._places = encoded.dictionary, last


class Live:
    """Tells of rows whether they count.

    Args:
        superseded: places of superseded rows, in order.
        deleted: (place, offset of the message that deletes it): rows that come later cannot have been meant.
        newer: keys of rows in the log, which supersede the rows of the snapshot that have them.
        key: the fields of `newer`.
    """

    def __init__(
        self,
        superseded: Places,
        deleted: Sequence[tuple[int, int]],
        newer: pa.Array[Any] | None = None,
        key: Sequence[str] = (),
    ) -> None:
        self.newer, self.key = newer, tuple(key)
        self.gone: Places = gone_places(superseded, deleted)

    @property
    def everything(self) -> bool:
        """Whether all rows count."""
        return len(self.gone) == 0 and self.newer is None

    def mask(self, places: Places) -> NDArray[np.bool_] | None:
        """For rows at these places: True for each that counts; None where all do."""
        import numpy as np

        if len(self.gone) == 0:
            return None
        at = np.minimum(np.searchsorted(self.gone, places), len(self.gone) - 1)
        return np.asarray(self.gone[at] != places)

    def newer_mask(self, table: pa.Table, fields: Mapping[str, FieldType]) -> NDArray[np.bool_] | None:
        """For rows of the snapshot: True for each whose key the log does not have again; None where that is all."""
        return None if self.newer is None else ~self.has_newer(key_array(table, self.key, fields))

    def has_newer(self, keys: pa.Array[Any]) -> NDArray[np.bool_]:
        """For rows of the snapshot with these keys: True for each that the log has again."""
        import numpy as np
        import pyarrow.compute as pc

        assert self.newer is not None
        return np.asarray(pc.is_in(keys, value_set=self.newer))


def gone_places(superseded: Places, deleted: Sequence[tuple[int, int]]) -> Places:
    """The places of rows that do not count, in order."""
    import numpy as np

    if not deleted:
        return superseded
    rows = [place for place, at in deleted if place < at << 16]
    return np.union1d(superseded, np.array(rows, np.int64))


def key_array(table: pa.Table, key: Sequence[str], fields: Mapping[str, FieldType]) -> pa.Array[Any]:
    """The key of each row as one value; NULL where a part is: such rows supersede nothing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    there = set(table.column_names)
    if not all(name in there and name in fields for name in key):
        return pa.nulls(table.num_rows, pa.string())
    parts: list[Any] = [_comparable(table.column(name), fields[name]) for name in key]
    if len(parts) == 1:
        return _array(parts[0])
    texts: list[Any] = []
    for part in parts:
        bare = part.cast(pa.int64()) if pa.types.is_timestamp(part.type) else part
        text = bare if pa.types.is_binary(bare.type) else bare.cast(pa.string()).cast(pa.binary())
        texts += [pc.binary_length(text).cast(pa.string()).cast(pa.binary()), text]  # so that no two keys look alike
    return _array(pc.binary_join_element_wise(*texts, b":"))


def _comparable(column: Any, field_type: FieldType) -> Any:
    """A column whose values are equal in Arrow where they are equal as values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if field_type.name == "Float":
        return pc.add(column, 0.0)  # there is a negative zero
    if is_json(field_type):
        texts = [None if text is None else _sorted_json(text) for text in column.to_pylist()]
        return pa.array(texts, pa.string())
    if pa.types.is_list(column.type):
        return pa.array([None if each is None else repr(each) for each in column.to_pylist()], pa.string())
    if pa.types.is_duration(column.type):
        return column.cast(pa.int64())
    return column


def _sorted_json(text: str) -> str:
    try:
        return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return text


def _array(column: Any) -> pa.Array[Any]:
    import pyarrow as pa

    made: pa.Array[Any] = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return made
