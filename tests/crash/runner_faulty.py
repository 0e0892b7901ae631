"""The runner with one promise broken on purpose: `python runner_faulty.py FAULT MOMENT ARGUMENTS`.

Where a fault does harm at certain moments only, the runner waits for the file MOMENT: it names a topic, and the first
commit with rows for that is the moment.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kill_house import FaultyLog, FaultyWriter

from tailrace.log import Append, open_log
from tailrace.runner.__main__ import main
from tailrace.runner.spread import Claims, service

NONE = "none"
"""No fault: what is done to the others at their moments does no harm to this one."""


def is_the_moment(moment: Path, appends: Sequence[Append]) -> bool:
    """Whether it is now; for one of all runners, once."""
    try:
        topic = moment.read_text()
        if topic and any(append.partition.topic == topic for append in appends):
            moment.unlink()
            return True
    except FileNotFoundError:
        pass
    return False


def plant(fault: str, moment: Path) -> None:
    if fault in (NONE, "no fencing", "place outside the transaction"):
        service.open_log = lambda *args, **kwargs: FaultyLog(open_log(*args, **kwargs), fault)  # type: ignore[assignment]

        def befalls(number: int) -> Any:
            def act(self: FaultyWriter, appends: Sequence[Append]) -> None:
                if is_the_moment(moment, appends):
                    os.kill(os.getpid(), number)

            return act

        if fault == "place outside the transaction":
            FaultyWriter.between = befalls(signal.SIGKILL)  # type: ignore[method-assign]
        else:
            FaultyWriter.before = befalls(signal.SIGSTOP)  # type: ignore[method-assign]
    elif fault == "on after its shards were revoked":
        given: set[int] = set()

        def assigned(self: Claims, shards: frozenset[int], now_s: float) -> None:
            given.update(shards)
            original(self, frozenset(given), now_s)

        def taken(self: Claims, shard: int, now_s: float) -> None:
            pass

        def may_open(self: Any, now_s: float) -> bool:
            return True

        original = Claims.assigned
        Claims.assigned, Claims.taken, Claims.may_open = assigned, taken, may_open  # type: ignore[method-assign]
    else:
        raise SystemExit(f"no such fault: {fault}")


if __name__ == "__main__":
    plant(sys.argv.pop(1), Path(sys.argv.pop(1)))
    sys.exit(main())
