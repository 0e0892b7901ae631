"""What a run took of the machine, as the kernel has counted it for its worker; measured by the host, not by the worker."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

__all__ = ["Meter", "Usage"]

_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """None: nobody knows, because the worker is gone or the system does not tell."""

    cpu_ms: int | None = None
    """CPU time of the worker, and of the processes that it started and that have ended."""
    memory_bytes: int | None = None
    """Most memory that the worker had in use at a time, what it shares with others included."""


class Meter:
    """Counts from now on. Linux alone tells."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")
        self._before_ms = self._cpu_ms()
        with contextlib.suppress(OSError):
            (self._folder / "clear_refs").write_text("5")  # the peak begins anew: proc_pid_clear_refs(5)

    def read(self) -> Usage:
        """What was used since."""
        now_ms = self._cpu_ms()
        known = now_ms is not None and self._before_ms is not None
        return Usage(round(now_ms - self._before_ms) if known else None, self._peak_bytes())  # type: ignore[operator]

    def _cpu_ms(self) -> float | None:
        try:
            text = (self._folder / "stat").read_text()
        except OSError:
            return None
        fields = text.rpartition(")")[2].split()  # the name before may hold anything
        return sum(map(int, fields[11:15])) * _TICK_MS

    def _peak_bytes(self) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            for line in (self._folder / "status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) << 10
        return None
