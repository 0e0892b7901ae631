"""Questions from people: a query, or a table's rows. A worker of its own answers, under the same limits as a node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from tailrace.engine import StartRun
from tailrace.errors import RejectedError
from tailrace.node.protocol import RunOrder, StoreRef
from tailrace.runner.runs import Desk, ProtocolError, Run, Tails
from tailrace.runner.slot import Hire, Warm

__all__ = ["AskError", "ask"]

PIECES_MAX = 16
"""Pieces of an answer that wait for whoever asked; past it the worker waits."""

TIME_LIMIT_S = 60.0
"""Longest that a query may take."""


class AskError(RejectedError):
    """A query or a read could not be answered; the text says why."""


def question(graph: str, kind: str, stores: list[StoreRef], staging: str, arguments: Mapping[str, Any]) -> RunOrder:
    """The order that a worker gets for a `query` or a `read`."""
    name = f"{graph}/{kind}"
    return RunOrder(
        run=name,
        node=name,
        graph=graph,
        kind=kind,
        stores=stores,
        staging=staging,
        time_limit_s=TIME_LIMIT_S,
        arguments=arguments,
    )


async def ask(
    order: RunOrder,
    tails: Tails,
    hire: Hire,
    now_ms: int,
    at: Mapping[str, int],
) -> AsyncIterator[bytes]:
    """Have a worker answer; yields the pieces of the answer. Raises `AskError` with what the worker says went wrong.

    Args:
        at: tables that are read as of these positions; all others as they are when they are asked for.
    """
    start = StartRun(slot=order.node, run=0, reasons=(), rows_max=0, share_ms=0)
    run = Run(order.node, start, order, now_ms, {}, at=at)
    pieces: asyncio.Queue[bytes] = asyncio.Queue(maxsize=PIECES_MAX)
    desk = Desk(run, tails, _nothing, _nothing, lambda answer: None, pieces.put)
    warm = await hire(order)
    talk = asyncio.ensure_future(_talk(warm, desk, order))
    try:
        while not (talk.done() and pieces.empty()):
            getter = asyncio.ensure_future(pieces.get())
            done, _ = await asyncio.wait({getter, talk}, return_when=asyncio.FIRST_COMPLETED)
            if getter in done:
                yield getter.result()
            else:
                getter.cancel()
        error = talk.result()
        if error is not None:
            raise AskError(error)
    finally:
        talk.cancel()
        warm.link.close()
        await warm.worker.kill()


async def _talk(warm: Warm, desk: Desk, order: RunOrder) -> str | None:
    """What went wrong, or None."""
    try:
        async with asyncio.timeout(order.time_limit_s + 5):
            ended = await warm.link.converse(desk, order)
    except (EOFError, OSError):
        return str((await warm.worker.wait()).reason)
    except (TimeoutError, ProtocolError) as error:
        return str(error) or f"no answer within {order.time_limit_s:g} s"
    return None if ended.kind == "ok" else (ended.error or "it failed")


async def _nothing() -> None:
    return None
