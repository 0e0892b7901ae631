"""The lake's files as they are, for those who copy a lake: names and bytes, whatever they mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tailrace.lake.errors import lake_errors
from tailrace.lake.location import LakeLocation

__all__ = ["LakeObjects"]

_PASSED_OVER = "_last_checkpoint"
"""A hint of Delta's that is written over; without it readers list a table's log."""

_PIECE_BYTES = 4 << 20


class LakeObjects:
    """Files below a lake's root, in a folder or in an object store.

    Raises LakeUnavailableError (retriable) and LakeDamagedError (rejected: a file is gone).
    """

    def __init__(self, location: LakeLocation) -> None:
        self._location = location
        self.where = location.url

    def sizes(self) -> dict[str, int]:
        """Path below the root -> bytes, of all files."""
        if self._location.is_local and not self._location.local_path().is_dir():
            return {}
        found: dict[str, int] = {}
        with lake_errors(self.where, "its list of files"):
            for some in self._location.store().list():
                found |= {each["path"]: each["size"] for each in some if not each["path"].endswith(f"/{_PASSED_OVER}")}
        return dict(sorted(found.items()))

    def read(self, path: str) -> Iterator[bytes]:
        """The bytes of a file, in pieces."""
        with lake_errors(self.where, path):
            yield from map(bytes, self._location.store().get(path).stream(min_chunk_size=_PIECE_BYTES))

    def write(self, path: str, pieces: Iterable[bytes]) -> None:
        """Put a file there, whole or not at all."""
        with lake_errors(self.where, path):
            self._location.store().put(path, iter(pieces))
