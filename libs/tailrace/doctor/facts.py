"""All that is known before anything is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tailrace.lake import LakeFacts
from tailrace.log import LogFacts

__all__ = ["Facts", "MachineFacts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """This machine, and what lies in the data folder."""

    python: tuple[int, int, int]
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package -> version, ours first."""
    now_ms: int = 0
    data_dir: str = ""
    disk_free_bytes: int | None = None
    leftovers: tuple[str, ...] = ()
    """Files that something interrupted left, and nothing will go on with."""
    gaps: tuple[str, ...] = ()
    """What node code could do here, each with what mends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A deployment as it is found."""

    log: LogFacts
    lake: LakeFacts
    machine: MachineFacts
