"""The snapshotter's process as the crash tests start it: with small bounds, so that all its steps come soon, and with a
planted fault where one is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import deltalake

from tailrace.lake import LakeLimits, VersionTable, snapshot
from tailrace.snapshotter import service, work
from tailrace.snapshotter.__main__ import main as serve
from tailrace.tables import lane_of

LIMITS = LakeLimits(files_joined_min=3, checkpoint_every=3, commits_kept=20, removed_kept=timedelta(minutes=5))


def begin_at_the_place() -> None:
    """Each Delta table is taken to be where the group's place is, whatever it says itself."""
    snapshot_version, step = work.snapshot_version, work.TableWork.step
    places: dict[str, int] = {}

    def remember(self: Any) -> bool:
        places[self.lane.key] = self.place
        return step(self)

    def forgetful(location: Any, source: Any, fold: Any, version: str, *, table: Any = None, **more: Any) -> Any:
        table = table or VersionTable.open(location, location.folder(source.topic, version, source.lane))
        if table is not None:
            table.meta = replace(
                table.meta, position=min(table.meta.position, places[lane_of(source.topic, source.lane or 0)])
            )
        return snapshot_version(location, source, fold, version, table=table, **more)

    work.TableWork.step = remember  # type: ignore[method-assign]
    work.snapshot_version = forgetful


def append_all_that_was_read() -> None:
    """What the Delta table has already of a tail that is read again is not left out."""
    snapshot._Work._floor = 0  # type: ignore[assignment, method-assign]


def commit_through_a_fresh_handle() -> None:
    """What is written was decided from a state that may be old by now."""
    commit = VersionTable.commit

    def fresh(self: Any, *arguments: Any, **more: Any) -> None:
        self._delta = deltalake.DeltaTable(self.location.uri(self.folder))
        commit(self, *arguments, **more)

    VersionTable.commit = fresh  # type: ignore[method-assign]


def commit_the_place_first() -> None:
    """The group's place runs ahead of the lake, and readers trust it: rows are left out."""
    write = work.TableWork._write

    def hasty(self: Any, fold: Any, messages: Any) -> Any:
        self._save(self.lane, fold.position, [])
        self.place = fold.position
        self._runtime.probe.reached("place-too-early")
        return write(self, fold, messages)

    work.TableWork._write = hasty  # type: ignore[method-assign]


FAULTS = {
    "group position as truth": begin_at_the_place,
    "no overlap cut": append_all_that_was_read,
    "fresh handle for the write": commit_through_a_fresh_handle,
    "place before the lake": commit_the_place_first,
}


def main(arguments: Sequence[str]) -> int:
    """A snapshotter with small bounds and the faults that `arguments` name."""
    work.LakeLimits = lambda: LIMITS  # type: ignore[assignment, misc]
    service._LISTEN_PAUSE_S = 0.01
    for fault in arguments:
        FAULTS[fault]()
    return serve(["--stdin"])
