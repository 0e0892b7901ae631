"""Whether a lake can do what snapshots rest on: tried with one small object, for `tailrace doctor`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from tailrace.errors import TailraceError
from tailrace.lake.errors import lake_errors
from tailrace.lake.location import LakeLocation
from tailrace.runtime import SYSTEM, Clock

__all__ = ["LakeFacts", "examine_lake"]

_OBJECT = "_tailrace_doctor"


@dataclass(frozen=True, slots=True, kw_only=True)
class LakeFacts:
    """A lake as it is found."""

    url: str
    unusable: str = ""
    """Why it could not be written to, read, or cleaned; empty: it could."""
    refuses_second_put: bool = True
    """Whether of two who make the same object one is refused: a Delta commit is that."""
    clock_ahead_ms: int | None = None
    """How far its clock is ahead of ours, at least. None: unknown."""
    disk_free_bytes: int | None = None
    """Of a folder."""


def examine_lake(location: LakeLocation, clock: Clock = SYSTEM.clock) -> LakeFacts:
    """What is found. Makes an object `_tailrace_doctor` at the root, and deletes it."""
    from obstore.exceptions import AlreadyExistsError

    refuses, ahead_ms, free = True, None, None
    try:
        with lake_errors(location.url, _OBJECT):
            store = location.store()
            store.put(_OBJECT, b"doctor")
            before_ms = clock.now_ms()
            store.put(_OBJECT, b"doctor")
            written_ms = int(store.head(_OBJECT)["last_modified"].timestamp() * 1000)
            # Some stores keep whole seconds.
            ahead_ms = min(written_ms + 1000 - before_ms, 0) + max(written_ms - clock.now_ms(), 0)
            bytes(store.get(_OBJECT).bytes())
            try:
                store.put(_OBJECT, b"again", mode="create")
                refuses = False
            except AlreadyExistsError:
                pass
            store.delete(_OBJECT)
            if location.is_local:
                free = shutil.disk_usage(location.local_path()).free
    except TailraceError as error:
        return LakeFacts(url=location.url, unusable=str(error))
    return LakeFacts(url=location.url, refuses_second_put=refuses, clock_ahead_ms=ahead_ms, disk_free_bytes=free)
