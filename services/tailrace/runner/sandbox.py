"""What a worker runs in besides what holds every worker: bubblewrap's namespaces, or a container.

A sandbox holds one zygote and its one worker. All that they may see is bound at the path that it has outside, so orders
mean the same within. Landlock and seccomp hold the worker in there, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tailrace.errors import RejectedError
from tailrace.node._confine import MACHINE, SHARED_MEMORY_BYTES_MAX, Reach
from tailrace.node._process import USER_PROCESSES_MAX
from tailrace.runner.pids import PidsGroup

__all__ = ["EXECUTORS", "Bubblewrap", "Container", "ExecutorMissingError", "Sandbox", "container_tool"]

EXECUTORS = ("process", "bubblewrap", "container")
"""From the weakest to the strongest."""

TMP_BYTES_MAX = 64 << 20
"""Size of /tmp in a sandbox: node code is told of its own folder (TMPDIR), libraries may not ask."""


class ExecutorMissingError(RejectedError):
    """The machine lacks what an executor needs."""

    def __init__(self, executor: str, lacks: str) -> None:
        self.executor, self.lacks = executor, lacks
        super().__init__(f"executor {executor!r} does not work on this machine: {lacks}")


class Sandbox(Protocol):
    """How a zygote is started so that it sees little."""

    @property
    def is_apart(self) -> bool:
        """Whether it cannot be given descriptors, and connects to a socket in its folder."""
        ...

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that what starts it needs."""
        ...

    def command(self, python: str, folder: Path, group: PidsGroup | None) -> Sequence[str]:
        """What starts the interpreter `python` within; arguments follow.

        Args:
            folder: where the worker writes.
            group: what counts the processes; its limit is set.

        Raises `ExecutorMissingError` (rejected).
        """
        ...

    def close(self) -> None:
        """See to what may be left of it."""
        ...


def python_folders(python: str, paths: Iterable[str]) -> list[str]:
    """What an interpreter reads: its environment's folder, the one that that was made from, and `paths`."""
    own = Path(python).absolute().parents[1]
    real = Path(os.path.realpath(python)).parents[1]
    ours = (sys.base_prefix, *filter(None, sys.path)) if python == sys.executable else ()
    return [path for path in dict.fromkeys((str(own), str(real), *ours, *paths)) if Path(path).exists()]


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """Own user, mount, pid, ipc and host name namespaces, and without network its own of that, by `bwrap`."""

    reach: Reach
    paths: tuple[str, ...] = ()
    """What its Python reads besides its own folders."""

    is_apart: bool = False

    @property
    def environment(self) -> Mapping[str, str]:
        return {}

    def command(self, python: str, folder: Path, group: PidsGroup | None) -> Sequence[str]:
        program = shutil.which("bwrap")
        if program is None:
            raise ExecutorMissingError("bubblewrap", "bwrap is not installed (Debian, Fedora: package bubblewrap)")
        line = [program, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"]
        line += ["--disable-userns", "--die-with-parent", "--cap-drop", "ALL", "--hostname", "node"]
        if not self.reach.network:
            line.append("--unshare-net")
        line += ["--proc", "/proc", "--dev", "/dev", "--size", str(SHARED_MEMORY_BYTES_MAX), "--tmpfs", "/dev/shm"]  # noqa: S108
        line += ["--size", str(TMP_BYTES_MAX), "--tmpfs", "/tmp"]  # noqa: S108
        for path in MACHINE:
            place = Path(path)
            if path.startswith(("/dev", "/proc")) or not place.exists():
                continue
            if place.is_symlink() and place.parent == Path("/"):
                line += ["--symlink", str(place.readlink()), path]
            else:
                line += ["--ro-bind", os.path.realpath(path), path]
        for path in (*python_folders(python, self.paths), *self.reach.reads, *self.reach.inputs):
            line += ["--ro-bind", path, path]
        for path in (*self.reach.writes, str(folder)):
            line += ["--bind", path, path]
        line += ["--chdir", str(folder), "--", python]
        if group is not None:  # the shell joins it before anything is started
            line = ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(group.folder / "cgroup.procs"), *line]
        return line

    def close(self) -> None:
        pass  # the kernel ends what is in a pid namespace with its first process


def container_tool() -> str | None:
    """`docker` or `podman`, whichever answers; None where neither does."""
    for tool in ("docker", "podman"):
        program = shutil.which(tool)
        if program is None:
            continue
        try:
            done = subprocess.run([program, "info"], capture_output=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return program
    return None


@dataclass(frozen=True, slots=True)
class Container:
    """A container of docker or podman: read-only, without capabilities, bounded in memory and processes."""

    reach: Reach
    tool: str
    image: str
    """Has the same Python as the host with tailrace in it: the runner's own image."""

    name: str
    memory_bytes_max: int
    processes_max: int
    paths: tuple[str, ...] = ()
    is_apart: bool = True

    @property
    def environment(self) -> Mapping[str, str]:
        """For docker's or podman's own program; within, none of these is seen."""
        names = ("HOME", "XDG_RUNTIME_DIR", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY")
        return {name: os.environ[name] for name in names if name in os.environ}

    def command(self, python: str, folder: Path, group: PidsGroup | None) -> Sequence[str]:
        line = [self.tool, "run", "--rm", "--name", self.name, "--read-only", "--cap-drop", "ALL"]
        line += ["--security-opt", "no-new-privileges", "--user", f"{os.getuid()}:{os.getgid()}"]
        line += ["--pids-limit", str(self.processes_max), "--memory", str(self.memory_bytes_max + (256 << 20))]
        # Else podman asks for limits that its own user may not set.
        line += ["--ulimit", "nofile=1024:1024", "--ulimit", f"nproc={USER_PROCESSES_MAX}:{USER_PROCESSES_MAX}"]
        line += ["--network", "bridge" if self.reach.network else "none", "--shm-size", str(SHARED_MEMORY_BYTES_MAX)]
        line += ["--tmpfs", f"/tmp:size={TMP_BYTES_MAX}", "--workdir", str(folder), "--env", f"TMPDIR={folder}"]  # noqa: S108
        own = python_folders(python, self.paths) if python != sys.executable else list(self.paths)
        for path in (*own, *self.reach.reads, *self.reach.inputs):
            line += ["--volume", f"{path}:{path}:ro"]
        for path in (*self.reach.writes, str(folder)):
            line += ["--volume", f"{path}:{path}"]
        return [*line, "--entrypoint", python, self.image]

    def close(self) -> None:
        subprocess.run([self.tool, "rm", "--force", self.name], capture_output=True, timeout=30, check=False)
