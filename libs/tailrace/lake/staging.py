"""Staged files: what bulk rows lie in from the commit that names them until the log is trimmed behind them.

A file is `<writer>/<slot>/<run>.<part>/<n>.parquet`; a folder holds one part of a run, and is kept as long as its messages.
`<slot>` is the only folder that the slot's worker may write to, and nobody outside of the host can work out its name: who
may read the area but not list it reads only what messages tell it of. With a lake on this machine files lie in the staging folder, and nowhere else. With a lake in an object store they lie below
`<lake>/_staging` for every machine, and the staging folder holds what this machine writes and copies of what it reads:
a bounded number of bytes, the oldest go first. Steps of a commit that has staged files:

 1. `staged-synced`    the files are on the disk, or in the object store; no message names them yet: the next opener
                       deletes them.
 2. the commit         the point of no return: messages name the files, and the index topic holds the folders' names.
 3. `staged-marked`    a file `.committed` in each folder says so too. A crash in between is mended by the next opener,
                       who finds the names in the index topic, because a writer has at most one commit under way.

In an object store the third step waits for the writer's next staged commit, and so does the opener's work: a store that
is away holds up nobody who does not need it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tailrace.lake.errors import LakeDamagedError, lake_errors
from tailrace.lake.location import LakeLocation

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["STAGING_FOLDER", "StagingArea"]

STAGING_FOLDER = "_staging"
"""Below the lake's root; the folders of tables begin with the name of their app."""

COPIES_BYTES_MAX = 4 << 30
"""Size of what an object store has that this machine keeps too. Less: what is read again is fetched again, and a table
that is larger is fetched at each reading. More: disk."""

_MARK = ".committed"
_FOOTER_BYTES = 1 << 20
"""Read from a file's end to learn what it holds: the footer of a file of a thousand row groups is smaller."""

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*").fullmatch
_DELETES_MAX = 1_000


class StagingArea:
    """The staged files of one host or snapshotter.

    Args:
        folder: on this machine; nobody else deletes files there.
        location: the lake.
    """

    def __init__(
        self, folder: Path, location: LakeLocation | None = None, *, copies_bytes_max: int = COPIES_BYTES_MAX
    ) -> None:
        self.folder = folder
        self._location = None if location is None or location.is_local else location
        self._copies_bytes_max = copies_bytes_max
        self._unmarked: dict[str, list[str]] = {}
        """Of each writer, the folders that its last staged commit named: not marked in the object store yet."""
        self._opened: set[str] = set()
        """Writers whose last owner may have left folders in the object store that no message names."""
        self._lock = threading.Lock()

    # -- who writes ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make ready, before anything runs. Of what an object store has only files stay here that it has."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._location is not None:
            for folder in self._folders():
                if not (folder / _MARK).exists() or not any(folder.glob("*.parquet")):
                    shutil.rmtree(folder, ignore_errors=True)

    def open(self, writer: str, last_committed: Iterable[str]) -> None:
        """Put right what the last writer of this name left: keep what its last commit named, delete what none did.

        Only for who has just opened the writer, and so has fenced all who could still commit.
        """
        names = list(last_committed)
        if self._location is not None:
            with self._lock:
                self._unmarked[writer] = names
                self._opened.add(writer)
        self._mark(names)
        for folder in _parts(self.folder / writer):
            if not (folder / _MARK).exists():
                shutil.rmtree(folder, ignore_errors=True)

    def sync(self, folders: Iterable[str]) -> list[str]:
        """Bring the files of those folders that exist to where every reader finds them; returns the folders' names.

        Raises `LakeUnavailableError` (retriable); then nothing may name them yet.
        """
        found = []
        for name in folders:
            folder = self.folder / name
            if not folder.is_dir():
                continue
            if self._location is not None:
                self._upload(name)
            else:
                for file in [*folder.iterdir(), folder, folder.parent]:
                    _sync(file)
            found.append(name)
        return found

    def committed(self, folders: Iterable[str]) -> None:
        """Messages name the files of these folders now, all of one writer."""
        names = list(folders)
        self._mark(names)
        if self._location is not None and names:
            with self._lock:
                self._unmarked[_writer_of(names[0])] = names
            self._make_room()

    def drop(self, folders: Iterable[str]) -> None:
        """Delete folders of a run that was dropped."""
        for name in folders:
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _mark(self, folders: Iterable[str]) -> None:
        for name in folders:
            folder = self.folder / name
            if folder.is_dir():
                (folder / _MARK).touch()

    def _upload(self, name: str) -> None:
        writer = _writer_of(name)
        store = self._store()
        with lake_errors(STAGING_FOLDER, name):
            for folder in self._unmarked.get(writer, ()):
                store.put(f"{folder}/{_MARK}", b"")
            if writer in self._opened:
                _delete_unnamed(store, writer)
            with self._lock:
                self._unmarked.pop(writer, None)
                self._opened.discard(writer)
            for file in sorted((self.folder / name).iterdir()):
                store.put(f"{name}/{file.name}", file)

    # -- who reads -------------------------------------------------------------------------------------------------

    def fetch(self, path: str) -> bool:
        """Have the file `path` on this machine; False where there is none. It may go again when others are fetched, but
        who has opened it keeps it.

        Raises `LakeUnavailableError` (retriable).
        """
        if not _NAME(path):
            return False
        copy = self.folder / path
        if copy.is_file():
            return True
        if self._location is None:
            return False
        copy.parent.mkdir(parents=True, exist_ok=True)
        (copy.parent / _MARK).touch()
        try:
            self._location.fetch(STAGING_FOLDER, path, copy)
        except LakeDamagedError:
            return False
        self._make_room(keep=copy)
        return True

    def _make_room(self, keep: Path | None = None) -> None:
        """Delete copies of what the object store has, oldest first, until what is left is within the bound."""
        with self._lock:
            copies = []
            for folder in self._folders():
                with contextlib.suppress(FileNotFoundError):  # others make room, too
                    files = list(folder.glob("*.parquet")) if (folder / _MARK).exists() else []
                    for file in files:
                        status = file.stat()
                        copies.append((status.st_mtime, status.st_size, file))
            held = sum(size for _, size, _ in copies)
            for _, size, file in sorted(copies):
                if held <= self._copies_bytes_max:
                    return
                if file != keep:
                    file.unlink(missing_ok=True)  # its folder stays: a fetch may be going on in it
                    held -= size

    def _folders(self) -> list[Path]:
        """The folders of parts that are on this machine."""
        return [folder for writer in self.folder.glob("*") for folder in _parts(writer)]

    # -- who lets go -----------------------------------------------------------------------------------------------

    def row_groups(self, path: str) -> int | None:
        """How many the file has; None where nobody can tell.

        Raises `LakeUnavailableError` (retriable).
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        file = self.folder / path
        try:
            if file.is_file() or self._location is None:
                return int(pq.read_metadata(file).num_row_groups)
            store = self._store()
            with lake_errors(STAGING_FOLDER, path):
                size = store.head(path)["size"]
                end = bytes(store.get_range(path, start=max(0, size - _FOOTER_BYTES), end=size))
            return int(pq.read_metadata(pa.BufferReader(end)).num_row_groups)
        except (OSError, LakeDamagedError, pa.ArrowException):
            return None

    def delete(self, path: str) -> None:
        """Delete a file, and its folder when nothing else is in it. One that is not there is no error.

        Raises `LakeUnavailableError` (retriable).
        """
        if not _NAME(path):
            return
        file = self.folder / path
        file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            _remove_if_empty(file.parent)
        if self._location is not None:
            store, folder = self._store(), path.rpartition("/")[0]
            with lake_errors(STAGING_FOLDER, path), contextlib.suppress(FileNotFoundError):
                store.delete(path)
                left = [each["path"].rpartition("/")[2] for chunk in store.list(f"{folder}/") for each in chunk]
                if left == [_MARK]:
                    store.delete(f"{folder}/{_MARK}")

    def _store(self) -> ObjectStore:
        assert self._location is not None
        return self._location.store(STAGING_FOLDER)


def _writer_of(folder: str) -> str:
    return folder.partition("/")[0]


def _parts(writer: Path) -> list[Path]:
    """The folders of parts below a writer's, and below those of its slots."""
    found = [*writer.glob("*"), *writer.glob("*/*")]
    return [folder for folder in found if "." in folder.name and folder.is_dir()]


def _sync(file: Path) -> None:
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_if_empty(folder: Path) -> None:
    """Delete a folder in which nothing is left but the mark."""
    if [each.name for each in folder.iterdir()] == [_MARK]:
        (folder / _MARK).unlink()
        folder.rmdir()


def _delete_unnamed(store: ObjectStore, writer: str) -> None:
    """Delete the folders of a writer that are not marked."""
    folders: dict[str, list[str]] = {}
    for chunk in store.list(f"{writer}/"):
        for each in chunk:
            folders.setdefault(each["path"].rpartition("/")[0], []).append(each["path"])
    unnamed = [path for folder, paths in folders.items() if f"{folder}/{_MARK}" not in paths for path in paths]
    for start in range(0, len(unnamed), _DELETES_MAX):
        store.delete(unnamed[start : start + _DELETES_MAX])
