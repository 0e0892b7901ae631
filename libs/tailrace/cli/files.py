"""Files that commands write for people."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tailrace.cli.errors import ExistsError, FileWriteError

__all__ = ["check_free", "write_file"]


def check_free(output: Path, *, force: bool) -> None:
    """Raises ExistsError (rejected) where `output` is there already, unless it may be overwritten."""
    if output.exists() and not force:
        raise ExistsError(output, "choose another name, or overwrite it with --force")


def write_file(output: Path, pieces: Iterable[bytes]) -> int:
    """Write the pieces beside `output`, then rename: a file of that name is whole. Returns how many bytes there were.

    Raises FileWriteError (rejected).
    """
    draft = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with draft.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            written_bytes = file.tell()
        draft.replace(output)
    except OSError as error:
        raise FileWriteError(output, error.strerror or str(error)) from error
    finally:
        draft.unlink(missing_ok=True)
    return written_bytes
