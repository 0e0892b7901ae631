"""The host: carries out what the engine decides, on either log.

One asyncio process. Everything that changes the host's state runs on its event loop; calls of the log run in threads.
What must survive a crash is in the log, written by `_commit` alone:

 1. `run-begun`     nothing has changed; the run starts again from its last commit.
 2. `run-ended`     the worker is done; its rows, State and places are in our memory only.
 3. the commit      the point of no return: rows, State, places and the engine's record become visible together.
 4. `committed`     we know of it. A crash before leaves a finished commit, which the next opener reads.
 5. `run-committed` the slot may forget the run.

After an unknown outcome the shard's writer is thrown away with everything that the shard had in flight, and what the
log says after the next opening counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import orjson

from tailrace.engine import (
    CheckpointWanted,
    Command,
    Commit,
    CommitRefused,
    Committed,
    Deploy,
    Discard,
    Drain,
    Engine,
    EngineLimits,
    Event,
    News,
    OpenShard,
    Requested,
    RunEnded,
    RunOutcome,
    ShardOpened,
    StartRun,
    Tick,
    Triggered,
    WakeAt,
    WriterLost,
    shard_of,
)
from tailrace.errors import FatalError, RejectedError, RetriableError, TailraceError
from tailrace.log import (
    Append,
    FencedError,
    Log,
    NewRecord,
    Offset,
    OffsetRange,
    OutcomeUnknownError,
    Partition,
    Place,
    TopicInfo,
    TopicSpec,
    Writer,
)
from tailrace.node.protocol import DeadLetter, Outcome, Progress, RunOrder
from tailrace.runner.deadletters import dead_letter_record, record_in_hand
from tailrace.runner.deployment import DeployedNode, Deployment, resolve_parameters, slot_name, store_ref
from tailrace.runner.journal import Journal, LogLine, RunEntry
from tailrace.runner.runs import Desk, Link, ProtocolError, Run, check_sizes
from tailrace.runner.settings import RunnerSettings
from tailrace.runner.slots import SlotState, read_all, restore, state_topic
from tailrace.runner.staging import drop_folders, mark_committed, open_folders, sync_folders
from tailrace.runner.tails import Pin, TableTail
from tailrace.runner.workers import Worker, WorkerLimits, WorkerPool, WorkerSpec, WorkerStartError
from tailrace.runtime import Runtime
from tailrace.tables import TableFold, VersionView

__all__ = ["AskError", "Host", "UnknownNodeError", "UnknownTableError"]

T = TypeVar("T")
_log = logging.getLogger(__name__)


class AskError(RejectedError):
    """A query or a read could not be answered; the text says why."""


class UnknownNodeError(RejectedError):
    """The app has no such node that runs."""

    def __init__(self, key: str, known: Sequence[str]) -> None:
        self.key, self.known = key, list(known)
        super().__init__(f"there is no node {key!r} that runs; there are: {', '.join(sorted(known)) or 'none'}")


class UnknownTableError(RejectedError):
    """No deployed app has such a table."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name, self.known = name, list(known)
        super().__init__(f"there is no table {name!r}; there are: {', '.join(sorted(known)) or 'none'}")


@dataclass(slots=True)
class _Warm:
    """A worker that is up, with our end of its socket pair."""

    worker: Worker
    link: Link


@dataclass(slots=True)
class _Slot:
    name: str
    deployed: DeployedNode
    latest: SlotState = field(default_factory=SlotState)
    """As of the last commit that was begun."""
    head: SlotState = field(default_factory=SlotState)
    """As of the last run that ended; where the next one goes on."""
    runs: dict[int, Run] = field(default_factory=dict)
    """Under way, or ended and not committed."""
    tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    warm: _Warm | None = None
    current: Run | None = None
    busy: bool = False
    """A run was started and has not ended."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no ended run waits for its commit."""


class Host:
    """Runs the nodes of the deployed apps.

    Args:
        log: where everything is; the host does not close it.
        data_dir: folder for staged files and the workers' own.
        respond: called with (key, payload) when a node answers a webhook's request.
        failed: called once when the host must stop: another host has taken over, or a bug of ours.
    """

    def __init__(
        self,
        log: Log,
        *,
        data_dir: Path,
        runtime: Runtime,
        settings: RunnerSettings | None = None,
        respond: Callable[[str, Any], None] = lambda key, payload: None,
        failed: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        self.log = log
        self.settings = settings or RunnerSettings()
        self.journal = Journal(log, runtime.clock)
        self.deployments: dict[str, Deployment] = {}
        self._data_dir = data_dir
        self._staging = data_dir / "staging"
        self._runtime = runtime
        self._respond = respond
        self._failed = failed
        self._engine = Engine(
            shards=self.settings.shards,
            limits=EngineLimits(
                runs_max=self.settings.runs_max,
                retry_pauses_ms=tuple(int(pause.total_seconds() * 1000) for pause in self.settings.retry_pauses),
            ),
            pipeline=True,
        )
        self._pool = WorkerPool(folder=data_dir / "workers")
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="log")
        self._slots: dict[str, _Slot] = {}
        self._unclaimed: dict[str, SlotState] = {}
        """What nodes that are not deployed now remember."""
        self._tails: dict[str, TableTail] = {}
        self._infos: dict[str, TopicInfo] = {}
        self._writers: dict[int, Writer] = {}
        self._openings: dict[int, int] = {}
        self._readers: dict[str, set[str]] = {}
        self._behind: set[str] = set()
        """Tables whose log goes on past their fold, while all their readers are busy anyway."""
        self._caught_up: set[str] = set()
        """Tables whose fold had reached the log's end when they were last looked at."""
        self._refreshing: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._triggers: dict[str, int] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wake: asyncio.TimerHandle | None = None
        self._watch = log.watch()
        self._stopping = False
        self._quiet = asyncio.Event()
        """Set once nothing runs or waits to be committed, after the stop has begun."""
        self._indexed: dict[str, Any] = {}

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make ready to deploy; workers are prepared in the background."""
        self._staging.mkdir(parents=True, exist_ok=True)
        await self._pool.start()
        self._spawn(self._listen())

    async def deploy(self, deployments: Sequence[Deployment]) -> None:
        """These are the apps from now on. Nodes that are gone or have changed end their run first."""
        specs = [spec for deployment in deployments for spec in deployment.topics()]
        self._infos.update(await self._call(lambda: self.log.create_topics(specs)))
        for deployment in deployments:
            if deployment.graph not in self.deployments:
                await self.journal.load(deployment.graph, deployment.journal_topic)
        new = {deployment.graph for deployment in deployments} - self.deployments.keys()
        self.deployments = {deployment.graph: deployment for deployment in deployments}
        await self._load_indexes()
        self._readers = {}
        for deployment in deployments:
            for slot, node in deployment.nodes.items():
                known = self._slots.get(slot)
                if known is None:
                    state = self._unclaimed.pop(slot, SlotState())
                    known = self._slots[slot] = _Slot(slot, node, latest=state, head=state)
                    known.settled.set()
                else:
                    if known.deployed.app_dir != node.app_dir and known.current is None:
                        self._retire(known)
                    known.deployed = node
                for table in node.spec.reads:
                    self._readers.setdefault(table, set()).add(slot)
        if new:  # what their slots remember has not been read yet
            for shard in list(self._writers):
                self._lose(shard, "another app was deployed")
        self._post(
            Deploy(
                now_ms=self._now(),
                specs=tuple(node.spec for deployment in deployments for node in deployment.nodes.values()),
            )
        )
        self._watch.add([Partition(table) for table in self._readers])
        self._watch.add([Partition(deployment.triggers_topic) for deployment in deployments])

    async def stop(self) -> None:
        """Start nothing new, let runs end for a moment, commit what ended, and let go of everything."""
        self._stopping = True
        self._post(Drain(now_ms=self._now()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._quiet.wait(), self.settings.stop_timeout.total_seconds())
        for slot in self._slots.values():
            for task in slot.tasks.values():
                task.cancel()
        for task in list(self._tasks):
            task.cancel()
        for slot in self._slots.values():
            if slot.warm is not None:
                slot.warm.link.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TailraceError, asyncio.TimeoutError):
            async with asyncio.timeout(2):
                await self._save_indexes()
                await self.journal.close()
        await self._pool.close()
        self._watch.close()
        for writer in self._writers.values():
            with contextlib.suppress(TailraceError):
                writer.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self._stopping:
            self._stopping = True
            self._failed(error)

    def _now(self) -> int:
        return self._runtime.clock.now_ms()

    async def _call(self, function: Callable[[], T]) -> T:
        """A call of the log, in a thread; tried again for as long as the log is away."""
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(self._threads, function)
            except RetriableError as error:
                if self._stopping:
                    raise
                _log.warning("%s; trying again", error)
                await asyncio.sleep(self.settings.retry_pause.total_seconds())

    # -- events and commands --------------------------------------------------------------------------------------

    def _post(self, event: Event) -> None:
        for command in self._engine.handle(event):
            self._carry_out(command)
        if self._stopping and not self._engine.busy:
            self._quiet.set()

    def _carry_out(self, command: Command) -> None:
        match command:
            case OpenShard():
                self._spawn(self._open_shard(command))
            case StartRun():
                slot = self._slots[command.slot]
                slot.busy = True
                task = self._spawn(self._run(slot, command))
                slot.tasks[command.run] = task
                task.add_done_callback(lambda _, run=command.run: slot.tasks.pop(run, None))  # type: ignore[misc]
            case Commit():
                self._spawn(self._commit(command))
            case Discard():
                self._discard(self._slots[command.slot], command.run)
            case WakeAt():
                if self._wake is not None:
                    self._wake.cancel()
                    self._wake = None
                if command.at_ms is not None:
                    delay_s = max(0.0, (command.at_ms - self._now()) / 1000)
                    self._wake = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._wake = None
        self._post(Tick(now_ms=self._now()))

    # -- shards ---------------------------------------------------------------------------------------------------

    def _writer_name(self, shard: int) -> str:
        return f"shard-{shard}"

    async def _open_shard(self, command: OpenShard) -> None:
        """Open the shard's writer, then read its slots: never the other way round (a late opener would commit over a
        newer state)."""
        shard = command.shard
        self._openings[shard] = command.opening
        old = self._writers.pop(shard, None)
        if old is not None:
            await self._call(old.close)
        try:
            writer, states = await self._call(lambda: self._open_and_restore(shard))
        except (OutcomeUnknownError, FencedError) as error:
            self._post(WriterLost(now_ms=self._now(), shard=shard, opening=command.opening, reason=str(error)))
            return
        self._writers[shard] = writer
        for name, state in states.items():
            slot = self._slots.get(name)
            if slot is not None:
                slot.latest = slot.head = state
            else:
                self._unclaimed[name] = state
        records = {name: state.record for name, state in states.items()}
        self._post(ShardOpened(now_ms=self._now(), shard=shard, opening=command.opening, records=records))
        for slot in self._slots.values():
            if self._shard(slot) == shard:
                self._look_again(slot)

    def _open_and_restore(self, shard: int) -> tuple[Writer, dict[str, SlotState]]:
        name = self._writer_name(shard)
        writer = self.log.open_writer(name)
        try:
            graphs = list(self.deployments)
            states = restore(self.log, graphs, shard, self.settings.shards)
            open_folders(self._staging, name, self._last_staged(name))
        except BaseException:
            writer.close()
            raise
        return writer, states

    def _last_staged(self, writer: str) -> list[str]:
        folders: list[str] = []
        for deployment in self.deployments.values():
            partition = Partition(deployment.index_topic)
            last: bytes | None = None
            for record in read_all(self.log, partition, self.log.settled_ends([partition])[partition]):
                if record.key == f"staged/{writer}".encode():
                    last = record.value
            if last is not None:
                folders += orjson.loads(last)
        return folders

    # -- news -----------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            for partition in await self._watch.wait():
                self._refresh(partition.topic)

    def _refresh(self, topic: str) -> None:
        """Look at what is new in a topic; at once, or once more when it is being looked at already."""
        if topic in self._refreshing:
            self._again.add(topic)
            return
        self._caught_up.discard(topic)
        work = self._read_news(topic) if topic in self._readers else self._read_triggers(topic)
        task = self._refreshing[topic] = self._spawn(work)
        task.add_done_callback(lambda _: self._refreshed(topic))

    def _refreshed(self, topic: str) -> None:
        self._refreshing.pop(topic, None)
        if topic in self._again and not self._stopping:
            self._again.discard(topic)
            self._refresh(topic)

    async def _read_news(self, topic: str) -> None:
        tail = self._tail(topic)
        while True:
            if self._far_enough(topic, tail.fold.position):
                self._behind.add(topic)  # whoever ends or begins a run next looks again
                return
            at_end = await tail.advance(until=tail.fold.position + self.settings.scan_records_max)
            last = {writer: {0: offset} for writer, offset in dict(tail.fold.last_by_writer).items()}
            self._post(News(now_ms=self._now(), table=topic, last=last))
            if tail.fold.position - self._indexed.get(topic, 0) >= self.settings.index_every_offsets:
                await self._save_index(topic, tail)
            if at_end:
                self._behind.discard(topic)
                self._caught_up.add(topic)
                return

    def _far_enough(self, topic: str, position: int) -> bool:
        """Whether all readers of a table run, or are about to, and those that stream it have enough to go on with."""
        for name in self._readers.get(topic, ()):
            slot = self._slots[name]
            record = self._engine.record(name)
            if record is None:  # its shard is being opened: where it stands is not known yet
                place: int | None = 0
            elif slot.busy or self._engine.due(name, self._now()).reasons:
                place = slot.head.places.get(topic, (0, 0))[0] if topic in record.streamed else None
            else:
                return False
            if place is not None and position - place < self.settings.backlog_records_max:
                return False
        return True

    async def _read_triggers(self, topic: str) -> None:
        partition = Partition(topic)
        start = self._triggers.get(topic)
        if start is None:
            start = (await self._call(lambda: self.log.starts([partition])))[partition]
        end = (await self._call(lambda: self.log.ends([partition])))[partition]
        for record in await self._call(lambda: list(_between(self.log, partition, start, end))):
            slot = orjson.loads(record.value or b"{}").get("slot")
            if slot in self._slots:
                self._post(Triggered(now_ms=self._now(), slot=slot, offset=int(record.offset)))
        self._triggers[topic] = end

    def _tail(self, topic: str) -> TableTail:
        tail = self._tails.get(topic)
        if tail is None:
            name = topic
            for deployment in self.deployments.values():
                for table in deployment.tables.values():
                    if topic == table.topic:
                        name = table.store.name
                    elif topic == table.dead_letters:
                        name = f"{table.store.name}_dead_letters"
            tail = self._tails[topic] = TableTail(self.log, self._infos[topic], name, self.settings, self._call)
        return tail

    # -- runs -----------------------------------------------------------------------------------------------------

    async def _run(self, slot: _Slot, start: StartRun) -> None:
        run = await self._begin(slot, start)
        began_s = self._runtime.clock.monotonic_s()
        ended: Outcome | None = None
        reason = ""
        try:
            warm = await self._warm_worker(slot)
            desk = Desk(
                run,
                _Tails(self),
                slot.settled.wait,
                lambda: self._checkpoint(slot, run),
                self._respond,
                say=lambda level, text: self._say(slot, run.order.run, "tailrace", f"{level}: {text}"),
                record_bytes_max=self.log.limits.record_bytes_max,
            )
            limit_s = run.order.time_limit_s + self.settings.time_limit_grace.total_seconds()
            try:
                async with asyncio.timeout(limit_s):
                    warm.worker.output.begin_run(run.order.run)
                    ended = await warm.link.converse(desk, run.order)
                    warm.worker.output.end_run()
            except TimeoutError:
                reason = (
                    f"it ran over its hard limit of {run.order.time_limit_s:g} s and did not end when told; "
                    "set `timeout` on the node, or use state.should_continue() and request_new_run()"
                )
            except (EOFError, OSError):
                reason = str((await warm.worker.wait()).reason)
            except ProtocolError as error:
                reason = f"its worker sent what no worker sends: {error}"
            else:
                check_sizes(run.writes, ended.progress, self.log.limits.record_bytes_max)
        except (RejectedError, WorkerStartError) as error:
            ended, reason = None, str(error)
        except asyncio.CancelledError:
            self._retire(slot)
            raise
        duration_ms = int((self._runtime.clock.monotonic_s() - began_s) * 1000)
        slot.current, slot.busy = None, False
        if ended is None or ended.leftovers or ended.kind != "ok" or slot.deployed.app_dir != Path(run.order.app_dir):
            self._retire(slot)
        else:
            self._keep_warm(slot)
        if ended is not None:
            outcome = self._outcome(run, ended, duration_ms)
            run.ended = ended
            run.close_piece(ended.progress)
            slot.head = self._after(slot.head, ended.progress)
        else:
            run.writes = []
            outcome = await self._death(slot, run, reason, duration_ms)
        run.outcome = outcome
        self._note(slot, run, outcome, ended)
        slot.settled.clear()
        self._runtime.probe.reached("run-ended")
        self._post(RunEnded(now_ms=self._now(), slot=slot.name, run=run.number, outcome=outcome))
        self._look_again(slot)

    def _look_again(self, slot: _Slot) -> None:
        for table in slot.deployed.spec.reads:
            if table in self._behind:
                self._behind.discard(table)
                self._refresh(table)

    async def _begin(self, slot: _Slot, start: StartRun) -> Run:
        node = slot.deployed
        head = slot.head
        record = self._engine.record(slot.name) or head.record
        pins: dict[str, Pin] = {}
        waits_for_news = set(start.reasons) <= {"news", "more", "retry"}
        for table in node.spec.reads:
            tail = self._tail(table)
            fresh = waits_for_news and table in self._caught_up
            if table in record.streamed:
                place = head.places.get(table, (0, 0))[0]
                enough = place + min(start.rows_max, self.settings.scan_records_max)
                if not (fresh and tail.fold.position > place) and tail.fold.position < enough:
                    await tail.advance(until=enough)
            elif not fresh:
                await tail.advance()
            pins[table] = await tail.pin()
        number = start.run
        stage = f"{self._writer_name(self._shard(slot))}/{_short(slot.name)}-{number}"
        values = node.node
        order = RunOrder(
            run=f"{slot.name}#{number}",
            node=slot.name,
            graph=node.graph,
            kind=values.kind,
            app_dir=str(node.app_dir),
            file=values.node_file or "",
            inputs=node.inputs,
            outputs=node.outputs,
            stores=[store_ref(table, self._infos[table.topic].born_ms) for table in node.stores],
            schemas=node.schemas,
            parameters=resolve_parameters(values.parameter_values, os.environ),
            state=head.state,
            places=head.places,
            orders=head.orders,
            cuts={table: pin.cut for table, pin in pins.items()},
            reason=",".join(start.reasons),
            try_number=start.try_number,
            dead_letter=start.dead_letter_after_failure,
            retries=node.spec.retries,
            rows_max=start.rows_max,
            share_s=start.share_ms / 1000,
            time_limit_s=node.spec.timeout_ms / 1000,
            memory_bytes_max=values.memory_bytes or self.settings.memory_bytes_max,
            staging=str(self._staging),
            stage=stage,
        )
        run = Run(slot.name, start, order, self._now(), pins, dict(pins))
        slot.runs[number] = slot.current = run
        self._look_again(slot)  # reads ahead while the worker is at work
        self._runtime.probe.reached("run-begun")
        return run

    def _shard(self, slot: _Slot) -> int:
        return shard_of(slot.name, self.settings.shards)

    def _outcome(self, run: Run, ended: Outcome, duration_ms: int) -> RunOutcome:
        seen = {table: {0: pin.cut} for table, pin in run.pinned.items() if table in run.pins}
        for table in ended.more:
            if table in seen:
                seen[table] = {0: min(seen[table][0], ended.progress.places.get(table, (0, 0))[0])}
        requested = None
        if ended.requested is not None:
            delay_ms, downstream = ended.requested
            requested = Requested(delay_ms=delay_ms, trigger_downstream=downstream)
        return RunOutcome(
            kind=ended.kind,  # type: ignore[arg-type]
            reason=ended.error or "",
            seen=seen,
            streamed=frozenset(ended.progress.streamed) & frozenset(run.pins),
            more=bool(ended.more),
            rows=ended.progress.rows_in,
            duration_ms=duration_ms,
            loop_ms=min(int(ended.loop_ms), duration_ms),
            requested=requested,
            retry=ended.retry,
            at=self._at(run, ended),
            progressed=ended.progress.places != run.order.places,
        )

    @staticmethod
    def _at(run: Run, ended: Outcome) -> str | None:
        """Names the record that is to be handed out again, where there is one stream and so no doubt which it is."""
        streamed = set(ended.progress.streamed) & set(run.pins)
        if not ended.retry or len(streamed) != 1:
            return None
        (table,) = streamed
        return _name_of(table, ended.progress.places.get(table, (0, 0)))

    async def _death(self, slot: _Slot, run: Run, reason: str, duration_ms: int) -> RunOutcome:
        """What the engine is told of a run whose worker is gone: as if the record in hand had been consumed."""
        seen = {table: {0: pin.cut} for table, pin in run.pins.items()}
        record = self._engine.record(slot.name) or slot.head.record
        streamed = (run.streamed | record.streamed) & set(run.pins)
        run.streamed = streamed
        more = False
        in_hand = await self._in_hand(slot, run)
        at = None
        if in_hand is not None and len(streamed) == 1:
            at = _name_of(in_hand.table, slot.head.places.get(in_hand.table, (0, 0)))
        for table in streamed:
            place = in_hand.next_place if in_hand and in_hand.table == table else slot.head.places.get(table, (0, 0))
            if place[0] < seen[table][0]:
                seen[table], more = {0: place[0]}, True
        return RunOutcome(
            kind="died",
            reason=reason,
            seen=seen,
            streamed=frozenset(streamed),
            more=more,
            duration_ms=duration_ms,
            retry=True,
            at=at,
        )

    async def _in_hand(self, slot: _Slot, run: Run) -> Any:
        for table in sorted(run.streamed):
            found = await record_in_hand(
                self._tail(table), run.pins[table], slot.head.places.get(table, (0, 0)), self._staging
            )
            if found is not None:
                return found
        return None

    async def _checkpoint(self, slot: _Slot, run: Run) -> None:
        run.checkpoint = asyncio.get_running_loop().create_future()
        slot.head = self._after(slot.head, run.pieces[-1].progress)
        self._post(CheckpointWanted(now_ms=self._now(), slot=slot.name, run=run.number))
        await run.checkpoint

    # -- workers --------------------------------------------------------------------------------------------------

    async def _warm_worker(self, slot: _Slot) -> _Warm:
        self._idle.pop(slot.name, None)
        if slot.warm is None:
            slot.warm = await self._new_worker(slot.deployed.node.memory_bytes or self.settings.memory_bytes_max)
            self._spawn(self._read_output(slot, slot.warm.worker))
        return slot.warm

    async def _new_worker(self, memory_bytes_max: int) -> _Warm:
        names = ("ENVIRONMENT",)
        environment = {name: os.environ[name] for name in names if name in os.environ}
        limits = WorkerLimits(memory_bytes_max=memory_bytes_max)
        worker = await self._pool.spawn(WorkerSpec(limits=limits, environment=environment))
        reader, writer = await asyncio.open_connection(sock=worker.sock, limit=8 << 20)
        return _Warm(worker, Link(reader, writer))

    async def _read_output(self, slot: _Slot, worker: Worker) -> None:
        async for line in worker.output:
            self._say(slot, line.run or f"{slot.name}#0", line.stream, line.text)

    def _say(self, slot: _Slot, run: str, stream: str, text: str) -> None:
        node = slot.deployed
        self.journal.add(
            LogLine(
                run=run,
                graph=node.graph,
                node=node.node.key,
                title=node.node.title,
                at_ms=self._now(),
                stream=stream,
                text=text,
            )
        )

    def _keep_warm(self, slot: _Slot) -> None:
        self._idle[slot.name] = None
        while len(self._idle) > self.settings.workers_idle_max:
            name, _ = self._idle.popitem(last=False)
            self._retire(self._slots[name])

    def _retire(self, slot: _Slot) -> None:
        self._idle.pop(slot.name, None)
        warm, slot.warm = slot.warm, None
        if warm is not None:
            warm.link.close()
            self._spawn(warm.worker.kill())

    def _discard(self, slot: _Slot, number: int) -> None:
        run = slot.runs.pop(number, None)
        task = slot.tasks.pop(number, None)
        if task is not None:
            task.cancel()
            slot.busy = False
        if run is not None:
            if slot.current is run:
                slot.current = None
            slot.head = slot.latest
            for other in slot.runs.values():
                for piece in other.pieces:
                    slot.head = self._after(slot.head, piece.progress)
            self._spawn(
                asyncio.to_thread(
                    drop_folders, self._staging, run.order.stage, range(run.parts_committed, run.part + 1)
                )
            )
        self._settle(slot)
        self._look_again(slot)

    def _settle(self, slot: _Slot) -> None:
        if not any(run.outcome is not None for run in slot.runs.values()):
            slot.settled.set()

    def _note(self, slot: _Slot, run: Run, outcome: RunOutcome, ended: Outcome | None) -> None:
        node = slot.deployed
        self.journal.add(
            RunEntry(
                run=run.order.run,
                graph=node.graph,
                node=node.node.key,
                title=node.node.title,
                reasons=tuple(run.start.reasons),
                kind=outcome.kind,
                started_ms=run.started_ms,
                duration_ms=outcome.duration_ms,
                rows_in=ended.progress.rows_in if ended else 0,
                rows_out=ended.progress.rows_out if ended else 0,
                try_number=run.start.try_number,
                covers=run.start.covers,
                error=outcome.reason or None,
                traceback=ended.traceback if ended else None,
                read={table: pin.cut for table, pin in run.pins.items()},
            )
        )

    # -- commits --------------------------------------------------------------------------------------------------

    @staticmethod
    def _after(state: SlotState, progress: Progress) -> SlotState:
        return replace(state, state=progress.state, places=dict(progress.places), orders=progress.orders)

    async def _commit(self, command: Commit) -> None:
        shard, now = command.shard, self._now
        writer = self._writers.get(shard)
        if writer is None:
            return  # the shard is being opened again: nothing of this commit counts any more
        appends: list[Append] = []
        places: dict[str, dict[Partition, Place]] = {}
        states: dict[str, SlotState] = {}
        folders: list[str] = []
        for part in command.parts:
            slot = self._slots[part.slot]
            state = states.get(part.slot, slot.latest)
            run = slot.runs.get(part.run) if part.run is not None else None
            for piece in run.pieces if run is not None else ():
                state = self._after(state, piece.progress)
                appends += [Append(Partition(write.topic), write.records) for write in piece.writes]
                appends += await self._dead_letters(slot, run, piece.progress.dead_letters)
                if run is not None:
                    folders.append(f"{run.order.stage}.{piece.part}")
            if part.dead_letter and run is not None:
                found = await self._in_hand(slot, run)
                if found is not None:
                    letter = DeadLetter(
                        found.table, found.place[0], found.place[1], found.record,
                        run.outcome.reason if run.outcome else "the worker died", "",
                    )  # fmt: skip
                    appends += await self._dead_letters(slot, run, [letter])
                    state = replace(state, places={**state.places, found.table: found.next_place})
                    slot.head = replace(slot.head, places={**slot.head.places, found.table: found.next_place})
            state = replace(state, record=part.record)
            states[part.slot] = state
        for name, state in states.items():
            slot = self._slots[name]
            appends.append(Append(Partition(state_topic(slot.deployed.graph)), [state.to_record(name)]))
            group = _places(slot.deployed, state)
            if group != _places(slot.deployed, slot.latest):
                places[name.replace("/", ".")] = group
        staged = await asyncio.to_thread(sync_folders, self._staging, folders) if folders else []
        if staged:
            self._runtime.probe.reached("staged-synced")
            key = f"staged/{self._writer_name(shard)}".encode()
            topic = self.deployments[self._slots[command.parts[0].slot].deployed.graph].index_topic
            appends.append(Append(Partition(topic), [NewRecord(orjson.dumps(staged), key)]))
        if self._writers.get(shard) is not writer:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._threads, lambda: writer.commit(_merged(appends), places)
            )
        except RetriableError as error:
            _log.warning("%s; the commit is tried again", error)
            self._post(CommitRefused(now_ms=now(), shard=shard, commit=command.commit, reason=str(error)))
            return
        except OutcomeUnknownError as error:
            self._lose(shard, str(error))
            return
        except RejectedError as error:
            self._refuse(command, error)
            return
        self._runtime.probe.reached("committed")
        if staged:
            await asyncio.to_thread(mark_committed, self._staging, staged)
            self._runtime.probe.reached("staged-marked")
        for name, state in states.items():
            self._slots[name].latest = state
        for part in command.parts:
            self._committed(self._slots[part.slot], part.run, final=part.final)
        self._post(Committed(now_ms=now(), shard=shard, commit=command.commit))

    def _committed(self, slot: _Slot, number: int | None, *, final: bool) -> None:
        run = slot.runs.get(number) if number is not None else None
        if run is None:
            return
        run.pieces.clear()
        run.parts_committed = run.part
        if final:
            slot.runs.pop(run.number, None)
            self._settle(slot)
            self._runtime.probe.reached("run-committed")
        elif run.checkpoint is not None and not run.checkpoint.done():
            run.checkpoint.set_result(None)

    def _lose(self, shard: int, reason: str) -> None:
        """The shard's writer is gone: drop what the shard had in flight, and open it again."""
        for slot in self._slots.values():
            if self._shard(slot) == shard:
                for number in list(slot.runs):
                    self._discard(slot, number)
        lost = WriterLost(now_ms=self._now(), shard=shard, opening=self._openings[shard], reason=reason)
        self._post(lost)

    def _refuse(self, command: Commit, error: RejectedError) -> None:
        raise FatalError(f"a commit was refused for good: {error}") from error

    async def _dead_letters(self, slot: _Slot, run: Run | None, letters: Sequence[DeadLetter]) -> list[Append]:
        appends = []
        for letter in letters:
            table = next((t for t in slot.deployed.stores if t.topic == letter.table), None)
            if table is None:
                continue
            topic = table.dead_letters
            if topic not in self._infos:
                created = await self._call(lambda topic=topic: self.log.create_topics([TopicSpec(topic)]))  # type: ignore[misc]
                self._infos.update(created)
            record = dead_letter_record(letter, slot.name, run.order.run if run else "", self._now())
            appends.append(Append(Partition(topic), [record]))
        return appends

    # -- what the control interface asks for ----------------------------------------------------------------------

    async def trigger(self, graph: str, node_key: str, execution_type: str = "manual") -> str:
        """Ask for a run of a node; durable when this returns. Returns the request's id."""
        deployment = self.deployments[graph]
        slot = slot_name(graph, node_key)
        if slot not in deployment.nodes:
            raise UnknownNodeError(node_key, [node.node.key for node in deployment.nodes.values()])
        value = orjson.dumps({"slot": slot, "at_ms": self._now(), "type": execution_type})
        partition = Partition(deployment.triggers_topic)
        written: OffsetRange = await self._call(lambda: self.log.append(partition, [NewRecord(value)]))
        return f"{graph}-trigger-{written.start}"

    async def look(self, topic: str) -> Pin:
        """A table as it is now."""
        await self._know(topic)
        tail = self._tail(topic)
        await tail.advance()
        return await tail.pin()

    async def versions(self, topic: str) -> list[VersionView]:
        """The table's versions, oldest first."""
        pin = await self.look(topic)
        return await self._tail(topic).views(pin.cut)

    async def ask(self, graph: str, kind: str, arguments: Mapping[str, Any]) -> AsyncIterator[bytes]:
        """Have a worker answer a `query` or `read` order; yields the pieces of the answer.

        Raises `AskError` (rejected) with what the worker says went wrong.
        """
        deployment = self.deployments[graph]
        tables = list(deployment.tables.values())
        refs = [store_ref(table, self._infos[table.topic].born_ms) for table in tables]
        for table in tables:
            if table.dead_letters in await self._call(lambda t=table: self.log.topics(t.dead_letters)):  # type: ignore[misc]
                await self._know(table.dead_letters)
                born_ms = self._infos[table.dead_letters].born_ms
                name = f"{table.store.name}_dead_letters"
                refs.append(
                    replace(
                        store_ref(table, born_ms),
                        key=table.dead_letters,
                        topic=table.dead_letters,
                        name=name,
                        schema=None,
                    )
                )
        order = RunOrder(
            run=f"{graph}/{kind}",
            node=f"{graph}/{kind}",
            graph=graph,
            kind=kind,
            stores=refs,
            staging=str(self._staging),
            time_limit_s=60,
            memory_bytes_max=self.settings.memory_bytes_max,
            arguments=arguments,
        )
        start = StartRun(slot=order.node, run=0, reasons=(), rows_max=0, share_ms=0)
        run = Run(order.node, start, order, self._now(), {}, {})
        pieces: asyncio.Queue[bytes] = asyncio.Queue(maxsize=16)
        desk = Desk(run, _Tails(self), _nothing, _nothing, lambda key, payload: None, pieces.put)
        warm = await self._new_worker(self.settings.memory_bytes_max)
        talk = self._spawn(self._talk(warm, desk, order))
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
            self._spawn(warm.worker.kill())

    async def _talk(self, warm: _Warm, desk: Desk, order: RunOrder) -> str | None:
        try:
            async with asyncio.timeout(order.time_limit_s + 5):
                ended = await warm.link.converse(desk, order)
        except (EOFError, OSError):
            return str((await warm.worker.wait()).reason)
        except (TimeoutError, ProtocolError) as error:
            return str(error) or f"no answer within {order.time_limit_s:g} s"
        return None if ended.kind == "ok" else (ended.error or "it failed")

    async def _know(self, topic: str) -> None:
        if topic not in self._infos:
            found = await self._call(lambda: self.log.topics(topic))
            if topic not in found:
                raise UnknownTableError(topic, list(self._infos))
            self._infos[topic] = found[topic]

    # -- indexes --------------------------------------------------------------------------------------------------

    async def _load_indexes(self) -> None:
        for deployment in self.deployments.values():
            partition = Partition(deployment.index_topic)
            end = (await self._call(lambda p=partition: self.log.settled_ends([p])))[partition]  # type: ignore[misc]
            for record in await self._call(lambda p=partition, e=end: list(read_all(self.log, p, e))):  # type: ignore[misc]
                topic = (record.key or b"").decode()
                if topic in deployment.tables and topic not in self._tails and record.value is not None:
                    data = orjson.loads(record.value)
                    if data.get("born_ms") == self._infos[topic].born_ms:
                        tail = self._tail(topic)
                        tail.fold = TableFold.from_json(data)
                        self._indexed[topic] = tail.fold.position

    async def _save_indexes(self) -> None:
        for topic, tail in self._tails.items():
            if tail.fold.position != self._indexed.get(topic, 0):
                await self._save_index(topic, tail)

    async def _save_index(self, topic: str, tail: TableTail) -> None:
        deployment = next((d for d in self.deployments.values() if topic in d.tables), None)
        if deployment is None:
            return
        data = await tail.saved()
        record = NewRecord(orjson.dumps(data), topic.encode())
        await self._call(lambda: self.log.append(Partition(deployment.index_topic), [record]))
        self._indexed[topic] = data["position"]


class _Tails:
    """The host's tails by topic, made when they are first asked for."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def __getitem__(self, topic: str) -> TableTail:
        return self._host._tail(topic)


async def _nothing() -> None:
    return None


def _between(log: Log, partition: Partition, start: int, end: int) -> Iterator[Any]:
    while start < end:
        batch = log.read(partition, Offset(start), stop=Offset(end))
        yield from batch.records
        if batch.next <= start:
            return
        start = batch.next


def _merged(appends: Sequence[Append]) -> list[Append]:
    """One append a partition, records in order."""
    merged: dict[Partition, list[NewRecord]] = {}
    for append in appends:
        merged.setdefault(append.partition, []).extend(append.records)
    return [Append(partition, records) for partition, records in merged.items()]


def _places(node: DeployedNode, state: SlotState) -> dict[Partition, Place]:
    """What the slot's consumer group shows: where it streams on, or what it has seen, in each table it reads."""
    places: dict[Partition, Place] = {}
    for table in node.spec.reads:
        place = state.places.get(table)
        seen = state.record.seen.get(table, {}).get(0)
        if table in state.record.streamed and place is not None:
            places[Partition(table)] = Place(Offset(place[0]), str(place[1]) if place[1] else "")
        elif seen is not None:
            places[Partition(table)] = Place(Offset(seen))
    return places


def _name_of(table: str, place: tuple[int, int]) -> str:
    """The next record after a place, in the engine's words."""
    return f"{table}@{place[0]}.{place[1]}"


def _short(name: str) -> str:
    """A slot's name as part of a folder's."""
    return hashlib.blake2b(name.encode(), digest_size=6).hexdigest()
