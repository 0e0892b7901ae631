"""Control groups that bound how many processes a worker has: what holds a fork bomb, whoever the user is.

Both versions of control groups are used where this process may make groups below its own; where it may not (`find`
gives None), a bubblewrap or container executor holds them, or nothing does for root.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import time
from pathlib import Path

__all__ = ["PidsGroup", "PidsGroups"]

_NAME = "tailrace-"
_numbers = itertools.count(1)


class PidsGroup:
    """One group: whoever writes its pid into `procs` belongs to it, with all that it starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def close(self) -> None:
        """Let nobody in it start another process."""
        with contextlib.suppress(OSError):
            (self.folder / "pids.max").write_text("0")

    def remove(self) -> int:
        """Kill all that is in it, and take it away; how many were killed."""
        self.close()
        killed: set[int] = set()
        for _ in range(400):  # two seconds: the kernel takes a moment to tear them down
            with contextlib.suppress(OSError):
                for line in (self.folder / "cgroup.procs").read_text().split():
                    killed.add(int(line))
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(line), signal.SIGKILL)
            try:
                self.folder.rmdir()
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.005)  # a thread's
            else:
                break
        return len(killed)


class PidsGroups:
    """Makes groups below one folder of the control groups' tree."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def find(cls, root: Path = Path("/sys/fs/cgroup")) -> PidsGroups | None:
        """Where this process may make groups; None: nowhere. Empty ones that others left are taken away."""
        for folder in _candidates(root):
            groups = cls(folder)
            try:
                group = groups.new(1)
            except OSError:
                continue
            # To make one is not enough: who may join it depends on the folders above, too.
            joining = ["/bin/sh", "-c", 'echo 0 > "$0"', str(group.folder / "cgroup.procs")]
            joined = subprocess.run(joining, capture_output=True, check=False).returncode == 0
            group.remove()
            if not joined:
                continue
            groups._sweep()
            return groups
        return None

    def new(self, processes_max: int) -> PidsGroup:
        """A new group. Raises OSError."""
        folder = self.folder / f"{_NAME}{os.getpid()}-{next(_numbers)}"
        folder.mkdir()
        try:
            (folder / "pids.max").write_text(str(processes_max))
        except OSError:
            folder.rmdir()
            raise
        return PidsGroup(folder)

    def _sweep(self) -> None:
        for folder in self.folder.glob(f"{_NAME}*-*"):
            owner = folder.name.removeprefix(_NAME).partition("-")[0]
            if not Path("/proc", owner).exists():
                with contextlib.suppress(OSError):  # somebody lives in it
                    folder.rmdir()


def _candidates(root: Path) -> list[Path]:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "pids" in controllers.split(","):
            found.append(root / "pids" / path.lstrip("/"))
        elif not controllers:  # version 2; a service with Delegate=yes has a folder of its own there
            found += [root / path.lstrip("/"), root / path.lstrip("/") / ".."]
    return [folder for folder in found if folder.is_dir()]
