"""A worker's life: it takes one order after the other from its host and does each in a session of its own."""

from __future__ import annotations

import gc
import os
import select
import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tailrace.node._process import renew_cpu_limit
from tailrace.node.cursors import Rest
from tailrace.node.failures import finish_failed
from tailrace.node.legacy import call_legacy_nodes
from tailrace.node.link import HostChannel
from tailrace.node.protocol import Channel, Outcome, RunOrder
from tailrace.node.script import collect_garbage, run_script, time_limit
from tailrace.node.session import Session, activate, deactivate
from tailrace.runtime import Clock

__all__ = ["run_order", "serve"]

RUN_ID_VARIABLE = "TAILRACE_RUN_ID"

COLLECT_PAUSE_S = 0.02
"""How long nothing must come from the host until garbage is collected: by then nobody waits for this worker."""

GARBAGE_OBJECTS = 10_000
"""New containers after which Python looks for garbage. With its own 700 it looks at each batch of a stream some ten
times, which is a tenth of all work; with many more, what a script leaves in cycles would be in memory for long."""


def serve(sock: socket.socket, spec: Mapping[str, Any] | None = None) -> None:
    """Carry out orders until the host closes the socket, which is the normal end.

    Args:
        spec: what the host told at the start; nothing in it is needed yet.
    """
    channel = Channel(sock)
    rests: dict[str, Rest] = {}
    gc.set_threshold(GARBAGE_OBJECTS)
    while True:
        try:
            if not _comes_within(sock, COLLECT_PAUSE_S):
                collect_garbage()
            header, _ = channel.receive()
            if header.get("op") != "run":
                continue  # the answer to a request of a run that has ended meanwhile
            outcome = run_order(RunOrder.from_json(header), channel, rests=rests)
            channel.send(outcome.to_json())
            collect_garbage(if_grown=True)
        except EOFError:
            return


def _comes_within(sock: socket.socket, wait_s: float) -> bool:
    """Whether something comes from the host, its end included."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(wait_s * 1000))


def run_order(
    order: RunOrder,
    channel: HostChannel,
    *,
    clock: Clock | None = None,
    rests: dict[str, Rest] | None = None,
) -> Outcome:
    """Carry out one order; all that it wrote has been sent when this returns, and the outcome is to be sent next.

    Args:
        rests: what is kept of streams from one run to the next.
    """
    session = Session(order, channel, clock=clock, rests=rests)
    activate(session)
    before = os.environ.get(RUN_ID_VARIABLE)
    os.environ[RUN_ID_VARIABLE] = order.run
    try:
        if order.kind == "python":
            return _run_python(session)
        return _run_query(session)
    finally:
        deactivate()
        session.close()
        if before is None:
            os.environ.pop(RUN_ID_VARIABLE, None)
        else:
            os.environ[RUN_ID_VARIABLE] = before


def _run_python(session: Session) -> Outcome:
    order = session.order
    if order.cpu_s_max:
        renew_cpu_limit(order.cpu_s_max)
    outcomes: list[Outcome] = []

    def on_exit(error: BaseException | None) -> None:
        if error is None:
            try:
                if session.legacy_nodes:
                    with time_limit(max(0.001, order.time_limit_s - session.elapsed_s)):
                        call_legacy_nodes(session.legacy_nodes)
            except SystemExit:
                pass
            except BaseException as raised:
                if isinstance(raised, EOFError) and session.link.gone:
                    raise
                error = raised
        outcomes.append(_finish(session, error))

    try:
        end = run_script(
            os.path.join(order.app_dir, order.file),  # noqa: PTH118 - run_script resolves it
            order.app_dir,
            limit_s=order.time_limit_s,
            on_exit=on_exit,
        )
    except BaseException as error:
        if session.link.gone:
            raise EOFError("the host is gone") from error
        if not outcomes:  # before the script began: an import of the app's package failed, the file is not there
            outcomes.append(finish_failed(session, error))
        return replace(outcomes[0], leftovers="the run failed")
    return outcomes[0] if end.leftovers.clean else replace(outcomes[0], leftovers=str(end.leftovers))


def _finish(session: Session, error: BaseException | None) -> Outcome:
    if error is None:
        try:
            return session.finish("ok")
        except Exception as raised:  # rows that cannot be written are found out here at the latest
            if session.link.gone:
                raise
            error = raised
    return finish_failed(session, error)


def _run_query(session: Session) -> Outcome:
    from tailrace.node.sqlnode import run_query, run_read, run_sql_node

    if session.order.kind == "compare":
        from tailrace.node.replayed import run_compare as work
    else:
        work = {"sql": run_sql_node, "query": run_query, "read": run_read}[session.order.kind]
    try:
        with time_limit(session.order.time_limit_s):
            work(session)
    except BaseException as error:
        if session.link.gone:
            raise EOFError("the host is gone") from error
        return finish_failed(session, error)
    return _finish(session, None)
