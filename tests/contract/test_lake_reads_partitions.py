"""The same of tables with several partitions, of which some lie in a snapshot and a tail and others in the log."""

from __future__ import annotations

from pathlib import Path

import pytest
import test_lake_reads as whole

from tailrace.lake import TopicSource, snapshot_version
from tailrace.node import lake
from tailrace.sql import Database
from tailrace.tables import StagedFiles

PARTITION_KEYS = {"keyed": "id", "two keys": "a"}
"""Of the other cases it is `n`."""


class App(whole.App):
    """Its table has three partitions."""

    def __init__(self, folder: Path, key: str) -> None:
        super().__init__(folder)
        del self.app._tables["t"]
        self.app.table("t", partitions=3, partition_key=key)

    def put_away(self, number: int) -> None:
        """Bring a partition into the lake, and take from its log what is there."""
        lane = self.app.lanes["t"][number]
        source = TopicSource(
            lane.ref.topic, lane.ref.born_ms, lane, StagedFiles(self.folder / "staging"), lane.log_start, number
        )
        for name in list(lane.fold.versions):
            made = snapshot_version(self.location, source, lane.fold, name).snapshot
            lane.snapshots[name] = made, self.location.local_path(made.folder)
            lane.trim(made.position)


@pytest.mark.parametrize("files", [True, False])
@pytest.mark.parametrize("case", whole.CASES)
def test_rows_are_the_same_wherever_each_partition_lies(
    case: str, files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQL reads snapshots from their files, or all rows in memory."""
    monkeypatch.setattr(lake, "ROWS_MIN", 1 if files else 1 << 60)
    from_files: list[str] = []
    register = Database.register_files
    monkeypatch.setattr(
        Database,
        "register_files",
        lambda self, name, *args, **more: (from_files.append(name), register(self, name, *args, **more)),
    )
    first, second = whole.CASES[case]
    found = []
    for name in ("log", "lake"):
        (tmp_path / name).mkdir()
        app = App(tmp_path / name, PARTITION_KEYS.get(case, "n"))
        app.run(first)
        if name == "lake":
            app.put_away(0)
            app.put_away(1)
        app.run(second)
        found.append(app.read())
    wanted, got = found
    for way, value in wanted.items():
        assert repr(got[way]) == repr(value), way
    if case in ("appended", "keyed", "deleted", "without ids", "another id"):
        assert bool(from_files) == files, from_files
