"""Rows whose values fit no type: found one by one, so that the rest of their table can go on without them.

Our own writers never write such rows; producers that are not ours may.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import orjson

from tailrace.tables import (
    FileSource,
    Head,
    IdMaker,
    Messages,
    MessageSource,
    VersionReader,
    VersionView,
    decode_messages,
)
from tailrace.tables.schema import ValueCastError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DeadRow", "WithoutRows", "find_misfits"]


class DeadRow(NamedTuple):
    """A row for the dead letters of its table."""

    offset: int
    row: int
    field: str | None
    """The field that cannot hold its value."""
    error: str
    record: object
    """The row as it came; of a columnar message that cannot be cast as a whole its head, with row 0."""


def find_misfits(view: VersionView, messages: MessageSource, files: FileSource, start: int) -> list[DeadRow]:
    """The rows at or after `start` that a read of the version cannot cast, in order."""
    found: list[DeadRow] = []
    for first, stop in view.segments:
        if stop <= start:
            continue
        for batch in messages.scan(max(first, start), stop):
            for offset, ts_ms, doc in zip(batch.offsets, batch.ts_ms, decode_messages(batch), strict=True):
                if _misfit(view, files, offset, ts_ms, doc) is None:
                    continue
                rows = doc.get("rows")
                if not isinstance(rows, list):
                    error = _misfit(view, files, offset, ts_ms, doc)
                    assert error is not None
                    head = {name: value for name, value in doc.items() if name != "ipc"}
                    found.append(DeadRow(offset, 0, error.field, str(error), head))
                    continue
                for number, row in enumerate(rows):
                    error = _misfit(view, files, offset, ts_ms, {**doc, "rows": [row]})
                    if error is not None:
                        found.append(DeadRow(offset, number, error.field, str(error), row))
    return found


def _misfit(view: VersionView, files: FileSource, offset: int, ts_ms: int, doc: Head) -> ValueCastError | None:
    """What a read of this message alone says."""
    alone = replace(view, segments=((offset, offset + 1),), deletes=(), settings=replace(view.settings, unique_on=()))
    reader = VersionReader(alone, IdMaker("", 0), _One(offset, ts_ms, orjson.dumps(doc)), files)
    try:
        for _ in reader.tables():
            pass
    except ValueCastError as error:
        return error
    return None


class _One:
    """A source of one message."""

    def __init__(self, offset: int, ts_ms: int, value: bytes) -> None:
        self._messages = Messages([offset], [ts_ms], [len(value)], value)

    def scan(self, start: int, stop: int) -> Iterator[Messages]:
        if start <= self._messages.offsets[0] < stop:
            yield self._messages


class WithoutRows:
    """A topic whose `dead` rows have no values: they keep their places, and share a key with no row."""

    def __init__(self, messages: MessageSource, dead: Collection[DeadRow], ids: IdMaker) -> None:
        self._messages = messages
        self._dead: dict[int, set[int]] = {}
        for each in dead:
            self._dead.setdefault(each.offset, set()).add(each.row)
        self._ids = [ids.id_at(each.offset, each.row) for each in dead]

    def scan(self, start: int, stop: int) -> Iterator[Messages]:
        for batch in self._messages.scan(start, stop):
            if self._dead.keys().isdisjoint(batch.offsets):
                yield batch
                continue
            values = [
                self._emptied(offset, value) if offset in self._dead else value
                for offset, value in zip(batch.offsets, batch.values(), strict=True)
            ]
            yield Messages(batch.offsets, batch.ts_ms, [len(value) for value in values], b",".join(values))

    def _emptied(self, offset: int, value: bytes) -> bytes:
        doc: Head = orjson.loads(value)
        rows = doc.get("rows")
        if not isinstance(rows, list):
            return orjson.dumps({"kind": "unreadable"})
        gone = self._dead[offset]
        doc["rows"] = [{} if number in gone else row for number, row in enumerate(rows)]
        return orjson.dumps(doc)

    def filter(self, table: pa.Table, id_column: str) -> pa.Table:
        """`table` without the dead rows."""
        import pyarrow as pa
        import pyarrow.compute as pc

        dead = pc.is_in(table.column(id_column), value_set=pa.array(self._ids, pa.string()))
        return table.filter(pc.invert(dead))
