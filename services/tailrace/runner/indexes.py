"""What an app's index topic says: how far its Tables were folded, and the newest snapshots of their versions.

The topic is compacted, and a cache: folds are written by hosts and by the snapshotter, snapshots by the snapshotter.
Its keys are `<topic>` (a fold), `<topic>@<version>` (a snapshot; a tombstone where the version is gone), and others
that are none of ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from tailrace.log import Offset, Record
from tailrace.tables import Snapshot, TableFold

__all__ = ["AppIndex"]

SNAPSHOTS_MAX = 4
"""Snapshots that are known of one version. A run may be some behind the newest; its own is then still there. More hold
lists of files in memory that are asked for only by those who read the past."""


class _SavedFold(NamedTuple):
    position: int
    value: bytes


class AppIndex:
    """The index topic of one app, as far as it was read."""

    def __init__(self) -> None:
        self.position: Offset | None = None
        """Where reading goes on; None: at the topic's start."""
        self._folds: dict[tuple[str, int], _SavedFold] = {}
        self._snapshots: dict[tuple[str, int, str], tuple[Snapshot, ...]] = {}

    def take(self, records: Iterable[Record], next_offset: Offset) -> set[str]:
        """Take records in; returns the topics of Tables that something was said about."""
        told = set()
        for record in records:
            topic, at, version = (record.key or b"").decode(errors="replace").partition("@")
            if at and record.value is None:
                self._forget(topic, version)
                told.add(topic)
                continue
            data = _parsed(record.value)
            if data is None or "born_ms" not in data:
                continue
            if at:
                self._take_snapshot(topic, data)
            else:
                self._take_fold(topic, data, record.value or b"")
            told.add(topic)
        self.position = next_offset
        return told

    def _take_fold(self, topic: str, data: dict[str, Any], value: bytes) -> None:
        key = (topic, data["born_ms"])
        known = self._folds.get(key)
        if known is None or known.position <= data["position"]:
            self._folds[key] = _SavedFold(data["position"], value)

    def _take_snapshot(self, topic: str, data: dict[str, Any]) -> None:
        snapshot = Snapshot.from_json(data)
        key = (topic, data["born_ms"], snapshot.version)
        # A later one of the same position takes its place: the files were compacted.
        others = [each for each in self._snapshots.get(key, ()) if each.position != snapshot.position]
        kept = sorted([*others, snapshot], key=lambda each: each.position)
        self._snapshots[key] = tuple(kept[-SNAPSHOTS_MAX:])

    def _forget(self, topic: str, version: str) -> None:
        for key in [key for key in self._snapshots if (key[0], key[2]) == (topic, version)]:
            del self._snapshots[key]

    def fold(self, topic: str, born_ms: int) -> TableFold | None:
        """The fold of a Table that came furthest."""
        saved = self._folds.get((topic, born_ms))
        return TableFold.from_json(orjson.loads(saved.value)) if saved else None

    def fold_position(self, topic: str, born_ms: int) -> int:
        """How far that fold came; 0 where there is none."""
        saved = self._folds.get((topic, born_ms))
        return saved.position if saved else 0

    def newest_position(self, topic: str, born_ms: int) -> int:
        """The highest position of a snapshot of a Table; 0 where there is none."""
        mine = (each[-1].position for key, each in self._snapshots.items() if key[:2] == (topic, born_ms))
        return max(mine, default=0)

    def snapshots(self, topic: str, born_ms: int, version: str) -> tuple[Snapshot, ...]:
        """The newest snapshots of a version, by position."""
        return self._snapshots.get((topic, born_ms, version), ())


def _parsed(value: bytes | None) -> dict[str, Any] | None:
    try:
        data = orjson.loads(value or b"null")
    except orjson.JSONDecodeError:
        return None
    return data if isinstance(data, dict) else None
