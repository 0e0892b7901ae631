"""Folders of files that are copied along: what lies there, its bytes, and putting it back without trusting names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from tailrace.log import NotEmptyError

__all__ = ["Files", "Folder", "safe_path"]

_PIECE_BYTES = 4 << 20


class Files(Protocol):
    """A root of files: a folder of this machine, or a lake (`tailrace.lake.LakeObjects`)."""

    where: str
    """What a person calls it."""

    def sizes(self) -> dict[str, int]:
        """Path below the root -> bytes, of all files."""
        ...

    def read(self, path: str) -> Iterator[bytes]: ...

    def write(self, path: str, pieces: Iterable[bytes]) -> None:
        """Whole or not at all, and on the disk when this returns."""
        ...


class Folder:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.where = str(root)

    def sizes(self) -> dict[str, int]:
        found = {}
        for folder, _, names in os.walk(self._root):
            for name in names:
                file = Path(folder, name)
                if file.is_file() and not file.is_symlink():
                    found[file.relative_to(self._root).as_posix()] = file.stat().st_size
        return dict(sorted(found.items()))

    def read(self, path: str) -> Iterator[bytes]:
        with (self._root / path).open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece

    def write(self, path: str, pieces: Iterable[bytes]) -> None:
        into = self._root / path
        into.parent.mkdir(parents=True, exist_ok=True)
        if not into.parent.resolve().is_relative_to(self._root.resolve()):
            raise NotEmptyError(self.where, f"a link to elsewhere at {path}")
        part = into.with_name(f"{into.name}.part")
        part.unlink(missing_ok=True)
        with part.open("xb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        part.replace(into)


def safe_path(path: str) -> bool:
    """Whether a path of an archive stays below its root, on any machine."""
    parts = PurePosixPath(path).parts
    return bool(parts) and path == "/".join(parts) and not {"..", "."} & set(parts) and not set("\\\0:") & set(path)
