"""A folder that one process at a time may use."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["take_folder"]


def take_folder(folder: Path) -> Callable[[], None] | None:
    """Take a folder for this process alone; returns how to let go of it, or None where another process has it.

    The kernel lets go of it when the process ends, however it ends. Raises `OSError` where no file can be made there.
    """
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return lambda: os.close(handle)
