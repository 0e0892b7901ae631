"""A trigger and the run that it leads to."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tailrace.cli.errors import BrokenOffError
from tailrace.errors import TailraceError

if TYPE_CHECKING:
    from tailrace.cli.client import Client

__all__ = ["triggered_run"]


def triggered_run(client: Client, node: str, app: str | None) -> Mapping[str, Any]:
    """Trigger `node`, given by id, title or file, and return its run that answers the trigger, once it has ended."""
    found = client.get("node", name=node, app=app)
    wanted = (found["app"], found["node"])
    entries: queue.Queue[Mapping[str, Any] | TailraceError] = queue.Queue()
    # Follow first, ask then: the run may end before an answer could be sent.
    follow = client.lines("logs", node=wanted[1], last=0, follow="1")
    threading.Thread(target=_read, args=(follow, entries, client.contact.url), daemon=True).start()
    client.post("trigger", {"node": wanted[1], "app": wanted[0]})
    while True:
        entry = entries.get()
        if isinstance(entry, TailraceError):
            raise entry
        if entry["type"] == "run" and (entry["graph"], entry["node"]) == wanted and "trigger" in entry["reasons"]:
            return entry


def _read(follow: Iterator[Any], entries: queue.Queue[Mapping[str, Any] | TailraceError], url: str) -> None:
    try:
        for entry in follow:
            entries.put(entry)
    except TailraceError as error:
        entries.put(error)
    else:
        entries.put(BrokenOffError(url, "`up` stopped"))
