"""The one writer that all tables of a snapshotter share."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tailrace.lake import LakeLocation
from tailrace.log import FencedError, Log, LogUnavailableError, OutcomeUnknownError, Partition
from tailrace.runtime import SYSTEM
from tailrace.snapshotter import SnapshotterSettings
from tailrace.snapshotter.service import Snapshotter
from tailrace.snapshotter.topics import TableLane


class LosesOne:
    """A log whose first writer never learns how its commit ended; then the log is away for a moment."""

    def __init__(self) -> None:
        self.opened = 0
        self.saved: list[Any] = []

    def watch(self) -> None: ...

    def open_writer(self, name: str) -> Any:
        self.opened += 1
        if self.opened == 2:
            raise LogUnavailableError("kafka://here", "it is away")
        number, given_up = self.opened, []

        def commit(appends: Any, places: Any) -> None:
            if given_up:
                raise FencedError(name)
            if number == 1:
                given_up.append(True)
                raise OutcomeUnknownError("this commit", "the connection broke")
            self.saved.append(places)

        return SimpleNamespace(commit=commit, close=lambda: None)


async def test_an_unknown_outcome_of_one_table_ends_no_other(tmp_path: Path) -> None:
    """Those that wait to save meanwhile would find a writer that was given up, as if another snapshotter had begun."""
    log = LosesOne()
    settings = SnapshotterSettings(log_url="kafka://here", lake_url=str(tmp_path), staging_dir=str(tmp_path))
    snapshotter = Snapshotter(cast(Log, log), LakeLocation.parse(str(tmp_path)), settings, SYSTEM, lambda _: None)
    snapshotter._writer = log.open_writer("snapshotter-1")
    lane = cast(TableLane, SimpleNamespace(topic="shop.orders", partition=Partition("shop.orders")))
    for expected in (OutcomeUnknownError, LogUnavailableError):
        with pytest.raises(expected):
            snapshotter._save(lane, 7, [])
    snapshotter._save(lane, 7, [])
    assert len(log.saved) == 1
