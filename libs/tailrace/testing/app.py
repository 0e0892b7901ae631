"""Node files run in tests, in this process and without services: against Tables that live in memory.

    app = TestApp(tmp_path)
    app.append("orders", [{"id": 1, "amount": 250.0}])
    run = app.run("nodes/big_orders.py", parameters={"limit": 100})
    assert run.ok
    assert app.read("big_orders") == [...]

The host side is real in what it promises: one run is one transaction, runs read a cut, State and streams' positions
are kept from run to run of the same file, a failing run does what it does in production.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tailrace.node.protocol import DeadLetter, Outcome, Progress, RunOrder, StoreRef, progress_from_json
from tailrace.node.session import Session, activate, deactivate, suspend
from tailrace.node.table import Table
from tailrace.node.worker import run_order
from tailrace.node.writing import forget_known_fields
from tailrace.runtime import Clock, SystemClock
from tailrace.tables import (
    PATTERNS_ID,
    IdMaker,
    Messages,
    Snapshot,
    SnapshotReader,
    StagedFiles,
    TableFold,
    VersionReader,
    VersionView,
    lane_of,
    webhook_message,
)
from tailrace.tables.schema import Schema, arrow_to_records, schema_from_mapping

__all__ = ["MemoryHost", "MemoryTable", "TestApp", "TestRun", "run_node"]

_SCAN_RECORDS_MAX = 500


class MemoryTable:
    """A table's topic as a list of messages. Offsets have a gap after each transaction, as on Kafka."""

    def __init__(self, ref: StoreRef, staging: Path, number: int = 0) -> None:
        """`number`: the partition of the table that this is."""
        self.ref = ref
        self.key = lane_of(ref.key, number)
        self.records: list[tuple[int, int, bytes]] = []
        self.end = 0
        self.fold = self.new_fold()
        self.log_start = 0
        """What lies before it was trimmed."""
        self.snapshots: dict[str, tuple[Snapshot, Path]] = {}
        """By version: what a reader finds in the lake, and in which folder."""
        self.ids = IdMaker(ref.topic, ref.born_ms, number)
        self._staging = staging

    def new_fold(self) -> TableFold:
        """A fold of the partition from its start."""
        return TableFold(self.ref.name, self.ref.born_ms if self.ref.partitions > 1 else None)

    def commit(self, values: Sequence[bytes], ts_ms: int) -> None:
        """Append messages in one transaction."""
        if not values:
            return
        added = [(self.end + at, ts_ms, value) for at, value in enumerate(values)]
        self.records += added
        self.end += len(added) + 1
        self.fold.advance(added, self.end)

    def scan(self, start: int, stop: int, records_max: int = _SCAN_RECORDS_MAX) -> Iterator[Messages]:
        """`MessageSource`."""
        while start < stop:
            batch, start = self.batch(start, stop, records_max)
            if batch.offsets:
                yield batch

    def batch(self, start: int, stop: int, records_max: int) -> tuple[Messages, int]:
        """One batch, and where the next begins."""
        chosen = [record for record in self.records if start <= record[0] < stop][: records_max + 1]
        following = chosen[records_max][0] if len(chosen) > records_max else stop
        chosen = chosen[:records_max]
        values = [value for _, _, value in chosen]
        sizes = [len(value) for value in values]
        return Messages([at for at, _, _ in chosen], [ts for _, ts, _ in chosen], sizes, b",".join(values)), following

    def trim(self, before: int) -> None:
        """Let the log begin at `before`."""
        self.log_start = max(self.log_start, before)
        self.records = [record for record in self.records if record[0] >= before]

    def reader(self) -> VersionReader | None:
        """A reader of the active version."""
        view = self.fold.view(self.end)
        if view is None:
            return None
        snapshot = SnapshotReader(*self.snapshots[view.name]) if view.name in self.snapshots else None
        files = StagedFiles(self._staging)
        return VersionReader(view, self.ids, self, files, snapshot=snapshot, log_start=self.log_start)

    def read(self) -> list[dict[str, Any]]:
        """All rows, as `Table.read()` gives them, without ids."""
        reader = self.reader()
        if reader is None:
            return []
        return [row for table in reader.tables() for row in arrow_to_records(table, reader.fields, for_stream=False)]


@dataclass
class _NodeMemory:
    state: dict[str, Any] = field(default_factory=dict)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    orders: dict[str, Any] = field(default_factory=dict)
    runs: int = 0
    tries: int = 0


@dataclass(frozen=True)
class TestRun:
    """How a run of a node ended."""

    __test__ = False

    outcome: Outcome
    responses: Mapping[str, Any]
    """Payloads given to `respond_to_request`, by request key."""
    logs: Sequence[str]
    """Warnings that the platform put into the run's log."""
    results: Sequence[tuple[dict[str, Any], bytes]] = ()

    @property
    def ok(self) -> bool:
        """Whether the code ran to its end."""
        return self.outcome.kind == "ok"

    @property
    def error(self) -> str | None:
        """What went wrong, in one line."""
        return self.outcome.error


class MemoryHost:
    """The host of one run: answers its requests and commits what it writes. A `HostChannel`."""

    def __init__(self, app: TestApp, order: RunOrder) -> None:
        self.app = app
        self.order = order
        self.part = 0
        self.commits: list[Progress] = []
        self.responses: dict[str, Any] = {}
        self.logs: list[str] = []
        self.results: list[tuple[dict[str, Any], bytes]] = []
        self.letters: list[DeadLetter] = []
        self._pins = dict(order.cuts)
        self._views: dict[str, VersionView | None] = {}
        self._written: dict[str, list[bytes]] = {}
        self._replies: list[tuple[dict[str, Any], bytes]] = []
        self._headers: list[dict[str, Any]] = []
        for key in self._pins:
            self._pin(key)

    # -- HostChannel

    def send(self, header: Mapping[str, object], payload: bytes = b"") -> None:
        """A frame from the worker."""
        frame = orjson.loads(orjson.dumps(header))  # what cannot cross a wire must not cross here
        answer = getattr(self, f"_{frame['op']}")(frame, payload)
        if answer is not None:
            assert not self._replies, "one request is open at a time"
            head, body = answer
            self._replies.append(({"op": "reply", **orjson.loads(orjson.dumps(head))}, body))

    def receive(self) -> tuple[dict[str, Any], bytes]:
        """The answer to the open request."""
        if not self._replies:
            raise EOFError("nothing was asked")
        return self._replies.pop()

    # -- requests

    def _pin(self, key: str) -> None:
        table = self.app.by_key(key)
        self._pins[key] = table.end
        self._views[key] = table.fold.view(table.end)

    def _view(self, frame: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        key = frame["table"]
        if key not in self._views:
            self._pin(key)
        view = self._views[key]
        if "version" in frame:
            view = self.app.by_key(key).fold.view_of(frame["version"])
        json = view.to_json() if view else None
        table = self.app.by_key(key)
        about = {"cut": self._pins[key], "log_start": table.log_start, "begun_ms": table.fold.begun_ms}
        return {"view": json, **about}, b""

    def _snapshot(self, frame: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        table = self.app.by_key(frame["table"])
        snapshot, folder = table.snapshots.get(frame["version"], (None, ""))
        json = snapshot.to_json() if snapshot is not None else None
        return {"snapshot": json, "folder": str(folder), "before": None, "log_start": table.log_start}, b""

    def _past(self, frame: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        key = frame["table"]
        if key not in self._views:
            self._pin(key)
        table = self.app.by_key(key)
        later = (offset for offset, ts_ms, _ in table.records if ts_ms > frame["at_ms"])
        cut = min(next(later, table.end), self._pins[key], frame.get("cut", table.end))
        fold = table.new_fold()
        fold.advance((record for record in table.records if record[0] < cut), cut)
        view = fold.view_of(frame["version"]) if "version" in frame else fold.view()
        return {
            "view": view.to_json() if view else None,
            "cut": cut,
            "begun_ms": fold.begun_ms,
            "log_start": 0,
            "snapshot": None,
            "folder": "",
            "before": None,
        }, b""

    def _staged(self, frame: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        return {"there": False}, b""

    def _versions(self, frame: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        fold = self.app.by_key(frame["table"]).fold
        views = [version.view(fold.position).to_json() for version in fold.versions.values()]
        return {"versions": views, "active": fold.active.name if fold.active else None}, b""

    def _scan(self, frame: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        start = self.app.by_key(frame["table"]).log_start
        if frame["start"] < start:
            return {"error": f"the log begins at {start}", "trimmed": start}, b""
        records_max = min(frame["records_max"], _SCAN_RECORDS_MAX)
        batch, following = self.app.by_key(frame["table"]).batch(frame["start"], frame["stop"], records_max)
        head = {"offsets": list(batch.offsets), "ts_ms": list(batch.ts_ms), "sizes": list(batch.sizes)}
        return {**head, "next": following}, batch.joined

    def _commit(self, frame: dict[str, Any], _: bytes) -> tuple[dict[str, Any], bytes]:
        written = self._apply(progress_from_json(frame["progress"]))
        self.part += 1
        for key in written:
            self._pin(key)
        return {"cuts": {key: self._pins[key] for key in written}, "part": self.part}, b""

    # -- what is not answered

    def _write(self, frame: dict[str, Any], payload: bytes) -> None:
        messages = Messages(range(len(frame["sizes"])), [0] * len(frame["sizes"]), frame["sizes"], payload)
        self._written.setdefault(frame["table"], []).extend(messages.values())

    def _respond(self, frame: dict[str, Any], _: bytes) -> None:
        self.responses.setdefault(frame["key"], frame["payload"])

    def _log(self, frame: dict[str, Any], _: bytes) -> None:
        self.logs.append(frame["text"])

    def _result(self, frame: dict[str, Any], payload: bytes) -> None:
        self.results.append((frame, payload))

    def _apply(self, progress: Progress) -> list[str]:
        written = list(self._written)
        for key, values in self._written.items():
            self.app.by_key(key).commit(values, self.app.clock.now_ms())
        self._written = {}
        self.commits.append(progress)
        self.letters += progress.dead_letters
        memory = self.app.memory(self.order.node)
        memory.state = dict(progress.state)
        memory.places = dict(progress.places)
        memory.orders = dict(progress.orders)
        return written

    def end(self, outcome: Outcome) -> Outcome:
        """Commit the rest, as an `end` frame asks for."""
        decoded = Outcome.from_json(orjson.loads(orjson.dumps(outcome.to_json()["outcome"])))
        self._apply(decoded.progress)
        memory = self.app.memory(self.order.node)
        memory.tries = memory.tries + 1 if decoded.retry else 0
        return decoded


class TestApp:
    """An app's node files over tables in memory. Tables exist as soon as they are named."""

    __test__ = False

    def __init__(
        self,
        app_dir: str | Path = ".",
        *,
        stores: Sequence[str] = (),
        schemas: Sequence[Schema] = (),
        clock: Clock | None = None,
        staging: str | Path | None = None,
    ) -> None:
        self.app_dir = Path(app_dir)
        self.clock = clock or SystemClock()
        self.schemas = {schema.name: schema for schema in schemas}
        self.dead_letters: list[DeadLetter] = []
        self._own_staging = staging is None
        self.staging = Path(staging) if staging is not None else Path(tempfile.mkdtemp(prefix="tailrace-test-"))
        self._tables: dict[str, MemoryTable] = {}
        self.lanes: dict[str, list[MemoryTable]] = {}
        """By name, the partitions of each table."""
        self._nodes: dict[str, _NodeMemory] = {}
        for name in stores:
            self.table(name)

    def close(self) -> None:
        """Take the staged files away."""
        if self._own_staging:
            shutil.rmtree(self.staging, ignore_errors=True)

    def __enter__(self) -> TestApp:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- tables

    def table(
        self,
        name: str,
        schema: Schema | Mapping[str, str] | None = None,
        *,
        partitions: int = 1,
        partition_key: str | None = None,
    ) -> MemoryTable:
        """The table behind the store `name` (of several partitions the first), made where it is not there."""
        if name not in self._tables:
            if schema is not None and not isinstance(schema, Schema):
                schema = schema_from_mapping(schema, name)
            ref = StoreRef(
                key=f"k-{name}",
                name=name,
                store_id=f"id{len(self._tables)}{name}",
                topic=f"test.{name}",
                born_ms=1_690_000_000_000 + len(self._tables),
                schema=schema.to_json() if schema is not None else None,
                partitions=partitions,
                partition_key=partition_key,
                streams=list(range(partitions)),
            )
            self._tables[name] = MemoryTable(ref, self.staging)
            others = [MemoryTable(ref, self.staging, number) for number in range(1, partitions)]
            self.lanes[name] = [self._tables[name], *others]
        return self._tables[name]

    def by_key(self, key: str) -> MemoryTable:
        """A table by its key in orders and frames."""
        return next(lane for lanes in self.lanes.values() for lane in lanes if lane.key == key)

    def append(self, name: str, records: Any) -> None:
        """Put records into a table, as a node would."""
        self.table(name)
        with self.inside(node=""):
            Table(name, "w").append(records)

    def post(self, name: str, *payloads: Any) -> None:
        """Put posted payloads into a table, as its webhook would: rows {timestamp, record}."""
        table = self.table(name)
        now_ms = self.clock.now_ms()
        for payload in payloads:
            value = webhook_message({"ts": now_ms, "node": ""}, orjson.dumps(payload), 1)
            table.commit([value], now_ms)

    def read(self, name: str) -> list[dict[str, Any]]:
        """All rows of a table, without ids."""
        if self.table(name).ref.partitions == 1:
            return self.table(name).read()
        with self.inside(node=""):
            return [{key: row[key] for key in row if key != PATTERNS_ID} for row in Table(name).read()]

    def memory(self, node: str) -> _NodeMemory:
        """What a node remembers from run to run."""
        return self._nodes.setdefault(node, _NodeMemory())

    # -- runs

    def order(self, file: str = "", *, node: str | None = None, **changes: Any) -> RunOrder:
        """The order for the next run of a node; `changes` are fields of `RunOrder`."""
        node = node or file
        memory = self.memory(node)
        values: dict[str, Any] = {
            "run": f"{node}-{memory.runs}",
            "node": node,
            "graph": "test",
            "kind": "sql" if file.endswith(".sql") else "python",
            "app_dir": str(self.app_dir),
            "file": file,
            "stores": [table.ref for table in self._tables.values()],
            "schemas": {name: schema.to_json() for name, schema in self.schemas.items()},
            "state": memory.state,
            "places": memory.places,
            "orders": memory.orders,
            "staging": str(self.staging),
            "stage": f"stage/{len(self._nodes)}-{memory.runs}",
            "rows_max": 1_000_000,
            "share_s": 1_000.0,
            "try_number": memory.tries + 1,
            **changes,
        }
        for port in ("inputs", "outputs"):
            wired = {name: self.table(store).ref.key for name, store in values.get(port, {}).items()}
            values[port] = wired
        values["stores"] = [table.ref for table in self._tables.values()]
        memory.runs += 1
        return RunOrder.from_json(orjson.loads(orjson.dumps(RunOrder(**values).to_json())))

    def run(self, file: str, **changes: Any) -> TestRun:
        """Run a node file once.

        Args:
            file: its path relative to the app's folder; also the node's name, unless `node` says otherwise.
            changes: `inputs` and `outputs` (port -> store name), `parameters`, and any other field of `RunOrder`.
        """
        order = self.order(file, **changes)
        forget_known_fields()  # as in a fresh worker
        host = MemoryHost(self, order)
        outcome = host.end(run_order(order, host, clock=self.clock))
        self.dead_letters += host.letters
        return TestRun(outcome, host.responses, host.logs, host.results)

    @contextmanager
    def inside(self, node: str = "test", **changes: Any) -> Iterator[MemoryHost]:
        """The body is the code of a node: `Table`, `State` and the rest work in it, and it is committed at its end.

        If the body raises, nothing more is committed.
        """
        forget_known_fields()
        host = MemoryHost(self, self.order(node=node, **changes))
        session = Session(host.order, host, clock=self.clock)
        before = suspend()
        activate(session)
        try:
            yield host
            host.end(session.finish("ok"))
        finally:
            deactivate()
            session.close()
            if before is not None:
                activate(before)


def run_node(
    file: str | Path,
    tables: Mapping[str, Any] | None = None,
    *,
    outputs: Sequence[str] = (),
    parameters: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Run one node file over the given tables and return the rows of all tables afterwards, by name.

    Args:
        tables: rows by table name: a list of dicts, or a DataFrame. Empty ones are connected and never written.
        outputs: names of further tables.
        parameters: values by name.
        state: State to begin with.

    Raises:
        AssertionError: the node failed; its traceback is the message.
    """
    from tailrace.node.values import encode_value

    path = Path(file).resolve()
    with TestApp(path.parent, stores=[*(tables or {}), *outputs]) as app:
        for name, rows in (tables or {}).items():
            app.append(name, rows)
        app.memory(path.name).state = {key: encode_value(value, key) for key, value in (state or {}).items()}
        run = app.run(path.name, parameters=dict(parameters or {}))
        assert run.ok, run.outcome.traceback
        return {name: table.read() for name, table in app._tables.items()}
