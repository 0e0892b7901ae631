"""The lake as the local HTTP interface shows it: how far each Table is in it, and what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tailrace.cli.keeper import Keeper
from tailrace.errors import RejectedError
from tailrace.log import Log, Partition
from tailrace.snapshotter import GROUP, IndexEntry, SnapshotterSettings, TableWish, read_index, table_topics

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
        """What of a table's versions lies in the lake, by their names; "" tells where the log begins."""
        return await asyncio.to_thread(self._versions, topic)

    def _versions(self, topic: str) -> dict[str, dict[str, Any]]:
        partition = Partition(topic)
        infos = self._log.topics(topic)
        place = self._log.places(GROUP, [partition]).get(partition)
        entry = read_index(self._log, topic.partition(".")[0], infos).get(topic, IndexEntry())
        found: dict[str, dict[str, Any]] = {"": {"log_start": self._log.starts([partition])[partition]}}
        for name, snapshot in entry.snapshots.items():
            found[name] = {
                "rows": snapshot.rows,
                "files": len(snapshot.files),
                "bytes": sum(file.size_bytes for file in snapshot.files),
                "folder": snapshot.folder,
                "position": snapshot.position,
                "complete": place is not None and place.offset >= self._log.ends([partition])[partition],
            }
        return found

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
            infos = table_topics(self._log, [graph])
            if not infos:
                continue
            partitions = [Partition(topic) for topic in infos]
            ends, starts = self._log.ends(partitions), self._log.starts(partitions)
            places = self._log.places(GROUP, partitions)
            entries = read_index(self._log, graph, infos)
            for partition in partitions:
                topic = partition.topic
                place = places[partition].offset if partition in places else starts[partition]
                found.append(
                    {
                        "app": graph,
                        "table": settings.tables.get(topic, TableWish(name=topic)).name,
                        "topic": topic,
                        "position": place,
                        "end": ends[partition],
                        "lag_offsets": max(0, ends[partition] - place),
                        "log_start": starts[partition],
                        **_snapshot(entries.get(topic, IndexEntry())),
                        "error": self._keeper.troubles.get(topic),
                        "lost": self._keeper.lost.get(topic),
                    }
                )
        return found


def _snapshot(entry: IndexEntry) -> Mapping[str, Any]:
    """The active version's Delta table."""
    name = entry.fold["active"] if entry.fold is not None else None
    snapshot = entry.snapshots.get(name) if name is not None else None
    return {
        "version": name,
        "versions": len(entry.snapshots),
        "rows": snapshot.rows if snapshot is not None else 0,
        "files": len(snapshot.files) if snapshot is not None else 0,
        "bytes": sum(file.size_bytes for file in snapshot.files) if snapshot is not None else 0,
        "folder": snapshot.folder if snapshot is not None else None,
    }
