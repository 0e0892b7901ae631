"""Staged files: Parquet files that bulk rows lie in, one row group a message."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tailrace.errors import RejectedError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["StagedFileMissingError", "StagedFiles"]


class StagedFileMissingError(RejectedError):
    """A message names a staged file that is not there."""

    def __init__(self, path: str, folder: Path) -> None:
        self.path, self.folder = path, folder
        super().__init__(
            f"staged file {path} is missing below {folder}: rows that were written in bulk are in it; restore the "
            "staging folder, or run where it is (it belongs to the log)"
        )


class StagedFiles:
    """Reads row groups of the files below `folder`; keeps the last file open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: tuple[str, pq.ParquetFile] | None = None

    def row_group(self, path: str, row_group: int) -> pa.Table:
        """One row group of the staged file `path`; raises `StagedFileMissingError` (rejected)."""
        import pyarrow.parquet as pq

        if self._open is None or self._open[0] != path:
            full = (self._folder / path).resolve()
            if not full.is_relative_to(self._folder.resolve()) or not full.is_file():
                raise StagedFileMissingError(path, self._folder)
            self._open = (path, pq.ParquetFile(full, memory_map=True))
        return self._open[1].read_row_group(row_group)
