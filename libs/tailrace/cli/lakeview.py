"""The lake as the local HTTP interface shows it: how far each Table is in it, and what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tailrace.cli.keeper import Keeper
from tailrace.errors import RejectedError
from tailrace.lake import LakeLocation
from tailrace.log import Log
from tailrace.snapshotter import (
    GROUP,
    IndexEntry,
    SnapshotterSettings,
    TableLane,
    TableWish,
    lanes_by_key,
    read_index,
    table_lanes,
)
from tailrace.tables import Snapshot, shown_begun_ms

__all__ = ["LakeStatus", "NoSuchAppError"]


class NoSuchAppError(RejectedError):
    """The lake holds nothing of an app of that name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name, self.known = name, sorted(known)
        super().__init__(f"there is no app {name!r}; there are: {', '.join(self.known) or 'none'}")


class LakeStatus:
    """What is in the lake, and what its keeper can do with it."""

    def __init__(self, log: Log, keeper: Keeper, settings: Callable[[], SnapshotterSettings]) -> None:
        self._log, self._keeper, self._settings = log, keeper, settings

    async def status(self, app: str | None) -> dict[str, Any]:
        """Where the lake is, whether its process runs, and each Table: position, lag, files, last error, rows lost."""
        graphs, settings = self._graphs(app), self._settings()
        return {
            "lake": settings.lake_url,
            "pid": self._keeper.pid,
            "trouble": self._keeper.troubles.get(""),
            "tables": await asyncio.to_thread(self._tables, graphs, settings),
        }

    async def versions(self, topic: str) -> dict[str, dict[str, Any]]:
        """What of a table's versions lies in the lake, by their names; "" tells where the log begins, by
        partition."""
        return await asyncio.to_thread(self._versions, topic)

    def _versions(self, topic: str) -> dict[str, dict[str, Any]]:
        lanes = lanes_by_key(info for info in self._log.topics(topic).values() if info.name == topic)
        stands = self._stands(lanes.values())
        entries = read_index(self._log, topic.partition(".")[0], lanes)
        found: dict[str, dict[str, Any]] = {"": {"log_start": {key: stands[key].log_start for key in lanes}}}
        complete = all(stand.place is not None and stand.place >= stand.end for stand in stands.values())
        by_name: dict[str, list[Snapshot]] = {}
        for entry in entries.values():
            for name, snapshot in entry.snapshots.items():
                by_name.setdefault(name, []).append(snapshot)
        for name, snapshots in by_name.items():
            found[name] = {
                **_sizes(snapshots),
                "position": sum(snapshot.position for snapshot in snapshots),
                "complete": complete,
            }
        return found

    def _stands(self, lanes: Iterable[TableLane]) -> dict[str, _Stand]:
        """How far each lane is, by its key."""
        known = {lane.partition: lane.key for lane in lanes}
        ends, starts = self._log.ends(list(known)), self._log.starts(list(known))
        places = self._log.places(GROUP, list(known))
        return {
            key: _Stand(starts[partition], ends[partition], places[partition].offset if partition in places else None)
            for partition, key in known.items()
        }

    async def collect(self, app: str | None, *, dry_run: bool) -> list[dict[str, Any]]:
        """What goes, or would go."""
        answer: list[dict[str, Any]] = await self._keeper.ask("gc", graphs=self._graphs(app), dry_run=dry_run)
        return answer

    async def rebuild(self, app: str | None) -> list[dict[str, Any]]:
        """Make the indexes again; returns what was found of each table."""
        answer: list[dict[str, Any]] = await self._keeper.ask("rebuild", graphs=self._graphs(app))
        return answer

    def _graphs(self, app: str | None) -> list[str]:
        graphs = self._settings().graphs
        if app is not None and app not in graphs:
            raise NoSuchAppError(app, graphs)
        return list(graphs) if app is None else [app]

    def _tables(self, graphs: Iterable[str], settings: SnapshotterSettings) -> list[dict[str, Any]]:
        found = []
        for graph in graphs:
            lanes = table_lanes(self._log, [graph])
            if not lanes:
                continue
            stands = self._stands(lanes.values())
            entries = read_index(self._log, graph, lanes)
            by_topic: dict[str, list[str]] = {}
            for key, lane in lanes.items():
                by_topic.setdefault(lane.topic, []).append(key)
            for topic, keys in by_topic.items():
                its = [stands[key] for key in keys]
                found.append(
                    {
                        "app": graph,
                        "table": settings.tables.get(topic, TableWish(name=topic)).name,
                        "topic": topic,
                        "position": sum(stand.reached for stand in its),
                        "end": sum(stand.end for stand in its),
                        "lag_offsets": sum(max(0, stand.end - stand.reached) for stand in its),
                        "log_start": sum(stand.log_start for stand in its),
                        **_snapshot([entries[key] for key in keys if key in entries]),
                        "error": next((error for key in keys if (error := self._keeper.troubles.get(key))), None),
                        "lost": next((lost for key in keys if (lost := self._keeper.lost.get(key))), None),
                    }
                )
        return found


class _Stand(NamedTuple):
    """How far a lane is in the lake."""

    log_start: int
    end: int
    place: int | None
    """The snapshotter's; None where it has none."""

    @property
    def reached(self) -> int:
        return self.log_start if self.place is None else self.place


def _snapshot(lanes: Sequence[IndexEntry]) -> Mapping[str, Any]:
    """The active version's Delta tables, given what is known of each partition."""
    folds = [fold for entry in lanes if (fold := entry.table_fold()) is not None]
    begun_ms = shown_begun_ms(fold.begun_ms for fold in folds)
    name = next((fold.active.name for fold in folds if fold.active and fold.active.begun_ms == begun_ms), None)
    return {
        "version": name,
        "versions": len({version for entry in lanes for version in entry.snapshots}),
        **_sizes([entry.snapshots[name] for entry in lanes if name is not None and name in entry.snapshots]),
    }


def _sizes(snapshots: Sequence[Snapshot]) -> dict[str, Any]:
    """The Delta tables of one version: of a Table with several partitions each has one."""
    return {
        "rows": sum(snapshot.rows for snapshot in snapshots),
        "files": sum(len(snapshot.files) for snapshot in snapshots),
        "bytes": sum(file.size_bytes for snapshot in snapshots for file in snapshot.files),
        "folder": LakeLocation.version_folder(snapshots[0].folder) if snapshots else None,
    }
