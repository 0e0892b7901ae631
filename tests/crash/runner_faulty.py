"""The runner with one promise broken on purpose: `python runner_faulty.py FAULT ARGUMENTS`."""

from __future__ import annotations

import sys
from typing import Any

from kill_house import FaultyLog

from tailrace.log import open_log
from tailrace.runner.__main__ import main
from tailrace.runner.spread import Claims, service


def plant(fault: str) -> None:
    if fault in ("no fencing", "place outside the transaction"):
        service.open_log = lambda *args, **kwargs: FaultyLog(open_log(*args, **kwargs), fault)  # type: ignore[assignment]
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
    plant(sys.argv.pop(1))
    sys.exit(main())
