"""Pools of workers that begin together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tailrace.runner.workers import WorkerPool


def test_pools_that_begin_together_leave_each_other_their_folders(tmp_path: Path) -> None:
    """A new folder is not taken for that of a dead process in the moment before its owner holds it."""
    pools = [WorkerPool(folder=tmp_path / "pools") for _ in range(24)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(WorkerPool._make_folder, pools))
    folders = {pool.folder for pool in pools}
    assert len(folders) == len(pools) and all(folder is not None and folder.is_dir() for folder in folders)
