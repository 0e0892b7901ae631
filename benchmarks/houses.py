"""Houses for measuring: an ordinary host in a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from tailrace.cli.house import CONTACT_FILE

__all__ = [
    "RunningHouse",
    "cpu_s",
    "process_tree",
    "pss_bytes",
    "rss_peak_bytes",
    "running_house",
    "snapshotters",
    "waited_s",
]


class RunningHouse:
    """A house that is up."""

    def __init__(self, process: subprocess.Popen[bytes], data: Path, out: Path) -> None:
        self.process = process
        self.data = data
        self._out = out
        self._read_bytes = 0
        self._entries: list[dict[str, Any]] = []
        contact = orjson.loads((data / CONTACT_FILE).read_bytes())
        self.url: str = contact["url"]
        self.headers = {"Authorization": f"Bearer {contact['token']}"}

    def entries(self, kind: str) -> list[dict[str, Any]]:
        """Runs (`run`), lines of output (`line`) or, after the end, scans (`scan`) so far; each with `at_ns`."""
        with self._out.open("rb") as file:
            file.seek(self._read_bytes)
            whole, end, _ = file.read().rpartition(b"\n")
        self._read_bytes += len(whole) + len(end)
        self._entries += [orjson.loads(line) for line in whole.split(b"\n") if line]
        return [entry for entry in self._entries if entry["type"] == kind]

    def wait_for(self, condition: Callable[[], bool], what: str, timeout_s: float = 120) -> None:
        """Until the condition holds; fails when the house ends before."""
        until_s = time.monotonic() + timeout_s
        while not condition():
            if self.process.poll() is not None:
                raise RuntimeError(f"the house ended (status {self.process.returncode}) before {what}")
            if time.monotonic() > until_s:
                raise TimeoutError(f"not within {timeout_s:g} s: {what}")
            time.sleep(0.01)


@contextlib.contextmanager
def running_house(
    apps: Sequence[Path],
    data: Path,
    out: Path,
    *,
    log_url: str | None = None,
    note_scans: Sequence[str] = (),
    runner: Mapping[str, Any] | None = None,
) -> Iterator[RunningHouse]:
    """A house over these apps, with its data in `data`; stopped at the end, and its entries stay readable in `out`."""
    settings = {
        "apps": [str(app) for app in apps],
        "data": str(data),
        "url": log_url,
        "out": str(out),
        "note_scans": list(note_scans),
        "runner": runner or {},
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.house_main", orjson.dumps(settings).decode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        if process.stdout.readline() != b"up\n":
            raise RuntimeError(f"the house did not start (status {process.wait()})")
        yield RunningHouse(process, data, out)
    finally:
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def process_tree(pid: int) -> list[int]:
    """A process and all that it started, directly or not."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def snapshotters(pid: int) -> list[int]:
    """The snapshotter's process, while it has something to do."""
    found = []
    for each in process_tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended just now
            if b"tailrace.snapshotter" in Path(f"/proc/{each}/cmdline").read_bytes():
                found.append(each)
    return found


def cpu_s(pid: int, *, with_ended: bool = False) -> float:
    """CPU time that a process has taken so far, `with_ended` together with its children that have ended; 0 when it is
    gone."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11 : 15 if with_ended else 13])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def waited_s(pid: int) -> float:
    """How long the threads of a process were ready and waited for a core: what other programs cost it."""
    total = 0
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[1])
    return total / 1e9


def rss_peak_bytes(pid: int) -> int:
    """The most memory that a process ever had resident, shared pages included; 0 when it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def pss_bytes(pid: int) -> int:
    """A process's memory, pages that it shares with others counted in part; 0 when it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
