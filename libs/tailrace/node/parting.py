"""Which partition the rows of a write go to, and markers in all of them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tailrace.errors import RejectedError
from tailrace.node.writing import ROWS_PER_MESSAGE, TableWriter
from tailrace.tables import RowKey, partition_of_key
from tailrace.tables.schema import FieldType, ValueCastError, cast_value

if TYPE_CHECKING:
    from tailrace.node.store import RunStore

__all__ = ["PartitionKeyError", "PartitionedWriter"]


class PartitionKeyError(RejectedError):
    """A unique key does not say which partition its rows are in, so the one before could not be found."""

    def __init__(self, table: str, unique_on: Sequence[str], partition_key: str | None) -> None:
        self.table, self.unique_on, self.partition_key = table, tuple(unique_on), partition_key
        has = f"its partition_key is {partition_key!r}" if partition_key else "it has no partition_key"
        super().__init__(
            f"table {table!r} has several partitions and the unique key {', '.join(unique_on)}, but {has}: rows of one key "
            f"must lie in one partition. Write `partition_key: {unique_on[0]}` at the store in graph.yml"
        )


class PartitionedWriter(TableWriter):
    """Deals rows out to the writers of the partitions.

    A row goes where its partition key says (`partition_of_key`); rows without one go to partition 0. Of a table without
    a partition key each write goes to the next partition in turn, and large ones in equal shares to all.
    """

    def __init__(self, store: RunStore, lanes: Sequence[TableWriter]) -> None:
        self._lanes = list(lanes)
        text = store.ref.partition_key
        self._row_key = RowKey(text) if text else None
        super().__init__(store)
        self._turn = zlib.crc32(store.session.order.run.encode())
        self._saved_resetting = False
        self._check_key()

    def _check_key(self) -> None:
        key = self.declared.key
        if key and (self._row_key is None or not self._row_key.is_column or self._row_key.column not in key):
            raise PartitionKeyError(self._store.ref.name, key, self._store.ref.partition_key)

    def declare(self, **changes: Any) -> None:
        for lane in self._lanes:
            lane.declare(**changes)
        self.declared = self._lanes[0].declared
        self._check_key()

    # -- rows

    def append(self, records: Any, *, key: tuple[str, ...] = ()) -> None:
        home = type(records).__module__.partition(".")[0]
        if home == "pandas" and hasattr(records, "to_frame") and not hasattr(records, "columns"):
            records = records.to_dict()
        if isinstance(records, Mapping):
            self._deal({self._partition(records): records}, key)
        elif home == "pandas" and hasattr(records, "columns"):
            if len(records):
                column = self._column(records.columns, lambda name: records[name].tolist())
                shares = self._shares(len(records), column)
                self._deal({number: records.iloc[rows] for number, rows in shares.items()}, key)
        elif home == "pyarrow" and hasattr(records, "column_names"):
            self._deal(self._shares_of(records), key)
        elif isinstance(records, str | bytes) or not isinstance(records, Iterable):
            self._lanes[0].append(records)  # which says what is wrong with it
        else:
            rows = records if isinstance(records, list) else list(records)
            if all(isinstance(row, Mapping) for row in rows):
                values = None if self._row_key is None else [self._key_of(row) for row in rows]
                shares = self._shares(len(rows), values)
                self._deal({number: [rows[at] for at in share] for number, share in shares.items()}, key)
            else:
                self._lanes[0].append(rows)

    def append_columns(self, table: Any, fields: Mapping[str, FieldType]) -> None:
        for number, part in self._shares_of(table).items():
            self._lanes[number].append_columns(part, fields)

    def _deal(self, shares: Mapping[int, Any], key: tuple[str, ...]) -> None:
        if shares and self.resetting:
            self.begin()
        for number, share in shares.items():
            self._lanes[number].append(share, key=key)

    def _shares_of(self, table: Any) -> dict[int, Any]:
        if not table.num_rows:
            return {}
        column = self._column(table.column_names, lambda name: table.column(name).to_pylist())
        return {number: table.take(rows) for number, rows in self._shares(table.num_rows, column).items()}

    def _column(self, names: Iterable[Any], values_of: Any) -> list[object] | None:
        """The keys of rows that come by column; None where they have none."""
        key = self._row_key
        if key is None:
            return None
        if key.column not in list(names):
            return [None]
        return [self._cast(key.inside(_plain(value))) for value in values_of(key.column)]

    def _shares(self, count: int, keys: Sequence[object] | None) -> dict[int, list[int]]:
        """For each partition the numbers of the rows that go there."""
        total = len(self._lanes)
        shares: dict[int, list[int]] = {}
        if keys is not None:
            known: dict[object, int] = {}
            for at in range(count):
                key = keys[at] if len(keys) == count else None
                number = partition_of_key(key, total) if type(key) is not str else known.get(key)
                if number is None:
                    number = known[key] = partition_of_key(key, total)
                shares.setdefault(number, []).append(at)
        elif count <= ROWS_PER_MESSAGE:
            shares[self._next_turn()] = list(range(count))
        else:
            for part in range(total):
                rows = list(range(count * part // total, count * (part + 1) // total))
                if rows:
                    shares[self._next_turn()] = rows
        return {number: rows for number, rows in shares.items() if rows}

    def _partition(self, row: Mapping[Any, Any]) -> int:
        return self._next_turn() if self._row_key is None else partition_of_key(self._key_of(row), len(self._lanes))

    def _key_of(self, row: Mapping[Any, Any]) -> object:
        assert self._row_key is not None
        return self._cast(self._row_key.of(row))

    def _cast(self, value: object) -> object:
        """The key as the column will hold it, where a type is declared."""
        assert self._row_key is not None
        fixed = self.declared.fixed.get(self._row_key.column) if self._row_key.is_column else None
        if fixed is None:
            return value
        try:
            return cast_value(value, fixed)
        except ValueCastError:
            return value

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn % len(self._lanes)

    # -- versions

    def next_begun_ms(self) -> int:
        begun_ms = max(lane.next_begun_ms() for lane in self._lanes)
        return max(begun_ms, 1 + max(lane.tied_ms or 0 for lane in self._store.lanes))

    def begin(self, fields: Mapping[str, FieldType] | None = None, begun_ms: int | None = None) -> int:
        begun_ms = self.next_begun_ms() if begun_ms is None else begun_ms
        for lane in self._lanes:
            lane.begin(fields, begun_ms)
        self.resetting = False
        return begun_ms

    def reset(self) -> None:
        for lane in self._lanes:
            lane.reset()
        self.resetting = True

    def finish_version(self, begun_ms: int | None = None) -> None:
        begun_ms = self.next_begun_ms() if self.resetting else None
        for lane in self._lanes:
            lane.finish_version(begun_ms)
        self.resetting = False

    def drop_unfinished(self) -> None:
        for lane in self._lanes:
            lane.drop_unfinished()
        self.resetting = False

    def mark(self, kind: str, **extra: object) -> None:
        for lane in self._lanes:
            lane.mark(kind, **extra)

    @property
    def holds_rows(self) -> bool:
        return any(lane.holds_rows for lane in self._lanes)

    @property
    def holds_version(self) -> bool:
        return any(lane.holds_version for lane in self._lanes)

    @property
    def replaces(self) -> bool:
        return any(lane.replaces for lane in self._lanes)

    # -- savepoints

    def save(self) -> None:
        for lane in self._lanes:
            lane.save()
        self._saved_resetting = self.resetting

    def restore(self) -> None:
        for lane in self._lanes:
            lane.restore()
        self.resetting = self._saved_resetting

    def restore_committed(self) -> None:
        for lane in self._lanes:
            lane.restore_committed()
        self.resetting = self._saved_resetting = False

    def sent(self) -> None:
        """Each lane is told by itself."""


def _plain(value: Any) -> Any:
    """A value of a frame's column as Python has it: NumPy's numbers and pandas' times become plain, NaN is none."""
    if value is None or type(value) in (str, int, bool):
        return value
    if hasattr(value, "to_pydatetime"):
        return None if str(value) == "NaT" else value.to_pydatetime()
    if hasattr(value, "item") and not isinstance(value, Mapping | list):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value
