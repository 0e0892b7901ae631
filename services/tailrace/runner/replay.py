"""A run, run again: on the cut, State and places that it began with, into tables that nobody else sees.

What it writes stays here, its commits commit nothing, and its answers and dead letters are only told. Calls to the
outside are made again, under the same run id. Then a worker compares what it wrote with what the run had written.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from tailrace.engine import StartRun
from tailrace.errors import RejectedError
from tailrace.log import Log, Offset, OffsetGapError, Partition, Record, scan
from tailrace.node.protocol import Outcome, RunOrder, StoreRef
from tailrace.runner.asking import ask
from tailrace.runner.catalog import Catalog
from tailrace.runner.deployment import DeployedNode
from tailrace.runner.journal import BEGAN_BYTES_MAX, RunEntry, has_run
from tailrace.runner.past import Held
from tailrace.runner.runs import RUN_BYTES_MAX, Desk, ProtocolError, Run, Tails, TooLargeError
from tailrace.runner.scratch import Overlay, Scratch
from tailrace.runner.slot import Hire
from tailrace.runner.tails import CallLog, Pin
from tailrace.runner.workers import Worker
from tailrace.runtime import Clock
from tailrace.tables import Answer, Snapshot, VersionView, lane_of, split_head, split_lane

__all__ = ["REPLAYS_FOLDER", "Replay", "ReplayWishes", "StateNotKeptError", "WrittenGoneError"]

REPLAYS_FOLDER = "replays"
"""Below the staging folder; what lies there is of replays that go on, or of a host that died."""

COMPARE_TIME_LIMIT_S = 600.0
PROGRESS_PAUSE_S = 1.0
EVENTS_MAX = 1_000
"""Lines of output that wait for whoever asked."""


class StateNotKeptError(RejectedError):
    """A run cannot be run again: what it began with is not known."""

    def __init__(self, run: str) -> None:
        self.run = run
        super().__init__(
            f"run {run!r} cannot be run again: the State that it began with was not kept. It had more than "
            f"{BEGAN_BYTES_MAX >> 10} KiB, or the run is older than this part of the journal"
        )


class WrittenGoneError(RejectedError):
    """What a run wrote cannot be compared: the log of the table was trimmed since."""

    def __init__(self, run: str, table: str, start: int, log_start: int) -> None:
        self.run, self.table, self.start, self.log_start = run, table, start, log_start
        super().__init__(
            f"what run {run!r} wrote to table {table!r} at position {start} is not in the log any more, which begins at "
            f"position {log_start}: in the lake nobody can tell its rows from others. Choose a later run"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayWishes:
    """How a run is to be run again, and what is to be shown."""

    code: str | None = None
    """In place of the node's file."""

    ignore: Sequence[str] = ()
    """Fields whose values do not count."""

    rows_max: int = 100
    """Most differing rows that are shown of each table."""


class Replay:
    """One run that is run again.

    Args:
        order: of the node as it is deployed; all that is of the run comes from `entry`.
        node: as it is deployed.
        cuts: for each table of the app, the position as of which it is read.
        hire: starts a worker for an order.
        grace_s: how long a worker may take to end when its time is over.
    """

    def __init__(
        self,
        entry: RunEntry,
        order: RunOrder,
        cuts: Mapping[str, int],
        wishes: ReplayWishes,
        *,
        node: DeployedNode,
        log: Log,
        catalog: Catalog,
        call: CallLog,
        hire: Hire,
        clock: Clock,
        look_back: Callable[[str, int, int], Awaitable[Pin]],
        grace_s: float,
    ) -> None:
        self._entry, self._order, self._cuts, self._wishes = entry, order, cuts, wishes
        self._log, self._catalog, self._call, self._hire = log, catalog, call, hire
        self._now_ms, self._now_s = clock.now_ms, clock.monotonic_s
        self._grace_s, self._node, self._look_back = grace_s, node, look_back
        self._names = {
            lane_of(store.key, number): lane_of(store.name, number)
            for store in order.stores
            for number in range(store.partitions)
        }
        self._scratch = Scratch(catalog, self._names)
        self._written: dict[str, Overlay] = {}
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue(EVENTS_MAX)
        self._answers: list[Answer] = []
        self._letters: list[Any] = []
        self._notes: list[str] = []
        self._messages = 0
        self._rows_max = entry.rows_in + (1 if entry.again else 0)
        """The rows that the run was given: its streams end where they ended then."""

    async def events(self) -> AsyncGenerator[dict[str, Any], None]:
        """What happens, as JSON objects: `begun`, `line` and `progress`, and in the end `result`.

        Raises:
            StateNotKeptError: rejected; what the run began with is not known.
            PastGoneError: rejected; what it read is gone.
            WrittenGoneError: rejected; what it wrote is gone.
        """
        staging = Path(self._order.staging)
        await self._prepare()
        (staging / REPLAYS_FOLDER).mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=staging / REPLAYS_FOLDER))
        try:
            order = await asyncio.to_thread(self._with_code, self._order_again(folder.relative_to(staging)), folder)
            yield {"type": "begun", "run": self._entry.run, "node": self._entry.node, "title": self._entry.title}
            start = StartRun(slot=order.node, run=0, reasons=(), rows_max=order.rows_max, share_ms=0)
            run = Run(order.node, start, order, self._now_ms(), {}, at=self._cuts)
            task = asyncio.ensure_future(self._run(run))
            try:
                async for event in self._until(task, "running"):
                    yield event
                ended, reason, duration_ms = task.result()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            compare = asyncio.ensure_future(self._compare(str(staging)))
            try:
                async for event in self._until(compare, "comparing"):
                    yield event
                yield self._result(compare.result(), ended, reason, duration_ms)
            finally:
                compare.cancel()
                await asyncio.gather(compare, return_exceptions=True)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _until(self, task: asyncio.Future[Any], phase: str) -> AsyncGenerator[dict[str, Any], None]:
        """What happens until the task is done, and each second that it goes on."""
        began_s = told_s = self._now_s()
        while not (task.done() and self._events.empty()):
            getter = asyncio.ensure_future(self._events.get())
            try:
                await asyncio.wait({getter, task}, timeout=PROGRESS_PAUSE_S, return_when=asyncio.FIRST_COMPLETED)
            finally:
                told = getter.result() if getter.done() else None
                getter.cancel()
            if told is not None:
                yield told
            now_s = self._now_s()
            if not task.done() and now_s - told_s >= PROGRESS_PAUSE_S:
                told_s = now_s
                elapsed_ms = int((now_s - began_s) * 1000)
                yield {"type": "progress", "phase": phase, "elapsed_ms": elapsed_ms, "messages": self._messages}

    # -- what it was ----------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Find out whether all is there, before any code runs."""
        entry = self._entry
        if entry.began is None:
            raise StateNotKeptError(entry.run)
        if entry.runs > 1:
            self._notes.append(
                f"{entry.runs} quiet runs within a second are one entry of the journal ({entry.first_run} to "
                f"{entry.run.rpartition('#')[2]}): they are run again as one, and compared with all that they wrote"
            )
        if entry.version != self._node.spec.version:
            self._notes.append("the node was deployed anew since: parameters and wiring are those of now")
        if entry.kind == "died":
            self._notes.append("its worker died, so nobody knows how many rows it was given: streams go on to the cut")
            self._rows_max = sys.maxsize
        for table, cut in entry.read.items():
            self._catalog[table].trimmed()  # its log may begin later by now
            pin = await self._scratch.pin_at(table, cut)
            place = entry.places.get(table)
            if pin.view is None or (place is not None and place[0] >= await self._catalog[table].start()):
                continue  # a stream reads only what lies after its place
            await self._scratch.held(table, pin.view, cut)
        for table, (start, stop) in entry.wrote.items():
            self._written[table] = await self._as_written(table, start, stop)

    async def _as_written(self, table: str, start: int, stop: int) -> Overlay:
        """The table as of the first message of the run, and all messages of the run."""
        partition = Partition(*split_lane(table))

        def read() -> list[Record]:
            found: list[Record] = []
            size = 0
            for batch in scan(self._log, partition, Offset(start), Offset(stop)):
                for record in batch.records:
                    if has_run(self._entry, str(split_head(record.value).get("run", ""))):
                        found.append(record)
                        size += len(record.value or b"")
                if size > RUN_BYTES_MAX:
                    raise TooLargeError(f"what run {self._entry.run} wrote to {table}", size, RUN_BYTES_MAX)
            return found

        try:
            records = await self._call(read)
        except OffsetGapError as gap:
            raise WrittenGoneError(self._entry.run, self._names.get(table, table), start, int(gap.start)) from None
        before = Scratch(self._catalog, {table: self._names.get(table, table)})
        await before.pin_at(table, start)
        before[table].lay(records)
        return before[table]

    # -- running again --------------------------------------------------------------------------------------------

    def _order_again(self, stage: Path) -> RunOrder:
        entry = self._entry
        assert entry.began is not None
        return replace(
            self._order,
            run=entry.run,
            state=entry.began["state"],
            orders=entry.began["orders"],
            places=entry.places,
            cuts=entry.read,
            reason=",".join(entry.reasons),
            try_number=entry.try_number,
            rows_max=self._rows_max,
            share_s=self._order.time_limit_s,
            stage=f"{stage}/part",
        )

    def _with_code(self, order: RunOrder, folder: Path) -> RunOrder:
        """The order with the files of the app as they were, and the given code in place of the node's."""
        now = Path(order.app_dir)
        then = now.parent.parent / self._entry.code / now.name if self._entry.code else now
        if not (then / order.file).is_file():
            then = now
            if self._wishes.code is None:
                self._notes.append("the app's files as they were then are not kept any more: it ran with those of now")
        if self._wishes.code is None:
            return replace(order, app_dir=str(then))
        app_dir = folder / now.name
        shutil.copytree(then, app_dir)
        (app_dir / order.file).write_text(self._wishes.code, encoding="utf-8")
        return replace(order, app_dir=str(app_dir))

    async def _run(self, run: Run) -> tuple[Outcome | None, str, int]:
        """How it ended, or why nobody knows, and how long it took."""
        began_s = self._now_s()
        warm = await self._hire(run.order, self._node)
        worker, link = warm.worker, warm.link
        listener = asyncio.ensure_future(self._listen(worker))
        ended, reason = None, ""
        try:
            worker.output.begin_run(run.order.run)
            async with asyncio.timeout(run.order.time_limit_s + self._grace_s):
                ended = await link.converse(self._desk(run), run.order)
            worker.output.end_run()
            run.close_piece(ended.progress)
            await self._keep(run)
        except TimeoutError:
            reason = f"it ran over its hard limit of {run.order.time_limit_s:g} s and did not end when told"
        except (EOFError, OSError):
            reason = str((await worker.wait()).reason)
        except ProtocolError as error:
            reason = f"its worker sent what no worker sends: {error}"
        except RejectedError as error:
            reason = str(error)
        finally:
            link.close()
            await worker.kill()
            await asyncio.wait({listener}, timeout=1)
            listener.cancel()
        return ended, reason, int((self._now_s() - began_s) * 1000)

    def _desk(self, run: Run) -> Desk:
        return Desk(
            run,
            self._scratch,
            _nothing,
            lambda: self._keep(run),
            self._answers.append,
            say=lambda level, text: self._tell({"type": "line", "stream": "tailrace", "text": f"{level}: {text}"}),
            record_bytes_max=self._log.limits.record_bytes_max,
            look_back=self._look_back,
        )

    async def _keep(self, run: Run) -> None:
        """In place of a commit."""
        for piece in run.pieces:
            for write in piece.writes:
                await self._scratch.pin_at(write.topic, self._cuts.get(write.topic, 0))
                self._scratch.write(write.topic, write.records, self._now_ms())
                self._messages += len(write.records)
            self._letters += piece.progress.dead_letters
        run.pieces.clear()

    async def _listen(self, worker: Worker) -> None:
        async for line in worker.output:
            await self._events.put({"type": "line", "stream": line.stream, "text": line.text})

    def _tell(self, event: dict[str, Any]) -> None:
        if not self._events.full():
            self._events.put_nowait(event)

    # -- comparing ------------------------------------------------------------------------------------------------

    async def _compare(self, staging: str) -> list[dict[str, Any]]:
        """For each table that either of them wrote, how its rows differ."""
        sides: dict[str, Overlay] = {}
        stores: list[StoreRef] = []
        tables = []
        refs = {store.key: store for store in self._order.stores}
        wrote = [table for table, overlay in self._scratch.overlays.items() if overlay.messages]
        for table in sorted({*self._written, *wrote}):
            cut = self._cuts.get(table, 0)
            await self._scratch.pin_at(table, cut)
            written = self._written.get(table) or await self._as_written(table, cut, cut)
            pair = {"was": written, "now": self._scratch[table]}
            ref = refs.get(table)
            if ref is None:  # the node cannot reach it any more
                born_ms = self._catalog.born_ms(table)
                ref = StoreRef(key=table, name=self._names.get(table, table), store_id="", topic=table, born_ms=born_ms)
            for side, overlay in pair.items():
                sides[f"{side}:{table}"] = overlay
                stores.append(replace(ref, key=f"{side}:{table}", partitions=1, streams=(0,)))
            tables.append(
                {
                    "table": ref.name,
                    "was": f"was:{table}",
                    "was_from": pair["was"].base.cut,
                    "now": f"now:{table}",
                    "now_from": pair["now"].base.cut,
                }
            )
        name = f"{self._order.graph}/compare"
        order = RunOrder(
            run=name,
            node=name,
            graph=self._order.graph,
            kind="compare",
            stores=stores,
            staging=staging,
            time_limit_s=COMPARE_TIME_LIMIT_S,
            arguments={"tables": tables, "ignore": list(self._wishes.ignore), "rows_max": self._wishes.rows_max},
        )
        cuts = {key: overlay.end for key, overlay in sides.items()}
        pieces = ask(order, _Sides(sides, self._catalog), self._hire, self._now_ms(), cuts)
        return [orjson.loads(piece) async for piece in pieces]

    def _result(
        self, tables: list[dict[str, Any]], ended: Outcome | None, reason: str, duration_ms: int
    ) -> dict[str, Any]:
        entry = self._entry
        now: dict[str, Any] = {
            "kind": ended.kind if ended else "died",
            "error": (ended.error if ended else reason) or None,
            "traceback": ended.traceback if ended else None,
            "rows_in": ended.progress.rows_in if ended else 0,
            "rows_out": ended.progress.rows_out if ended else 0,
            "duration_ms": duration_ms,
            "state": dict(ended.progress.state) if ended else None,
            "dead_letters": [letter._asdict() for letter in self._letters],
            "answers": [asdict(answer) for answer in self._answers],
            "requested": list(ended.requested) if ended and ended.requested else None,
        }
        names = ("kind", "error", "rows_in", "rows_out", "duration_ms", "started_ms", "runs")
        differs = ("deleted", "marks")
        equal = (entry.kind == "ok") == (now["kind"] == "ok") and not any(
            table["added"] or table["removed"] or table["changed"] or any(name in table for name in differs)
            for table in tables
        )
        return {
            "type": "result",
            "run": entry.run,
            "node": entry.node,
            "title": entry.title,
            "equal": equal,
            "was": {name: getattr(entry, name) for name in names},
            "now": now,
            "tables": tables,
            "notes": self._notes,
        }


class _Sides:
    """`Tails` of what both runs wrote, by side and table."""

    def __init__(self, overlays: Mapping[str, Overlay], tails: Tails) -> None:
        self._overlays, self._tails = overlays, tails

    def __getitem__(self, topic: str) -> Overlay:
        return self._overlays[topic]

    def snapshots(self, topic: str, view: VersionView | None) -> tuple[Snapshot, ...]:
        return ()

    async def pin_at(self, topic: str, cut: int) -> Pin:
        return await self._overlays[topic].pin()

    async def held(
        self, topic: str, view: VersionView | None, cut: int, known: Sequence[Snapshot] | None = None
    ) -> Held:
        return Held(None, None, 0)  # what is compared lies after the first offset, and is in memory

    async def folder(self, snapshot: Snapshot) -> Path:
        raise AssertionError("there are no snapshots")

    async def staged(self, path: str) -> bool:
        return await self._tails.staged(path)


async def _nothing() -> None:
    return None
