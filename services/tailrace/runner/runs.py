"""One run as the host sees it: what it is told, what it may read, and what it wants to commit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import orjson

from tailrace.engine import RunOutcome, StartRun
from tailrace.errors import RejectedError, TailraceError
from tailrace.log import Commit, NewRecord, OffsetGapError, Partition
from tailrace.node.protocol import FRAME_HEAD, Outcome, Progress, RunOrder, encode_frame, progress_from_json
from tailrace.runner.deadletters import InHand
from tailrace.runner.deployment import DeployedNode
from tailrace.runner.given import Given
from tailrace.runner.journal import RunEntry
from tailrace.runner.past import Held, PastGoneError
from tailrace.runner.tails import Pin, Scanned
from tailrace.tables import Answer, Snapshot, VersionView, dead_letters_topic, split_lane, topic_of

__all__ = [
    "RUN_BYTES_MAX",
    "Desk",
    "Link",
    "Piece",
    "ProtocolError",
    "Run",
    "Tail",
    "Tails",
    "TooLargeError",
    "Write",
    "check_sizes",
]

FRAME_BYTES_MAX = 256 << 20
"""Largest frame that a host takes from a worker: more is a broken or a hostile one."""


RUN_BYTES_MAX = 256 << 20
"""Most bytes of messages that a run may have uncommitted: they are in the host's memory. A worker stages what is over
some 16 MB in files, so only a broken one comes near."""


class ProtocolError(Exception):
    """A worker said what no worker says: it is killed."""


@dataclass(frozen=True, slots=True)
class Write:
    """Messages for one topic, in order."""

    topic: str
    records: Sequence[NewRecord]


class TooLargeError(RejectedError):
    """A run wants to commit more than the log or the host can hold; its uncommitted work is dropped."""

    def __init__(self, what: str, size_bytes: int, bytes_max: int) -> None:
        self.what, self.size_bytes, self.bytes_max = what, size_bytes, bytes_max
        super().__init__(
            f"{what} has {size_bytes} bytes, over the limit of {bytes_max}: keep it smaller, or write it to a Table"
        )


def check_sizes(writes: Sequence[Write], progress: Progress, record_bytes_max: int) -> None:
    """Raise `TooLargeError` where the log would refuse a record of this commit: one node's mistake, not the host's."""
    for write in writes:
        for record in write.records:
            if len(record.value or b"") > record_bytes_max:
                raise TooLargeError(f"a message for {write.topic}", len(record.value or b""), record_bytes_max)
    # The State's record holds places and the engine's few hundred bytes as well.
    state_bytes = len(orjson.dumps([progress.state, progress.orders]))
    if state_bytes > record_bytes_max - 65_536:
        raise TooLargeError("the node's State", state_bytes, record_bytes_max - 65_536)


@dataclass(slots=True)
class Piece:
    """What a run has written since its last commit, closed by a checkpoint or its end."""

    progress: Progress
    writes: list[Write]
    part: int


@dataclass(slots=True)
class Run:
    """A run under way, or ended and waiting for its commit."""

    slot: str
    start: StartRun
    order: RunOrder
    started_ms: int
    pins: dict[str, Pin]
    pinned: dict[str, Pin] = field(default_factory=dict)
    """What it reads now: `pins`, and tables that were looked at later or written by a commit of its own."""
    snapshots: dict[str, tuple[Snapshot, ...]] = field(default_factory=dict)
    """Of the versions it reads, as they were known when the table was pinned: they lie before its cut."""
    at: Mapping[str, int] = field(default_factory=dict)
    """Tables that are read as of earlier positions."""
    node: DeployedNode | None = None
    """As it was deployed when the run began: another version may be, before it ends."""
    writes: list[Write] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    part: int = 0
    checkpoint: asyncio.Future[None] | None = None
    streamed: set[str] = field(default_factory=set)
    """Tables that it asked to stream."""
    buffered_bytes: int = 0
    """Of messages that wait for the next commit."""
    outcome: RunOutcome | None = None
    entry: RunEntry | None = None
    """What is told of it once it is committed."""
    in_hand: InHand | None = None
    """The record that its worker had, or was about to get, when it died."""
    given: Given | None = None
    """Dead letters that it gets as the rows of a stream."""
    wrote: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Table -> the range of offsets (half-open) in which what it committed lies."""

    @property
    def number(self) -> int:
        return self.start.run

    def mark_written(self, commit: Commit) -> None:
        """What it had closed is in the log, with this commit."""
        for topic in {write.topic for piece in self.pieces for write in piece.writes}:
            start, stop = commit.written[Partition(*split_lane(topic))]
            self.wrote[topic] = (self.wrote.get(topic, (start, stop))[0], stop)

    def close_piece(self, progress: Progress) -> None:
        """What was written so far belongs to this progress."""
        if self.given is not None:
            progress, deleted = self.given.settle(progress)
            if deleted:
                self.writes.append(Write(dead_letters_topic(topic_of(self.given.table)), deleted))
        self.pieces.append(Piece(progress, self.writes, self.part))
        self.writes, self.buffered_bytes = [], 0
        self.part += 1


class Tail(Protocol):
    """The newest part of one table; `TableTail` says what is promised."""

    async def advance(self, *, until: int | None = None, settled: bool = False) -> bool: ...

    async def start(self) -> int: ...

    async def pin(self) -> Pin: ...

    async def views(self, cut: int) -> list[VersionView]: ...

    async def scan(self, start: int, stop: int, records_max: int) -> Scanned: ...


class Tails(Protocol):
    """The host's table tails, and what lies before them."""

    def __getitem__(self, topic: str) -> Tail: ...

    def snapshots(self, topic: str, view: VersionView | None) -> tuple[Snapshot, ...]:
        """The newest snapshots of a version, by position."""
        ...

    async def pin_at(self, topic: str, cut: int) -> Pin:
        """A table as of an earlier position."""
        ...

    async def held(
        self, topic: str, view: VersionView | None, cut: int, known: Sequence[Snapshot] | None = None
    ) -> Held:
        """Where a version's rows before `cut` are, by the snapshots `known` (None: of now)."""
        ...

    async def folder(self, snapshot: Snapshot) -> Path:
        """The local folder of a snapshot's files."""
        ...

    async def staged(self, path: str) -> bool:
        """Have a staged file in the staging folder; False where there is none."""
        ...


class Desk:
    """Answers what the worker of one run asks for.

    Args:
        settle: waits until the commits of the slot's earlier runs are done.
        checkpoint: commits what the run has closed so far, and waits for it.
        respond: passes a node's answer to a webhook's request on.
        result: takes a piece of the answer of a `query` or `read` order.
        look_back: a table as it was at a moment (milliseconds), but no later than a position.
    """

    def __init__(
        self,
        run: Run,
        tails: Tails,
        settle: Callable[[], Awaitable[Any]],
        checkpoint: Callable[[], Awaitable[None]],
        respond: Callable[[Answer], None],
        result: Callable[[bytes], Awaitable[None]] | None = None,
        say: Callable[[str, str], None] = lambda level, text: None,
        record_bytes_max: int = 8 << 20,
        look_back: Callable[[str, int, int], Awaitable[Pin]] | None = None,
    ) -> None:
        self._run = run
        self._tails = tails
        self._settle = settle
        self._checkpoint = checkpoint
        self._respond = respond
        self._result = result
        self._say = say
        self._record_bytes_max = record_bytes_max
        self._look_back = look_back
        self._allowed = frozenset(store.key for store in run.order.stores)

    async def answer(self, header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes] | None:
        """Carry out one frame; the reply's header and payload where the frame asks for one."""
        try:
            return await self._answer(header, payload)
        except PastGoneError as error:
            return {"op": "reply", "error": str(error)}, b""

    async def _answer(self, header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes] | None:
        match header["op"]:
            case "scan":
                return await self._scan(header)
            case "write":
                self._write(header, payload)
            case "view":
                pin = await self._pin(header["table"])
                view = await self._view(header, pin)
                start = await self._tail(header["table"]).start()
                if self._gives(header["table"]):
                    start = 0  # its stream gets what it is given, wherever that had been
                json = view.to_json() if view else None
                return {"op": "reply", "view": json, "cut": pin.cut, "log_start": start, "begun_ms": pin.begun_ms}, b""
            case "snapshot":
                return await self._snapshot(header), b""
            case "past" if self._look_back is not None:
                return await self._past(header, self._look_back), b""
            case "staged":
                return await self._staged(header), b""
            case "versions":
                pin = await self._pin(header["table"])
                views = await self._tail(header["table"]).views(pin.cut)
                active = pin.view.name if pin.view else None
                return {"op": "reply", "versions": [view.to_json() for view in views], "active": active}, b""
            case "commit":
                return await self._commit(header)
            case "respond":
                self._respond(Answer.of(header))
            case "log":
                self._say(str(header["level"]), str(header["text"]))
            case "result" if self._result is not None:
                await self._result(payload)
            case op:
                raise ProtocolError(f"unknown op {op!r}")
        return None

    def _gives(self, table: str) -> bool:
        return self._run.given is not None and self._run.given.table == table

    def _tail(self, table: str) -> Tail:
        self._ensure_reachable(table)
        return self._tails[table]

    def _ensure_reachable(self, table: str) -> None:
        if table not in self._allowed and topic_of(table) not in self._allowed:
            raise ProtocolError(f"table {table!r} is not one of this node's")

    async def _pin(self, table: str) -> Pin:
        pin = self._run.pinned.get(table)
        if pin is None and table in self._run.at:
            self._ensure_reachable(table)
            pin = self._run.pinned[table] = await self._tails.pin_at(table, self._run.at[table])
        if pin is None:
            tail = self._tail(table)
            await self._settle()  # a table that the node wrote moments ago shows what it wrote
            await tail.advance(settled=True)
            pin = self._run.pinned[table] = await tail.pin()
            self._run.snapshots[table] = self._tails.snapshots(table, pin.view)
        return pin

    async def _view(self, header: dict[str, Any], pin: Pin) -> VersionView | None:
        """The version that is named, else the active one."""
        if "version" not in header or (pin.view is not None and pin.view.name == header["version"]):
            return pin.view
        views = await self._tail(header["table"]).views(pin.cut)
        return next((one for one in views if one.name == header["version"]), None)

    async def _snapshot(self, header: dict[str, Any]) -> dict[str, Any]:
        table = header["table"]
        pin = await self._pin(table)
        if header.get("stream"):
            self._run.streamed.add(table)
        try:
            view = await self._view(header, pin)
            known = self._run.snapshots.get(table) if view is pin.view else None
            return {"op": "reply", **await self._held(table, view, pin.cut, known)}
        except TailraceError as error:
            return {"op": "reply", "error": str(error)}

    async def _past(
        self, header: dict[str, Any], look_back: Callable[[str, int, int], Awaitable[Pin]]
    ) -> dict[str, Any]:
        table = header["table"]
        pin = await self._pin(table)
        try:
            then = await look_back(table, int(header["at_ms"]), min(pin.cut, int(header.get("cut", pin.cut))))
            view = await self._view(header, then)
            json = view.to_json() if view is not None else None
            held = await self._held(table, view, then.cut, None)
            return {"op": "reply", "view": json, "cut": then.cut, "begun_ms": then.begun_ms, **held}
        except TailraceError as error:
            return {"op": "reply", "error": str(error)}

    async def _held(
        self, table: str, view: VersionView | None, cut: int, known: Sequence[Snapshot] | None
    ) -> dict[str, Any]:
        held = await self._tails.held(table, view, cut, known)
        snapshot = held.snapshot
        folder = str(await self._tails.folder(snapshot)) if snapshot is not None else ""
        json = snapshot.to_json() if snapshot is not None else None
        return {"snapshot": json, "folder": folder, "before": held.before, "log_start": held.log_start}

    async def _staged(self, header: dict[str, Any]) -> dict[str, Any]:
        try:
            return {"op": "reply", "there": await self._tails.staged(str(header["path"]))}
        except TailraceError as error:
            return {"op": "reply", "error": str(error)}

    async def _scan(self, header: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        table = header["table"]
        pin = await self._pin(table)
        if header.get("stream"):
            self._run.streamed.add(table)
        stop = min(int(header["stop"]), pin.cut)
        if self._run.given is not None and header.get("stream") and self._gives(table):
            reply, data = self._run.given.messages(int(header["start"]), stop)
            return {"op": "reply", **reply, "next": stop}, data
        try:
            scanned = await self._tail(table).scan(int(header["start"]), stop, int(header.get("records_max", 5_000)))
        except OffsetGapError as error:
            return {"op": "reply", "error": str(error), "trimmed": int(error.start)}, b""
        offsets, ts_ms, sizes, joined = scanned.messages
        answer = {"op": "reply", "offsets": offsets, "ts_ms": ts_ms, "sizes": sizes, "next": scanned.next}
        return answer, joined

    def _write(self, header: dict[str, Any], payload: bytes) -> None:
        table = header["table"]
        self._ensure_reachable(table)
        records = []
        start = 0
        for size in header["sizes"]:
            records.append(NewRecord(payload[start : start + size]))
            start += size + 1
        self._run.writes.append(Write(table, records))
        self._run.buffered_bytes += len(payload)
        if self._run.buffered_bytes > RUN_BYTES_MAX:
            raise TooLargeError("what this run wrote since its last commit", self._run.buffered_bytes, RUN_BYTES_MAX)

    async def _commit(self, header: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        run = self._run
        wrote = {write.topic for write in run.writes}
        progress = progress_from_json(header["progress"])
        try:
            check_sizes(run.writes, progress, self._record_bytes_max)
        except TooLargeError as error:
            return {"op": "reply", "error": str(error)}, b""
        run.close_piece(progress)
        await self._checkpoint()
        for table in wrote:
            if table in run.pinned:
                await self._tails[table].advance(settled=True)
                pin = run.pinned[table] = await self._tails[table].pin()
                run.snapshots[table] = self._tails.snapshots(table, pin.view)
        cuts = {table: run.pinned[table].cut for table in wrote if table in run.pinned}
        return {"op": "reply", "cuts": cuts, "part": run.part}, b""


class Link:
    """The host's end of one worker's socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def converse(self, desk: Desk, order: RunOrder) -> Outcome:
        """Send the order, answer what the worker asks, and return how it says the run ended.

        Raises `EOFError` (asyncio.IncompleteReadError is one) or `OSError` when the worker is gone.
        """
        self._writer.write(encode_frame(order.to_json()))
        await self._writer.drain()
        while True:
            header, payload = await self._frame()
            if header["op"] == "end":
                return Outcome.from_json(header["outcome"])
            try:
                reply = await desk.answer(header, payload)
            except (KeyError, TypeError, ValueError) as error:
                raise ProtocolError(f"bad {header.get('op')!r} frame: {error!r}") from error
            if reply is not None:
                self._writer.write(encode_frame(*reply))
                await self._writer.drain()

    async def _frame(self) -> tuple[dict[str, Any], bytes]:
        head_bytes, payload_bytes = FRAME_HEAD.unpack(await self._reader.readexactly(FRAME_HEAD.size))
        if head_bytes + payload_bytes > FRAME_BYTES_MAX:
            raise ProtocolError(f"frame of {head_bytes + payload_bytes} bytes")
        try:
            header = orjson.loads(await self._reader.readexactly(head_bytes))
        except orjson.JSONDecodeError as error:
            raise ProtocolError("frame header is no JSON") from error
        if not isinstance(header, dict) or "op" not in header:
            raise ProtocolError("frame header has no op")
        payload = await self._reader.readexactly(payload_bytes) if payload_bytes else b""
        return header, payload

    def close(self) -> None:
        """Let go of the socket; the worker sees its end."""
        self._writer.close()
