"""What holds nodes on this machine, and what does not: for whoever looks after it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from tailrace.node._confine import landlock_abi, seccomp_known
from tailrace.runner.pids import PidsGroups
from tailrace.runner.sandbox import container_tool

__all__ = ["Containment", "containment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Containment:
    """What this machine can do."""

    landlock_abi: int
    """Version of Landlock; 0: files are open to every worker of this user."""

    seccomp: bool
    """Whether sockets can be withheld (`network: false`)."""

    pids_groups: bool
    """Whether a control group bounds the processes of each worker."""

    is_root: bool
    """Then no other bound on the number of processes counts."""

    bubblewrap: bool
    """Whether `bwrap` is there and may make namespaces."""

    container_tool: str | None
    """Path of docker or podman, where one answers."""

    def gaps(self) -> list[str]:
        """What node code could do here, each with what mends it; empty where the default executor holds everything."""
        found = []
        if not self.landlock_abi:
            found.append(
                "node code can read the log, the lake and other apps' files: the kernel has no Landlock (Linux 5.13 and "
                "later, and `landlock` in its list of lsm=); set the executor to bubblewrap or container"
            )
        elif self.landlock_abi < 6:
            found.append(
                "node code can send signals to other processes of this user, the host among them: Landlock holds them from "
                "Linux 6.12 on; set the executor to bubblewrap or container"
            )
        if not self.seccomp:
            found.append(
                "`network: false` works in the executors bubblewrap and container alone: no seccomp for this machine"
            )
        if not self.pids_groups:
            user = "as root nothing bounds them" if self.is_root else "all of this user's together may be 4,096"
            found.append(
                f"a fork bomb is not held to one node: no control group can be made for its processes ({user}); give the "
                "service one (systemd: Delegate=yes), or set the executor to container"
            )
        return found


def containment() -> Containment:
    """Find out; takes up to some seconds where docker does not answer."""
    return Containment(
        landlock_abi=landlock_abi(),
        seccomp=seccomp_known(),
        pids_groups=PidsGroups.find() is not None,
        is_root=os.geteuid() == 0,
        bubblewrap=_bubblewrap_works(),
        container_tool=container_tool(),
    )


def _bubblewrap_works() -> bool:
    program = shutil.which("bwrap")
    if program is None:
        return False
    command = [program, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    try:
        return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
