"""A run's requests to its host, one open at a time, and what a reader gets through them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from tailrace.node.errors import HostConfusedError, HostRefusedError, LogTrimmedError
from tailrace.tables.messages import Messages

__all__ = ["HostChannel", "HostLink", "HostMessages", "Ticket"]


class HostChannel(Protocol):
    """Frames to and from the host: `protocol.Channel`, or a host in the same process."""

    def send(self, header: Mapping[str, object], payload: bytes = b"") -> None:
        """Hand one frame to the host; raises `EOFError` when it is gone."""
        ...

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next frame from the host; raises `EOFError` when it is gone."""
        ...


class Ticket:
    """A request that was sent; `result` waits for its answer."""

    __slots__ = ("_answer", "_link", "_op")

    def __init__(self, link: HostLink, op: str) -> None:
        self._link, self._op = link, op
        self._answer: tuple[dict[str, Any], bytes] | None = None

    def result(self) -> tuple[dict[str, Any], bytes]:
        """Header and payload of the answer.

        Raises:
            HostRefusedError: rejected; the host says why it cannot answer.
            LogTrimmedError: rejected; it cannot because the log begins later now.
        """
        self._link.settle(self)
        assert self._answer is not None
        header, payload = self._answer
        if "trimmed" in header:
            raise LogTrimmedError(str(header["error"]), header["trimmed"])
        if header.get("error"):
            raise HostRefusedError(self._op, str(header["error"]))
        return header, payload

    def fill(self, answer: tuple[dict[str, Any], bytes]) -> None:
        """The answer is there."""
        self._answer = answer

    @property
    def answered(self) -> bool:
        """Whether the answer is there."""
        return self._answer is not None


class HostLink:
    """Requests and frames of one run; threads of a node may share it."""

    def __init__(self, channel: HostChannel) -> None:
        self._channel = channel
        self._open: Ticket | None = None
        self.gone = False
        """The host is not there any more."""
        self._lock = threading.RLock()

    def tell(self, header: Mapping[str, object], payload: bytes = b"") -> None:
        """Send a frame that is not answered."""
        with self._lock:
            self._send(header, payload)

    def ask(self, header: Mapping[str, object], payload: bytes = b"") -> Ticket:
        """Send a request. If another is open its answer is awaited first."""
        with self._lock:
            self.drain()
            self._send(header, payload)
            self._open = Ticket(self, str(header["op"]))
            return self._open

    def request(self, header: Mapping[str, object], payload: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Send a request and wait for its answer."""
        with self._lock:
            return self.ask(header, payload).result()

    def settle(self, ticket: Ticket) -> None:
        """Wait until `ticket` is answered."""
        with self._lock:
            if not ticket.answered:
                assert ticket is self._open, "one request is open at a time"
                self.drain()

    def drain(self) -> None:
        """Wait for the answer of the open request, if there is one."""
        with self._lock:
            if self._open is None:
                return
            try:
                header, payload = self._channel.receive()
            except EOFError:
                self.gone = True
                raise
            if header.get("op") != "reply":
                raise HostConfusedError(
                    f"expected a reply, got {header.get('op')!r}: host and worker differ in version"
                )
            self._open.fill((header, payload))
            self._open = None

    def _send(self, header: Mapping[str, object], payload: bytes) -> None:
        try:
            self._channel.send(header, payload)
        except EOFError:
            self.gone = True
            raise


_BATCH_RECORDS = 1_000
"""Messages asked for at once: enough to make the round trip cheap, few enough to be in memory twice (the next batch
is asked for ahead)."""


class HostMessages:
    """`MessageSource` of one table: scans through the host, the next batch asked for while this one is used.

    Args:
        streamed: the rows are handed out by a stream of the run.
        wanted: how many messages to ask for, given how many are in hand: none in hand where they are needed now, else
            it is asked for the batch after the one in hand, and may say 0.
    """

    def __init__(
        self,
        link: HostLink,
        table: str,
        *,
        streamed: bool = False,
        wanted: Callable[[int], int] | None = None,
    ) -> None:
        self._link = link
        self._scan: dict[str, object] = {"op": "scan", "table": table}
        if streamed:
            self._scan["stream"] = True
        self._wanted = wanted or (lambda _: _BATCH_RECORDS)

    def scan(self, start: int, stop: int) -> Iterator[Messages]:
        """The messages with `start <= offset < stop`, in batches."""
        ticket: Ticket | None = None
        while start < stop:
            header, payload = (ticket or self._ask(start, stop, self._wanted(0))).result()
            following = header["next"]
            if following <= start:
                raise HostConfusedError(f"a scan of {self._scan['table']} from {start} goes on at {following}")
            ahead = self._wanted(len(header["offsets"])) if following < stop else 0
            ticket = self._ask(following, stop, ahead) if ahead else None
            if header["offsets"]:
                yield Messages(header["offsets"], header["ts_ms"], header["sizes"], payload)
            start = following

    def _ask(self, start: int, stop: int, records_max: int) -> Ticket:
        return self._link.ask({**self._scan, "start": start, "stop": stop, "records_max": records_max})
