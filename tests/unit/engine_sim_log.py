"""The simulated log: tables, transactions with commit numbers, fencing, slots' records. In memory, and never wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tailrace.engine import SlotRecord, shard_of


class Fenced(Exception):
    """Another writer of this shard was opened after ours."""


class Key(NamedTuple):
    """Where a record lies."""

    table: str
    partition: int
    offset: int


class Rec(NamedTuple):
    key: Key
    writer: str
    quiet: bool
    value: Any


class Row(NamedTuple):
    """A row on its way into the log."""

    table: str
    value: Any
    quiet: bool = False


@dataclass(slots=True)
class Tip:
    """Where a slot stands besides its record: its State and the places of its streams."""

    state: dict[str, Any] = field(default_factory=dict)
    places: dict[tuple[str, int], int] = field(default_factory=dict)

    def copy(self) -> Tip:
        return Tip(dict(self.state), dict(self.places))


class SimLog:
    """What survives every crash."""

    def __init__(self, shards: int, *, fences: bool = True) -> None:
        self.shards = shards
        self.fences = fences
        self.partitions: dict[str, list[list[Rec | None]]] = {}
        self.stored: dict[str, tuple[str, Tip]] = {}
        self.epochs = [0] * shards
        self.commits = [0] * shards
        self.triggers: list[str] = []
        self.versions: dict[str, int] = {}
        """Of each table: how often it was written to."""

    def table(self, name: str) -> list[list[Rec | None]]:
        if name not in self.partitions:
            self.partitions[name] = [[] for _ in range(2 if name == "in" else 1)]
        return self.partitions[name]

    def append(self, table: str, partition: int, value: Any, *, writer: str = "", quiet: bool = False) -> Key:
        lane = self.table(table)[partition]
        key = Key(table, partition, len(lane))
        lane.append(Rec(key, writer, quiet, value))
        self.versions[table] = self.versions.get(table, 0) + 1
        return key

    def records(self, table: str, cut: Mapping[int, int] | None = None) -> list[Rec]:
        """All records before `cut` (the whole table without one), partition after partition, markers left out."""
        lanes = self.table(table)
        ends = {p: len(lane) if cut is None else cut.get(p, 0) for p, lane in enumerate(lanes)}
        return [rec for p, lane in enumerate(lanes) for rec in lane[: ends[p]] if rec is not None]

    def ends(self, table: str) -> dict[int, int]:
        return {p: len(lane) for p, lane in enumerate(self.table(table))}

    def open(self, shard: int) -> int:
        self.epochs[shard] += 1
        return self.epochs[shard]

    def read(self, shard: int) -> dict[str, tuple[SlotRecord, Tip]]:
        return {
            slot: (SlotRecord.from_json(json.loads(text)), tip.copy())
            for slot, (text, tip) in self.stored.items()
            if shard_of(slot, self.shards) == shard
        }

    def check_fence(self, shard: int, epoch: int) -> None:
        if self.fences and epoch != self.epochs[shard]:
            raise Fenced

    def commit(
        self,
        shard: int,
        epoch: int,
        rows: Iterable[tuple[str, Row]],
        stored: Mapping[str, tuple[SlotRecord, Tip | None]],
    ) -> None:
        """One transaction. Its marker takes an offset in each partition that it wrote, as on Kafka."""
        self.check_fence(shard, epoch)
        touched = set()
        for writer, row in rows:
            touched.add(row.table)
            self.append(row.table, 0, copy.copy(row.value), writer=writer, quiet=row.quiet)
        for table in touched:
            self.table(table)[0].append(None)
        for slot, (record, tip) in stored.items():
            kept = self.stored[slot][1] if slot in self.stored else Tip()
            self.stored[slot] = (json.dumps(record.to_json()), kept if tip is None else tip.copy())
        self.commits[shard] += 1
