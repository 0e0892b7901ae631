"""Tables whose older rows lie in a snapshot's files, as SQL reads them: the files themselves, and the tail as Arrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tailrace.tables import SnapshotReader, VersionReader, VersionView
from tailrace.tables.schema import (
    BOOLEAN,
    DATETIME_TZ,
    FLOAT,
    INTEGER,
    FieldType,
    decimal_digits,
    is_json,
    stored_names,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from tailrace.node.store import RunStore
    from tailrace.sql import Database, FileRows

__all__ = ["LakeLanes", "LakeTable", "lake_table"]

ROWS_MIN = 50_000
"""Rows of a snapshot from which on SQL reads its files. Below, reading them all takes less time than it takes to open a
database that may read these files and no others (30 ms)."""

_TEXTS = ("Text", "LongText")
_BYTES = ("Binary", "LongBinary")
_KEYS = (*_TEXTS, "Integer", "Boolean", "Date", "DateTime", "Decimal")
"""Types whose values DuckDB finds equal where we do."""


class LakeTable(NamedTuple):
    """What SQL needs of a table, or one of its several partitions, that lies in files."""

    rows: FileRows
    tail: pa.Table
    deleted: pa.Table | None
    superseding: pa.Table | None

    @property
    def paths(self) -> list[Path]:
        """The files that a database must be allowed to read."""
        return list(self.rows.paths)

    def register(self, database: Database, name: str) -> None:
        """Make it the table `name` of a database that may read its files."""
        database.register_files(name, self.rows, self.tail, deleted=self.deleted, superseding=self.superseding)


class LakeLanes(NamedTuple):
    """What SQL needs of a table whose partitions lie in files, each by itself; of those that do not, the rows."""

    lanes: Sequence[LakeTable | pa.Table]

    @property
    def paths(self) -> list[Path]:
        """As of `LakeTable`."""
        return [path for lane in self.lanes if isinstance(lane, LakeTable) for path in lane.paths]

    def register(self, database: Database, name: str) -> None:
        """As of `LakeTable`."""
        parts = [f"{name}/{number}" for number in range(len(self.lanes))]
        for part, lane in zip(parts, self.lanes, strict=True):
            if isinstance(lane, LakeTable):
                lane.register(database, part)
            else:
                database.register(part, lane)
        database.register_union(name, parts)


def lake_table(store: RunStore, view: VersionView) -> LakeTable | LakeLanes | None:
    """The version as files and tail; None where it has no snapshot, a small one, or one whose values SQL cannot bring
    into the types of today: then its rows are read into memory."""
    views = store.lane_views(view.name) if len(store.lanes) > 1 else [view]
    known = [(lane, each) for lane, each in zip(store.lanes, views, strict=True) if each is not None]
    pasts = [lane.past(each) for lane, each in known]
    if sum(past[0].snapshot.rows for past in pasts if past is not None) < ROWS_MIN:
        return None
    lanes: list[LakeTable | pa.Table] = []
    for (lane, each), past in zip(known, pasts, strict=True):
        reader = lane.reader(each)
        assert reader is not None
        if past is None or not past[0].snapshot.files:
            lanes.append(reader.table(id_column=reader.id_name))
            continue
        made = _in_files(lane, each, reader, *past)
        if made is None:
            return None
        lanes.append(made)
    return lanes[0] if len(store.lanes) == 1 and isinstance(lanes[0], LakeTable) else LakeLanes(lanes)


def _in_files(
    store: RunStore, view: VersionView, reader: VersionReader, past: SnapshotReader, before: str | None
) -> LakeTable | None:
    import pyarrow as pa

    from tailrace.sql import DatabaseLimits, FileColumn, FileRows

    snapshot = past.snapshot
    names = stored_names(snapshot.fields, id_column=snapshot.id_column)
    columns = []
    for name, kind in reader.fields.items():
        held = snapshot.fields.get(name)
        cast = _cast(held, kind) if held is not None else ""
        if cast is None:
            return None
        columns.append(FileColumn(name, names.get(name, ""), cast or None))
    if reader.id_name:
        columns.append(FileColumn(reader.id_name, snapshot.id_column))
    taken = _taken_away(store, reader, past, view)
    if taken is None:
        return None
    deleted, superseding = taken
    rows = FileRows(
        paths=past.paths(),
        columns=columns,
        id_column=snapshot.id_column,
        before=before,
        key={name: name for name in superseding.column_names} if superseding is not None else None,
    )
    if not rows.can_be_named:
        return None
    start = (snapshot.position, 0)
    pa.set_cpu_count(DatabaseLimits().threads)  # the tail is parsed with as many threads as the query has
    tail = list(reader.tables(id_column=reader.id_name, start=start))
    return LakeTable(
        rows, pa.concat_tables(tail) if tail else reader.schema(reader.id_name).empty_table(), deleted, superseding
    )


def _taken_away(
    store: RunStore, reader: VersionReader, past: SnapshotReader, view: VersionView
) -> tuple[pa.Table | None, pa.Table | None] | None:
    """The ids and the keys of rows of the snapshot that the tail takes away; None where SQL cannot tell them."""
    import pyarrow as pa

    snapshot, key = past.snapshot, view.settings.unique_on
    start = (snapshot.position, 0)
    if key:
        known = all(snapshot.fields.get(name) == reader.fields.get(name) for name in key)
        same = key == snapshot.unique_on and all(at < snapshot.position for at, _ in view.keys)
        if not (known and same and all(reader.fields[name].name in _KEYS for name in key)):
            return None
    elif snapshot.unique_on:
        return None
    if not key and not any(at >= snapshot.position for at in view.deletes):
        return None, None
    live = reader.superseding(start)
    deleted = pa.table({"id": store.ids.array(live.gone)}) if len(live.gone) else None
    superseding = None
    if live.newer is not None:
        if len(key) == 1:
            superseding = pa.table({key[0]: live.newer})
        else:  # rows that were deleted since count, too
            whole = store.reader(replace(view, deletes=()))
            assert whole is not None
            superseding = pa.concat_tables(list(whole.tables(start=start, columns=key)))
    return deleted, superseding


def _cast(held: FieldType, shown: FieldType) -> str | None:
    """DuckDB's type that a stored column is cast to so that it shows what `widen_value` gives; "" for none, None where
    no cast gives just that."""
    if is_json(held) and shown.name in _TEXTS:
        return ""
    if is_json(held) or is_json(shown):
        return "JSON" if is_json(held) and is_json(shown) else None
    if shown.name in ("Time", "Interval"):
        return shown.name.upper() if held == shown else None
    if held == shown or any(held.name in names and shown.name in names for names in (_TEXTS, _BYTES)):
        return ""
    if held in (BOOLEAN, INTEGER):
        if shown.name in _TEXTS:
            return "VARCHAR"
        if shown.name == "Decimal":
            precision, scale = decimal_digits(shown)
            return f"DECIMAL({precision},{scale})"
        return {INTEGER: "BIGINT", FLOAT: "DOUBLE"}.get(shown)
    if held.name == shown.name == "Decimal":
        precision, scale = decimal_digits(shown)
        return f"DECIMAL({precision},{scale})"
    if held.name in ("Date", "DateTime") and shown.name == "DateTime":
        return "TIMESTAMPTZ" if shown == DATETIME_TZ else "TIMESTAMP"
    return None
