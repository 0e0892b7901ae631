"""What the worker of a run may touch: decided here alone, from its order."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tailrace.node._confine import Reach
from tailrace.node.protocol import RunOrder
from tailrace.runner.settings import RunnerSettings
from tailrace.runner.workers import WorkerLimits

__all__ = ["Ground", "cpu_s_max", "limits_of", "slot_folder", "staging_key"]

_KEY_FILE = "staging.key"
"""Below the data folder, beside the staging area: workers read in there."""


def staging_key(data_dir: Path, chance: random.Random) -> bytes:
    """What the names of slots' folders are made with: kept in the data folder, so that a slot keeps its folder."""
    path = data_dir / _KEY_FILE
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    draft = path.with_name(f"{_KEY_FILE}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(chance.randbytes(32))
    with contextlib.suppress(FileExistsError):  # another process was first: its key counts
        os.link(draft, path)
    draft.unlink()
    return path.read_bytes()


def slot_folder(slot: str, key: bytes) -> str:
    """The name of a slot's folder in the staging area."""
    return hashlib.blake2b(slot.encode(), digest_size=12, key=key).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """The folders of a host that workers read from and write to."""

    staging: Path
    lake: Path | None = None
    """Where the files of snapshots are, or copies of them."""

    def reach(self, order: RunOrder, *, network: bool, metadata_addresses: bool) -> Reach:
        """For whoever carries out `order`, and the later ones of the same node and graph version.

        It may list and read its app's files. Of the staging area it may read the files whose names it learns from the
        messages of its inputs (they cannot be guessed: `staging_key`), of the lake those of its own app, unless the lake
        is away (`reaches_lake`): then nothing is there to be read either.

        Raises `OSError` where the folder that it writes to cannot be made.
        """
        inputs = [str(self.staging)]
        if self.lake is not None:
            lake = self.lake / order.graph
            with contextlib.suppress(OSError):  # a lake that is away is the snapshotter's to tell of
                lake.mkdir(parents=True, exist_ok=True)  # what is not there cannot be granted
                inputs.append(str(lake))
        writes: tuple[str, ...] = ()
        if order.stage:
            own = (self.staging / order.stage).parent
            own.mkdir(parents=True, exist_ok=True)
            writes = (str(own),)
        return Reach(
            reads=(str(Path(order.app_dir).parent),) if order.app_dir else (),
            inputs=tuple(inputs),
            writes=writes,
            network=network,
            metadata_addresses=metadata_addresses,
        )

    def reaches_lake(self, reach: Reach, graph: str) -> bool:
        """Whether snapshots that are made later can be read, too."""
        return self.lake is None or str(self.lake / graph) in reach.inputs


def limits_of(order: RunOrder, settings: RunnerSettings) -> WorkerLimits:
    """What that worker may use."""
    return WorkerLimits(
        memory_bytes_max=order.memory_bytes_max,
        cpu_s_max=int(order.cpu_s_max) or cpu_s_max(None, order.time_limit_s, settings.cpu_limit),
        temp_bytes_max=settings.temp_bytes_max,
        processes_max=settings.processes_max,
    )


def cpu_s_max(wanted_s: float | None, time_limit_s: float, default: timedelta) -> int:
    """CPU time of one run: what the node asks for, else the default, and no less than two cores for all of its time."""
    if wanted_s is not None:
        return max(1, round(wanted_s))
    return max(1, round(default.total_seconds()), round(2 * time_limit_s))
