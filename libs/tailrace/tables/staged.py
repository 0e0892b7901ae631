"""Staged files: Parquet files that bulk rows lie in, one row group a message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tailrace.errors import RejectedError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["StagedFileMissingError", "StagedFiles"]

_FETCHES_MAX = 5
"""A copy may be deleted before it is opened, where others fetch at the same time."""


class StagedFileMissingError(RejectedError):
    """A message names a staged file that is not there."""

    def __init__(self, path: str, folder: Path) -> None:
        self.path, self.folder = path, folder
        super().__init__(
            f"staged file {path} is missing below {folder}: rows that were written in bulk are in it; restore the "
            "staging folder, or run where it is (it belongs to the log)"
        )


class StagedFiles:
    """Reads row groups of the files below `folder`; keeps the last file open.

    Args:
        fetch: brings a file there that is not, from a lake in an object store; False where it cannot be had.
    """

    def __init__(self, folder: Path, fetch: Callable[[str], bool] | None = None) -> None:
        self._folder = folder
        self._fetch = fetch
        self._open: tuple[str, pq.ParquetFile] | None = None

    def row_group(self, path: str, row_group: int) -> pa.Table:
        """One row group of the staged file `path`; raises `StagedFileMissingError` (rejected), and what `fetch` raises."""
        if self._open is None or self._open[0] != path:
            self._open = (path, self._file(path))
        return self._open[1].read_row_group(row_group)

    def _file(self, path: str) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        full = (self._folder / path).resolve()
        if full.is_relative_to(self._folder.resolve()):
            for _ in range(_FETCHES_MAX):
                try:
                    return pq.ParquetFile(full, memory_map=True)
                except FileNotFoundError:
                    if self._fetch is None or not self._fetch(path):
                        break
        raise StagedFileMissingError(path, self._folder)
