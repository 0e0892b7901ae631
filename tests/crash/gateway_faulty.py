"""The gateway with one promise broken on purpose: `GATEWAY_FAULT=... python gateway_faulty.py ARGUMENTS`."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from typing import Any

from tailrace.gateway.__main__ import main
from tailrace.gateway.app import Gateway
from tailrace.gateway.bodies import Posted
from tailrace.gateway.dedupe import Repeats


def plant(fault: str) -> None:
    store = Gateway._store
    if fault == "ack before durable":
        late: deque[asyncio.Future[None]] = deque(maxlen=2_000)

        async def hasty(self: Any, *what: Any) -> None:
            async def later() -> None:
                await asyncio.sleep(0.2)
                await store(self, *what)

            late.append(asyncio.ensure_future(later()))

        Gateway._store = hasty  # type: ignore[method-assign]
    elif fault == "dedupe in memory only":
        Repeats._read_back = lambda self, topic, state: []  # type: ignore[assignment, method-assign]
    elif fault == "array as many messages":

        async def piecemeal(self: Any, route: Any, head: Any, headers: Any, shaped: Any) -> None:
            import orjson

            for row in shaped.posted.rows:
                one = shaped._replace(posted=Posted(orjson.dumps(row), [row]))
                await store(self, route, head, headers, one)

        Gateway._store = piecemeal  # type: ignore[method-assign]
    else:
        raise SystemExit(f"no such fault: {fault}")


if __name__ == "__main__":
    plant(os.environ["GATEWAY_FAULT"])
    sys.exit(main())
