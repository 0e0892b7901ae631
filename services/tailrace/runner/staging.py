"""Files that bulk rows are staged in: one folder for each part of a run, kept exactly as long as its messages.

A folder is `<staging>/<writer>/<run>.<part>`. Steps of a commit that has staged files:

 1. `staged-synced`    the files are on the disk, no message names them yet: the next opener deletes them.
 2. the commit         the point of no return: messages name the files, and the index topic holds the folders' names.
 3. `staged-marked`    a file `.committed` in each folder says so too. A crash in between is mended by the next opener,
                       who finds the names in the index topic, because a writer has at most one commit under way.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

__all__ = ["mark_committed", "open_folders", "sync_folders"]

_MARK = ".committed"


def sync_folders(staging: Path, folders: Iterable[str]) -> list[str]:
    """Bring the files of those folders that exist to the disk; returns their names."""
    found = []
    for name in folders:
        folder = staging / name
        if not folder.is_dir():
            continue
        for file in [*folder.iterdir(), folder, folder.parent]:
            handle = os.open(file, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        found.append(name)
    return found


def mark_committed(staging: Path, folders: Iterable[str]) -> None:
    """Say that messages name the files of these folders."""
    for name in folders:
        folder = staging / name
        if folder.is_dir():
            (folder / _MARK).touch()


def open_folders(staging: Path, writer: str, last_committed: Iterable[str]) -> None:
    """Put right what the last writer of this name left: keep what its last commit named, delete what none did.

    Only for who has just opened the writer, and so has fenced all who could still commit.
    """
    mark_committed(staging, last_committed)
    own = staging / writer
    if own.is_dir():
        for folder in own.iterdir():
            if folder.is_dir() and not (folder / _MARK).exists():
                shutil.rmtree(folder, ignore_errors=True)


def drop_folders(staging: Path, stage: str, parts: Iterable[int]) -> None:
    """Delete folders of a run that was dropped."""
    for part in parts:
        shutil.rmtree(staging / f"{stage}.{part}", ignore_errors=True)
