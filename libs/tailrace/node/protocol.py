"""What a host and its worker say to each other over their socket pair.

A frame is a header (a JSON object with `op`) and a payload (bytes, often empty). The worker holds no log handle and no
credentials: all that it reads and writes goes through these frames, and staged files through two folders.

Host to worker:

    run      begin a run: the header is a `RunOrder`
    reply    the answer to the one request that is open: see below; `error` in it is a message to raise

Worker to host. Requests are answered by one `reply`, in order; the others are not answered:

    view     {table}: request -> {view: VersionView.to_json() | null, cut, log_start, begun_ms}: the active version as of
             the run's cut; what lies before `log_start` is not in the log any more; `begun_ms` as `TableFold` says it
    view     {table, version}: the same for a version by name
    versions {table}: request -> {versions: [VersionView.to_json()...], active: name | null}
    snapshot {table, version}: request -> {snapshot: Snapshot.to_json() | null, folder, before, log_start}: where the
             version's rows before the cut begin: in the files of a snapshot, below `folder` on this machine (`before`: only
             rows with a lesser id, null: all), or where it is null, all in the log. Asked when rows are really read;
             `stream: true` as in `scan`
    past     {table, at_ms}: request -> {view, cut, log_start, snapshot, folder, before}: the table as it was at a moment, but
             not after the run's cut: what `view` and `snapshot` say, together
    staged   {path}: request -> {there}: a staged file that is not in the staging folder is brought there from the lake, if
             it can be had
    scan     {table, start, stop, records_max}: request -> {offsets, ts_ms, sizes, next} + payload: `Messages`, and where
             the next scan goes on (`next == stop`: that was all). A worker may have asked for the next batch before it
             uses the last one. `stream: true` says that a stream hands the rows out. An error with `trimmed` says where
             the log begins now: what lies before is in a snapshot
    write    {table, sizes} + payload: messages for a table's topic, joined by commas as in `Messages`. Settled rows
             only: what a rollback could still take back stays in the worker
    commit   {progress}: request -> {cuts: {table: offset}, part}: commits what was written so far with this progress
             (`Progress`). Then tables that this run wrote are read as of the new cut, and `part` counts up
    respond  {key, payload, status?, headers?}: the answer to a webhook request that waits
    log      {level, text}: a line for the run's log, from us rather than from the node's own output
    result   {} + payload: a piece of the answer of a `query`, `read` or `compare` order
    end      {outcome}: the run is over: `Outcome`. What was written since the last commit belongs to it

Staged files: a worker writes Parquet files to `<staging>/<stage>.<part>/<n>.parquet` and names them in messages as
`<stage>.<part>/<n>.parquet` (`stage` comes with the order, parts count from 0).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import orjson

__all__ = [
    "FRAME_HEAD",
    "Channel",
    "DeadLetter",
    "Outcome",
    "Progress",
    "RunOrder",
    "StoreRef",
    "encode_frame",
    "progress_from_json",
    "progress_to_json",
]

FRAME_HEAD = struct.Struct("<II")
"""Bytes of the header, bytes of the payload."""


def encode_frame(header: Mapping[str, object], payload: bytes = b"") -> bytes:
    """One frame, ready to be sent."""
    head = orjson.dumps(header, option=orjson.OPT_NON_STR_KEYS)
    return FRAME_HEAD.pack(len(head), len(payload)) + head + payload


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRef:
    """A store of the app as a worker needs to know it."""

    key: str
    """The table's key in the graph: what `table` in frames means. A table with several partitions has several such keys,
    one for each (`tailrace.tables.lane_of`), and so several views, cuts and places; this is the one of partition 0."""
    name: str
    """The store's name in graph.yml."""
    store_id: str
    """The store's node id, part of `latest_streamed_<store id>_<field>`."""
    topic: str
    born_ms: int
    schema: Mapping[str, Any] | None = None
    """The store's declared Common Model schema, as `Schema.to_json()`."""
    partitions: int = 1
    partition_key: str | None = None
    """Column or JSON pointer that says which partition a row goes to; None: they take turns."""
    streams: Sequence[int] = (0,)
    """The partitions whose rows this slot's streams hand out."""

    @property
    def is_plain(self) -> bool:
        """Whether the table's only partition is this slot's."""
        return self.partitions == 1 and len(self.streams) == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """Everything a worker needs to begin a run."""

    run: str
    """Unique; also the idempotency key for calls to the outside (environment TAILRACE_RUN_ID)."""
    node: str
    """Key of the node's slot; it stands in every message that the run writes."""
    graph: str
    kind: str
    """`python` or `sql`: run `file`. `query`: {sql}. `read`: {table, version, limit, format}. `compare`: {tables, ignore,
    rows_max}, see `replayed` (all in `arguments`)."""
    app_dir: str = ""
    file: str = ""
    """Path relative to `app_dir`."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Port -> store key, for the ports that the graph maps or that are resolved statically."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    stores: Sequence[StoreRef] = ()
    """Stores that the node can reach: a port's name without an entry in `inputs` / `outputs` is looked up here by name."""
    schemas: Mapping[str, Any] = field(default_factory=dict)
    """The graph's Common Model schemas by name, as `Schema.to_json()`."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Resolved values by name; a connection's value is an object."""
    unset: Mapping[str, str] = field(default_factory=dict)
    """Parameters whose secret or connection is set nowhere: name -> the environment variable that would set it."""
    state: Mapping[str, Any] = field(default_factory=dict)
    """The node's State as the last commit left it, in the worker's own typed JSON."""
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Table key -> (offset, row) where its stream in log order goes on; missing: at the beginning."""
    orders: Mapping[str, Any] = field(default_factory=dict)
    """Positions of streams by a field, in the worker's own form."""
    cuts: Mapping[str, int] = field(default_factory=dict)
    """Table key -> next offset: this run reads what lies before. Tables that are missing are read as of their view."""
    reason: str = ""
    try_number: int = 1
    dead_letter: bool = False
    """The last try of a body that keeps failing: let it go to the dead letters, and go on after it."""
    again: bool = False
    """Plain code, too, is handed again what it failed at: the graph grants tries, or says that what fails is kept."""
    rows_max: int = 100
    """Most rows that this run's streams hand out together; then they end, and the outcome says `more`."""
    share_s: float = 0.1
    """Seconds of work after which streams end at the next row boundary (`more`)."""
    time_limit_s: float = 600.0
    """Hard limit of the run; raised into the script when it is over."""
    memory_bytes_max: int = 2 << 30
    cpu_s_max: float = 0
    """CPU time of this run; 0: what the worker began with counts on."""
    staging: str = ""
    """Folder of staged files: read anywhere below it, write only to `<stage>.<part>/`."""
    stage: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The header of a `run` frame."""
        return {"op": "run", **asdict(self)}

    @classmethod
    def from_json(cls, header: Mapping[str, Any]) -> RunOrder:
        """The inverse of `to_json`."""
        values = {name: value for name, value in header.items() if name in cls.__slots__}
        values["stores"] = [StoreRef(**store) for store in values.get("stores", ())]
        values["places"] = {table: (offset, row) for table, (offset, row) in values.get("places", {}).items()}
        return cls(**values)


class DeadLetter(NamedTuple):
    """A record that a node could not handle. `row` is JSON-able, as a `rows` message would hold it."""

    table: str
    offset: int
    row: int
    record: Any
    error: str
    traceback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run has come: committed in one transaction with what it wrote."""

    state: Mapping[str, Any]
    places: Mapping[str, tuple[int, int]]
    orders: Mapping[str, Any]
    streamed: Sequence[str] = ()
    """Keys of the tables that this run has streamed so far."""
    dead_letters: Sequence[DeadLetter] = ()
    """Since the last commit."""
    quiet: bool = False
    """What it wrote fires nobody (`request_new_run(trigger_downstream=False)`)."""
    rows_in: int = 0
    rows_out: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended."""

    kind: str
    """`ok`, `failed`, `timed_out`."""
    progress: Progress
    more: Sequence[str] = ()
    """Tables whose stream was ended by `rows_max` or the share: rows are left before the cut."""
    retry: bool = False
    """The body in hand was dropped and is to be handed out again after a pause."""
    requested: tuple[int, bool] | None = None
    """`request_new_run`: (milliseconds to wait, trigger_downstream)."""
    error: str | None = None
    """One line, with the place in the user's code."""
    traceback: str | None = None
    loop_ms: float = 0.0
    """Time spent inside stream loops; the rest of the duration is the run's fixed cost."""
    duration_ms: float = 0.0
    leftovers: str | None = None
    """What the script left behind (threads, children...): the worker is to be thrown away."""

    def to_json(self) -> dict[str, Any]:
        """The header of an `end` frame."""
        return {"op": "end", "outcome": {**asdict(self), "progress": progress_to_json(self.progress)}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """From the `outcome` of an `end` frame."""
        progress = progress_from_json(data["progress"])
        requested = data.get("requested")
        return cls(**{**data, "progress": progress, "requested": tuple(requested) if requested else None})


def progress_to_json(progress: Progress) -> dict[str, Any]:
    """The `progress` of a `commit` frame."""
    return {**asdict(progress), "dead_letters": [list(letter) for letter in progress.dead_letters]}


def progress_from_json(data: Mapping[str, Any]) -> Progress:
    """From the `progress` of a `commit` frame."""
    places = {table: (offset, row) for table, (offset, row) in data["places"].items()}
    letters = [DeadLetter(*letter) for letter in data.get("dead_letters", ())]
    return Progress(**{**data, "places": places, "dead_letters": letters})


class Channel:
    """The worker's end: blocking, for the one thread that runs the script (and whatever threads it locks together)."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.setblocking(True)

    def send(self, header: Mapping[str, object], payload: bytes = b"") -> None:
        """Send one frame; raises `EOFError` when the host is gone."""
        try:
            self._sock.sendall(encode_frame(header, payload))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise EOFError("the host is gone") from error

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The next frame; raises `EOFError` when the host is gone."""
        head_bytes, payload_bytes = FRAME_HEAD.unpack(self._exactly(FRAME_HEAD.size))
        header = orjson.loads(self._exactly(head_bytes))
        return header, bytes(self._exactly(payload_bytes)) if payload_bytes else b""

    def _exactly(self, count: int) -> bytearray:
        data = bytearray(count)
        view = memoryview(data)
        while view:
            got = self._sock.recv_into(view)
            if not got:
                raise EOFError("the host is gone")
            view = view[got:]
        return data
