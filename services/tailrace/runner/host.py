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
import logging
import os
import shutil
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tailrace.engine import (
    CheckpointWanted,
    CloseShard,
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
    Own,
    RunEnded,
    RunOutcome,
    ShardOpened,
    SlotsFound,
    Standing,
    StartRun,
    Tick,
    Triggered,
    WakeAt,
    WriterLost,
    shard_of,
)
from tailrace.errors import RejectedError, RetriableError, TailraceError
from tailrace.graph import App
from tailrace.lake import StagingArea
from tailrace.log import Append, FencedError, Log, NewRecord, Offset, OffsetRange, OutcomeUnknownError, Partition, scan
from tailrace.node import _process
from tailrace.node.protocol import Outcome, RunOrder
from tailrace.runner.answers import AnswerSender
from tailrace.runner.asking import ask, question
from tailrace.runner.catalog import Catalog, FetchSnapshot
from tailrace.runner.deadletters import record_in_hand
from tailrace.runner.deployment import (
    DeployedNode,
    Deployment,
    check_parallelism,
    dead_letters_ref,
    resolve_parameters,
    store_ref,
    unset_parameters,
)
from tailrace.runner.environments import Environments, environment_of
from tailrace.runner.given import letters_from_json
from tailrace.runner.journal import Journal, LogLine, RunEntry
from tailrace.runner.lettersback import LettersBack
from tailrace.runner.lineage import Lineage, lineage_of
from tailrace.runner.moments import together
from tailrace.runner.outcomes import outcome_of_death, outcome_of_end
from tailrace.runner.pools import WorkerPools
from tailrace.runner.reach import Ground, cpu_s_max, slot_folder, staging_key
from tailrace.runner.removed import RemovedNodes
from tailrace.runner.replay import REPLAYS_FOLDER, Replay, ReplayWishes
from tailrace.runner.requests import RunRequest, request_at
from tailrace.runner.runs import Desk, ProtocolError, Run, check_sizes
from tailrace.runner.settings import RunnerSettings
from tailrace.runner.shards import Shards
from tailrace.runner.slot import Slot, after
from tailrace.runner.slots import SlotState
from tailrace.runner.tails import Pin
from tailrace.runner.tenure import Alone, Tenure
from tailrace.runner.transaction import build
from tailrace.runner.upkeep import trim_before
from tailrace.runner.usage import Meter, Usage
from tailrace.runner.workers import WorkerStartError
from tailrace.runner.workforce import Workforce
from tailrace.runtime import Runtime
from tailrace.tables import (
    Answer,
    StagedFiles,
    VersionView,
    index_topic,
    lane_of,
    split_lane,
    topic_of,
)

__all__ = ["Host", "UnknownNodeError"]

SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep Python's lock from the event loop. With Python's own 5 ms each step of a run waits that long
while a thread folds a table, and there are a dozen steps in a run."""

_URGENCY = ("stopped", "failed", "paused", "retrying", "opening", "running", "due", "idle")

T = TypeVar("T")
_log = logging.getLogger(__name__)


class UnknownNodeError(RejectedError):
    """The app has no such node that runs."""

    def __init__(self, key: str, known: Sequence[str]) -> None:
        self.key, self.known = key, list(known)
        super().__init__(f"there is no node {key!r} that runs; there are: {', '.join(sorted(known)) or 'none'}")


class Host:
    """Runs the nodes of the deployed apps.

    Args:
        log: where everything is; the host does not close it.
        data_dir: folder for staged files and the workers' own.
        respond: called with a node's answer to a webhook's request; whether a gateway in this process held it. Others get
            theirs by the log.
        failed: called once when the host must stop: another host has taken over, or a bug of ours.
        fetch: brings the files of a snapshot to this machine; without it nothing is read from a lake.
        staging: where staged files go; without it below `data_dir`, for this machine alone.
        lake_dir: the folder below which it brings them; workers may read what is there of their app.
        tenure: knows whose the shards are; without it all are this host's from the start.
    """

    def __init__(
        self,
        log: Log,
        *,
        data_dir: Path,
        runtime: Runtime,
        settings: RunnerSettings | None = None,
        respond: Callable[[Answer], bool] = lambda answer: False,
        failed: Callable[[BaseException], None] = lambda error: None,
        fetch: FetchSnapshot | None = None,
        staging: StagingArea | None = None,
        lake_dir: Path | None = None,
        tenure: Tenure | None = None,
    ) -> None:
        self.log = log
        self.settings = settings or RunnerSettings()
        self.journal = Journal(log, runtime.clock, f"{socket.gethostname()}-{runtime.random.randrange(1 << 32):08x}")
        self.deployments: dict[str, Deployment] = {}
        self._data_dir = data_dir
        self._staging = staging or StagingArea(data_dir / "staging")
        self._staging_key = b""
        self._tenure = tenure or Alone()
        self._owned = frozenset[int]()
        self._runtime = runtime
        self._respond = respond
        self._answers = AnswerSender(log, runtime.clock, self._call)
        self._failed = failed
        self._engine = Engine(
            shards=self.settings.shards,
            limits=EngineLimits(
                runs_max=self.settings.runs_max,
                retry_pauses_ms=tuple(int(pause.total_seconds() * 1000) for pause in self.settings.retry_pauses),
            ),
            pipeline=True,
        )
        environments = Environments(data_dir / "environments", probe=runtime.probe)
        self._pools = WorkerPools(data_dir / "workers", environments, container_image=self.settings.container_image)
        ground = Ground(staging=self._staging.folder.absolute(), lake=lake_dir.absolute() if lake_dir else None)
        self._workforce = Workforce(self._pools, ground, self.settings, self._spawn, self._say)
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="log")
        self._writing = ThreadPoolExecutor(max_workers=8, thread_name_prefix="log-writers")
        """Reads may wait for a transaction to end, and an opened writer ends those of its name: it never waits for reads."""
        self._slots: dict[str, Slot] = {}
        self._unclaimed: dict[str, SlotState] = {}
        """What nodes that are not deployed now remember."""
        self._catalog = Catalog(log, self.settings, lambda: self.deployments, self._call, fetch, self._staging)
        self._shards = Shards(log, self.settings.shards, self._staging, runtime, self._call, self._writing)
        self.removed = RemovedNodes(
            self._shards,
            self._slots,
            self._unclaimed,
            runtime,
            kept=self.settings.removed_retention,
            lose=self._lose,
            fenced=self._tenure.taken,
        )
        self._readers: dict[str, set[str]] = {}
        self._behind: set[str] = set()
        """Tables whose log goes on past their fold, while all their readers are busy anyway."""
        self._caught_up: set[str] = set()
        """Tables whose fold had reached the log's end when they were last looked at."""
        self._refreshing: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._triggers: dict[str, Offset] = {}
        self._letters_back = LettersBack(log, self._call, self._spawn)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wake: asyncio.TimerHandle | None = None
        self._watch = log.watch()
        self._stopping = False
        self._quiet = asyncio.Event()
        """Set once nothing runs or waits to be committed, after the stop has begun."""
        if tenure is None:
            self.own(frozenset(range(self.settings.shards)))

    # -- life -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Make ready to deploy; workers are prepared in the background."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        await asyncio.to_thread(self._staging.start)
        self._staging_key = await asyncio.to_thread(staging_key, self._data_dir, self._runtime.random)
        _process.close_to_others()
        shutil.rmtree(self._staging.folder / REPLAYS_FOLDER, ignore_errors=True)
        await self._pools.start()
        self._spawn(self._listen())
        self._spawn(self.journal.read_others())
        self._spawn(self._trim_history())
        self._spawn(self._look_after_writers())
        self._spawn(self._workforce.rest())

    async def deploy(self, deployments: Sequence[Deployment]) -> None:
        """These are the apps from now on. Nodes that are gone or have changed end their run first."""
        await self.prepare([deployment.app for deployment in deployments])
        await self._workforce.prepare(node for deployment in deployments for node in deployment.nodes.values())
        specs = [spec for deployment in deployments for spec in deployment.topics()]
        await self._catalog.create(specs)
        for deployment in deployments:
            self._catalog.check_partitions(deployment)
            if deployment.graph not in self.deployments:
                await self.journal.load(deployment.graph, deployment.journal_topic)
        new = {deployment.graph for deployment in deployments} - self.deployments.keys()
        self.deployments = {deployment.graph: deployment for deployment in deployments}
        await self._catalog.load_indexes()
        for deployment in deployments:
            for slot, node in deployment.nodes.items():
                known = self._slots.get(slot)
                if known is None:
                    state = self._unclaimed.pop(slot, SlotState())
                    known = self._slots[slot] = Slot(slot, node, latest=state, head=state)
                    known.settled.set()
                else:
                    if known.deployed.app_dir != node.app_dir and known.current is None:
                        self._workforce.retire(known)
                    known.deployed = node
        running = {slot for deployment in deployments for slot in deployment.nodes}
        for gone in [each for name, each in self._slots.items() if name not in running and each.current is None]:
            self._workforce.retire(gone)
        if new:
            await self._recall(sorted(new))
        self._post(
            Deploy(
                now_ms=self._now(),
                specs=tuple(node.spec for deployment in deployments for node in deployment.nodes.values()),
            )
        )
        self._follow_tables()
        self._watch.add([Partition(deployment.triggers_topic) for deployment in deployments])
        self._watch.add([Partition(deployment.index_topic) for deployment in deployments])

    async def _recall(self, graphs: Sequence[str]) -> None:
        """Find out what the nodes of new apps remember, without a pause for those of the others."""
        for shard in list(self._shards.openings):
            states = await self._shards.recall(shard, graphs)
            if states is None:
                self._lose(shard, "another app was deployed")  # it may be opened without the new app by now
                continue
            for name, state in states.items():
                if name in self._slots:
                    self._slots[name].rebase(state)
                else:
                    self._unclaimed[name] = state
            records = {name: state.record for name, state in states.items()}
            self._post(SlotsFound(now_ms=self._now(), records=records))

    @property
    def owned(self) -> frozenset[int]:
        """The shards that are this host's now."""
        return self._owned

    @property
    def nodes(self) -> list[str]:
        """The slots of deployed nodes in them."""
        slots = [name for deployment in self.deployments.values() for name in deployment.nodes]
        return [name for name in slots if shard_of(name, self.settings.shards) in self._owned]

    @property
    def running(self) -> int:
        """Runs that go on."""
        return sum(slot.busy for slot in self._slots.values())

    @property
    def workers(self) -> int:
        """Workers of nodes that are up."""
        return sum(slot.warm is not None for slot in self._slots.values())

    def own(self, shards: frozenset[int]) -> None:
        """These shards are this host's from now on. Workers of the others go; what stays goes on undisturbed."""
        if shards == self._owned:
            return
        self._owned = shards
        self._post(Own(now_ms=self._now(), shards=shards))
        self._follow_tables()

    def _follow_tables(self) -> None:
        """Listen to the tables that our nodes read, and to no others: each is read once by each runner that has a reader."""
        before, self._readers = self._readers, {}
        for deployment in self.deployments.values():
            for slot, node in deployment.nodes.items():
                if slot in self._slots and self._shard(self._slots[slot]) in self._owned:
                    for table in node.spec.reads:
                        self._readers.setdefault(table, set()).add(slot)
        gone = before.keys() - self._readers.keys()
        self._behind -= gone
        self._caught_up -= gone
        self._watch.remove([Partition(*split_lane(table)) for table in gone])
        self._watch.add([Partition(*split_lane(table)) for table in self._readers.keys() - before.keys()])

    async def prepare(self, apps: Iterable[App]) -> None:
        """Have the environments of apps that are about to be deployed. What is deployed goes on meanwhile.

        Raises:
            EnvironmentBuildError: rejected; an app's requirements do not install.
            ParallelismError: rejected; a node's slots would lose their places.
        """
        for app in apps:
            await self._call(partial(check_parallelism, self.log, app))
            environment = environment_of(app)
            if environment is not None:
                await asyncio.to_thread(self._pools.environments.build, environment)

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
                await self._catalog.save_indexes()
                await self.journal.close()
                await self._answers.close()
        await self._pools.close()
        self._watch.close()
        self._shards.close()
        for threads in (self._threads, self._writing):
            threads.shutdown(wait=False, cancel_futures=True)

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

    async def _call(self, function: Callable[[], T], threads: Executor | None = None, /) -> T:
        """A call of the log, in a thread; tried again for as long as the log is away."""
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(threads or self._threads, function)
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
                self._shards.openings[command.shard] = command.opening
                self._spawn(self._open_shard(command))
            case CloseShard():
                del self._shards.openings[command.shard]
                self._shards.lose(command.shard)
                for slot in self._slots.values():
                    if self._shard(slot) == command.shard:
                        self._workforce.retire(slot)
                self._spawn(self._shards.release(command.shard))
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

    async def _open_shard(self, command: OpenShard) -> None:
        shard, opening = command.shard, command.opening
        index_topics = [deployment.index_topic for deployment in self.deployments.values()]
        if not self._tenure.may_open():
            reason = "it is not sure yet whose the shard is"
            self._post(WriterLost(now_ms=self._now(), shard=shard, opening=opening, reason=reason))
            return
        try:
            states = await self._shards.open(shard, opening, list(self.deployments), index_topics)
        except (OutcomeUnknownError, FencedError) as error:
            self._post(WriterLost(now_ms=self._now(), shard=shard, opening=opening, reason=str(error)))
            return
        if states is None:
            return
        for slot in self._slots.values():
            if self._shard(slot) == shard:
                slot.restore(states.get(slot.name, SlotState()))
        for name in [name for name in self._unclaimed if self._shards.of(name) == shard]:
            del self._unclaimed[name]  # another host may have let go of it
        self._unclaimed |= {name: state for name, state in states.items() if name not in self._slots}
        records = {name: state.record for name, state in states.items()}
        self._post(ShardOpened(now_ms=self._now(), shard=shard, opening=opening, records=records))
        for slot in self._slots.values():
            if self._shard(slot) == shard:
                self._look_again(slot)

    # -- news -----------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            for partition in await self._watch.wait():
                self._refresh(lane_of(*partition))

    def _refresh(self, topic: str) -> None:
        """Look at what is new in a topic, or a lane of one; at once, or once more when it is being looked at already."""
        if topic in self._refreshing:
            self._again.add(topic)
            return
        self._caught_up.discard(topic)
        if topic in self._readers:
            work = self._read_news(topic)
        elif any(topic == deployment.index_topic for deployment in self.deployments.values()):
            work = self._catalog.follow(topic)
        elif any(topic == deployment.triggers_topic for deployment in self.deployments.values()):
            work = self._read_triggers(topic)
        else:  # it is not listened to any more
            return
        task = self._refreshing[topic] = self._spawn(work)
        task.add_done_callback(lambda _: self._refreshed(topic))

    def _refreshed(self, topic: str) -> None:
        self._refreshing.pop(topic, None)
        if topic in self._again and not self._stopping:
            self._again.discard(topic)
            self._refresh(topic)

    async def _read_news(self, topic: str) -> None:
        tail = self._catalog[topic]
        while True:
            if self._far_enough(topic, tail.fold.position):
                self._behind.add(topic)  # whoever ends or begins a run next looks again
                return
            at_end = await tail.advance(until=tail.fold.position + self.settings.scan_records_max)
            last = {writer: {0: offset} for writer, offset in dict(tail.fold.last_by_writer).items()}
            self._post(News(now_ms=self._now(), table=topic, last=last))
            await self._catalog.save_index(topic, every_offsets=self.settings.index_every_offsets)
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
        for batch in await self._call(lambda: list(scan(self.log, partition, start, end))):
            for record in batch.records:
                request = RunRequest.of(record)
                if request is not None:  # its node may be deployed here only in a moment
                    self._letters_back.wish(request.slot, int(record.offset), letters_from_json(request.letters))
                    self._post(Triggered(now_ms=self._now(), slot=request.slot, offset=int(record.offset)))
        self._triggers[topic] = end

    async def _trim_history(self) -> None:
        """Let go, now and then, of runs, lines and triggers that are older than `history_retention`, and of removed nodes."""
        while True:
            await asyncio.sleep(self.settings.history_interval.total_seconds())
            before_ms = self._now() - int(self.settings.history_retention.total_seconds() * 1000)
            for deployment in list(self.deployments.values()):
                topics = (deployment.journal_topic, deployment.triggers_topic)
                with contextlib.suppress(RejectedError):
                    await trim_before(self.log, topics, before_ms, self._call)
            if self._tenure.may_open():
                await self.removed.look(self.deployments, self._owned, self._at_work)

    def _at_work(self) -> set[str]:
        """Slots whose nodes are deployed, or have runs all the same."""
        deployed = {slot for each in self.deployments.values() for slot in each.nodes}
        return deployed | {name for name, slot in self._slots.items() if slot.busy or slot.runs}

    def _answer(self, graph: str, answer: Answer) -> None:
        if not self._respond(answer):
            self._spawn(self._answers.send(graph, answer))

    # -- runs -----------------------------------------------------------------------------------------------------

    async def _run(self, slot: Slot, start: StartRun) -> None:
        run = await self._begin(slot, start)
        began_s = self._runtime.clock.monotonic_s()
        ended: Outcome | None = None
        reason = ""
        used = Usage()
        try:
            if slot.warm is None:
                self._look_at_outputs(slot)
            warm = await self._workforce.engage(slot, run.order)
            meter = Meter(warm.worker.pid)
            desk = Desk(
                run,
                self._catalog,
                slot.settled.wait,
                lambda: self._checkpoint(slot, run),
                lambda answer: self._answer(slot.deployed.graph, answer),
                say=lambda level, text: self._say(slot, run.order.run, "tailrace", f"{level}: {text}"),
                record_bytes_max=self.log.limits.record_bytes_max,
                look_back=partial(self._look_back, slot.deployed.graph),
            )
            limit_s = run.order.time_limit_s + self.settings.time_limit_grace.total_seconds()
            try:
                async with asyncio.timeout(limit_s):
                    warm.worker.output.begin_run(run.order.run)
                    ended = await warm.link.converse(desk, run.order)
                    warm.worker.output.end_run()
                used = meter.read()
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
            self._workforce.retire(slot)
            raise
        duration_ms = int((self._runtime.clock.monotonic_s() - began_s) * 1000)
        slot.current, slot.busy = None, False
        current = slot.deployed.app_dir == Path(run.order.app_dir)
        if ended is None or ended.leftovers or ended.kind != "ok" or not (current and warm.lasting):
            self._workforce.retire(slot)
        else:
            self._workforce.keep(slot)
        if ended is not None:
            outcome = outcome_of_end(run, ended, duration_ms)
            run.close_piece(ended.progress)
            slot.head = after(slot.head, run.pieces[-1].progress)
        else:
            run.writes = []
            outcome = await self._death(slot, run, reason, duration_ms)
        if run.given is not None:
            record = self._engine.record(slot.name) or slot.head.record
            outcome = self._letters_back.take_back(run, record, ended, outcome)
        run.outcome = outcome
        run.entry = self._entry(slot, run, outcome, ended, used)
        slot.settled.clear()
        self._runtime.probe.reached("run-ended")
        self._post(RunEnded(now_ms=self._now(), slot=slot.name, run=run.number, outcome=outcome))
        self._look_again(slot)

    def _look_at_outputs(self, slot: Slot) -> None:
        """A new worker's first run asks what the node's outputs hold. That is found out while the worker is being made,
        which takes about as long on Kafka, where a reader begins with a connection."""

        async def look(table: str) -> None:
            with contextlib.suppress(RejectedError):  # the run will be told, if it asks
                await self._catalog[table].advance(settled=True)

        for table in slot.deployed.spec.writes - slot.deployed.spec.reads:
            self._spawn(look(table))

    def _look_again(self, slot: Slot) -> None:
        for table in slot.deployed.spec.reads:
            if table in self._behind:
                self._behind.discard(table)
                self._refresh(table)

    async def _begin(self, slot: Slot, start: StartRun) -> Run:
        node = slot.deployed
        head = slot.head
        record = self._engine.record(slot.name) or head.record
        pins: dict[str, Pin] = {}
        waits_for_news = set(start.reasons) <= {"news", "more", "retry"}
        asked_for = "trigger" in start.reasons  # whoever asked may have seen what others committed a moment ago
        for table in node.spec.reads:
            tail = self._catalog[table]
            await self._catalog.catch_up(table)
            fresh = waits_for_news and table in self._caught_up
            if table in record.streamed:
                place = head.places.get(table, (0, 0))[0]
                enough = place + min(start.rows_max, self.settings.scan_records_max)
                if not (fresh and tail.fold.position > place) and tail.fold.position < enough:
                    await tail.advance(until=enough, settled=asked_for)
            elif not fresh:
                await tail.advance(settled=asked_for)
            pins[table] = await tail.pin()
        number = start.run
        stage = self._shards.stage(self._shard(slot), str(number), slot_folder(slot.name, self._staging_key))
        order = self._order(
            node,
            run=f"{slot.name}#{number}",
            state=head.state,
            places=head.places,
            orders=head.orders,
            cuts={table: pin.cut for table, pin in pins.items()},
            reason=",".join(start.reasons),
            try_number=start.try_number,
            dead_letter=start.dead_letter_after_failure,
            rows_max=start.rows_max,
            share_s=start.share_ms / 1000,
            stage=stage,
        )
        known = {table: self._catalog.snapshots(table, pin.view) for table, pin in pins.items()}
        given = await self._letters_back.give(slot, start, order.run, record, pins)
        order = given.order(order) if given is not None else order
        run = Run(slot.name, start, order, self._now(), pins, dict(pins), known, given=given, node=node)
        slot.runs[number] = slot.current = run
        self._look_again(slot)  # reads ahead while the worker is at work
        self._runtime.probe.reached("run-begun")
        return run

    def _order(self, node: DeployedNode, **of_the_run: Any) -> RunOrder:
        """An order to run a node as it is deployed."""
        return RunOrder(
            node=node.slot,
            graph=node.graph,
            kind=node.node.kind,
            app_dir=str(node.app_dir),
            file=node.node.node_file or "",
            inputs=node.inputs,
            outputs=node.outputs,
            stores=[
                store_ref(table, self._catalog.born_ms(table.topic), node.number, node.slots) for table in node.stores
            ],
            schemas=node.schemas,
            parameters=resolve_parameters(node.node.parameter_values, os.environ),
            unset=unset_parameters(node.node.parameter_values, os.environ),
            again=bool(node.spec.retries) or node.spec.stops,
            time_limit_s=node.spec.timeout_ms / 1000,
            memory_bytes_max=node.node.memory_bytes or self.settings.memory_bytes_max,
            cpu_s_max=cpu_s_max(node.node.cpu_s, node.spec.timeout_ms / 1000, self.settings.cpu_limit),
            staging=str(self._staging.folder),
            **of_the_run,
        )

    def _shard(self, slot: Slot) -> int:
        return shard_of(slot.name, self.settings.shards)

    async def _death(self, slot: Slot, run: Run, reason: str, duration_ms: int) -> RunOutcome:
        """The outcome of a run whose worker is gone; finds out which record it had in hand."""
        record = self._engine.record(slot.name) or slot.head.record
        run.streamed = (run.streamed | record.streamed) & set(run.pins)
        places = slot.head.places
        for table in sorted(run.streamed) if run.given is None else ():
            place = places.get(table, (0, 0))
            if run.in_hand is not None and topic_of(table) != topic_of(run.in_hand.table):
                break
            with contextlib.suppress(RejectedError):  # one that nobody can read is not told from none
                found = await record_in_hand(self._catalog, table, run.pins[table], place, self._files())
                # Of the partitions of a table the one with the least id comes first.
                if found is not None and (run.in_hand is None or found.before(run.in_hand)):
                    run.in_hand = found
        return outcome_of_death(run, places, run.in_hand, reason, duration_ms)

    def _files(self) -> StagedFiles:
        return StagedFiles(self._staging.folder, self._staging.fetch)

    async def _checkpoint(self, slot: Slot, run: Run) -> None:
        run.checkpoint = asyncio.get_running_loop().create_future()
        slot.head = after(slot.head, run.pieces[-1].progress)
        owes = self._letters_back.owes(run)
        self._post(CheckpointWanted(now_ms=self._now(), slot=slot.name, run=run.number, owes=owes))
        await run.checkpoint

    def _say(self, slot: Slot, run: str | None, stream: str, text: str) -> None:
        node = slot.deployed
        self.journal.add(
            LogLine(
                run=run or f"{slot.name}#0",
                graph=node.graph,
                node=node.node.key,
                title=node.node.title,
                at_ms=self._now(),
                stream=stream,
                text=text,
            )
        )

    def _discard(self, slot: Slot, number: int) -> None:
        run = slot.drop(number)
        task = slot.tasks.pop(number, None)
        if task is not None:
            task.cancel()
            slot.busy = False
        if run is not None and run.given is not None:
            self._letters_back.put_back(run.given)
        if run is not None:
            # What is closed may be in a commit whose outcome nobody knows; the next opening tells, and lets go of the rest.
            self._spawn(asyncio.to_thread(self._staging.drop, [f"{run.order.stage}.{run.part}"]))
        self._look_again(slot)

    def _entry(self, slot: Slot, run: Run, outcome: RunOutcome, ended: Outcome | None, used: Usage) -> RunEntry:
        """What is told of a run once it is committed: then its rows are there for whoever is told."""
        node = run.node or slot.deployed
        return RunEntry(
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
            fire_ms=run.start.fire_ms,
            trigger=run.start.trigger,
            error=outcome.reason or None,
            traceback=ended.traceback if ended else None,
            read={table: pin.cut for table, pin in run.pins.items()},
            places=dict(run.order.places),
            again=ended.retry if ended else False,
            version=node.spec.version,
            code=node.app_dir.parent.name,
            began={"state": run.order.state, "orders": run.order.orders},
            cpu_ms=used.cpu_ms,
            memory_bytes=used.memory_bytes,
        )

    # -- commits --------------------------------------------------------------------------------------------------

    async def _commit(self, command: Commit) -> None:
        shard = command.shard
        transaction = build(command.parts, self._slots, self._now())
        for letters in transaction.dead_letter_topics:
            await self._catalog.ensure(letters)
        topic = index_topic(self._slots[command.parts[0].slot].deployed.graph)
        try:
            commit = await self._shards.commit(shard, command.opening, transaction, topic)
        except RetriableError as error:
            _log.warning("%s; the commit is tried again", error)
            refused = CommitRefused(now_ms=self._now(), shard=shard, commit=command.commit, reason=str(error))
            self._post(refused)
            return
        except OutcomeUnknownError as error:
            self._lose(shard, str(error))
            return
        except FencedError as error:
            self._tenure.taken(shard, error)
            return
        if commit is None:
            return  # the shard is opened again: nothing of this commit counts any more
        for part in command.parts:
            if part.run is not None:
                slot = self._slots[part.slot]
                if part.run in slot.runs:
                    slot.runs[part.run].mark_written(commit)
                run = slot.committed(part.run, final=part.final)
                if run is not None and run.entry is not None:
                    self.journal.add(replace(run.entry, wrote=run.wrote))
                if part.final:
                    self._runtime.probe.reached("run-committed")
        for name, state in transaction.states.items():
            self._slots[name].rebase(state)
        self._post(Committed(now_ms=self._now(), shard=shard, commit=command.commit))

    async def _look_after_writers(self) -> None:
        """Open anew those that lost the log while they had nothing to write: until then others may wait for what they wrote
        last."""
        while True:
            await asyncio.sleep(self.settings.writer_interval.total_seconds())
            if self._stopping:  # another host may have taken over: opening a writer would take it back
                return
            for shard in self._shards.lost():
                self._lose(shard, "the log was away")

    def _lose(self, shard: int, reason: str) -> None:
        """The shard's writer is gone: drop what the shard had in flight, and open it again."""
        self._shards.lose(shard)
        for slot in self._slots.values():
            if self._shard(slot) == shard:
                for number in list(slot.runs):
                    self._discard(slot, number)
        opening = self._shards.openings.get(shard)
        if opening is not None:  # else it is another host's by now
            self._post(WriterLost(now_ms=self._now(), shard=shard, opening=opening, reason=reason))

    # -- what the control interface asks for ----------------------------------------------------------------------

    async def trigger(self, graph: str, node_key: str, execution_type: str = "manual") -> str:
        """Ask for a run of a node; durable when this returns. Returns the request's id."""
        deployment = self.deployments[graph]
        slots = deployment.slots_of(node_key)
        if not slots:
            raise UnknownNodeError(node_key, [node.node.key for node in deployment.nodes.values()])
        requests = [RunRequest(slot=slot, at_ms=self._now(), kind=execution_type).to_record() for slot in slots]
        partition = Partition(deployment.triggers_topic)
        written: OffsetRange = await self._call(lambda: self.log.append(partition, requests))
        return f"{graph}-trigger-{written.start}"

    def now_ms(self) -> int:
        """The time of this host's clock."""
        return self._now()

    async def standings(self, graph: str) -> dict[str, tuple[Standing, int]]:
        """How each node of an app that runs stands, by its key, and how far it is behind: at least as many records as
        it has not seen, 0 where there are none."""
        found: dict[str, tuple[Standing, int]] = {}
        behind = {slot: self._engine.behind(slot) for slot in self.deployments[graph].nodes}
        tables = {Partition(*split_lane(table)) for each in behind.values() for table in each}
        ends = await self._call(lambda: self.log.ends(list(tables))) if tables else {}
        for name, node in self.deployments[graph].nodes.items():
            slot = self._slots[name]
            record = self._engine.record(name) or slot.head.record
            lag = 0
            for table in behind[name]:
                at = slot.head.places.get(table, (0, 0))[0]
                if table not in record.streamed:
                    at = record.seen.get(table, {}).get(0, 0)
                lag += max(0, ends[Partition(*split_lane(table))] - at)
            standing = self._engine.standing(name, self._now())
            if node.number:  # of a node's slots the one that is in most trouble tells
                other, others_lag = found[node.node.key]
                standing, lag = min(standing, other, key=lambda each: _URGENCY.index(each.kind)), lag + others_lag
            found[node.node.key] = standing, lag
        return found

    async def look(self, topic: str) -> Pin:
        """A table as it is now. Raises `UnknownTableError` (rejected)."""
        return await self._catalog.look(topic)

    async def mark(self, topic: str, marker: NewRecord) -> None:
        """Write a marker of a table, in all its partitions at once."""
        lanes = [Partition(*split_lane(lane)) for lane in self._catalog.lanes(topic)]
        if len(lanes) == 1:
            await self._call(lambda: self.log.append(lanes[0], [marker]))
            return

        def commit() -> None:
            writer = self.log.open_writer(f"mark/{topic}")
            try:
                writer.commit([Append(lane, [marker]) for lane in lanes])
            finally:
                writer.close()

        await self._call(commit)

    async def versions(self, topic: str) -> list[VersionView]:
        """The table's versions, oldest first. Raises `UnknownTableError` (rejected)."""
        return await self._catalog.versions(topic)

    async def first_offsets(self, topic: str) -> Mapping[str, Mapping[str, int]]:
        """By version and lane, where the version's messages begin."""
        return await self._catalog.first_offsets(topic)

    async def cuts_at(self, graph: str, at_ms: int) -> dict[str, int]:
        """For each table of an app, by topic, where it stood at a moment: positions that belong together, so no run is
        in them in part, or without what it had read. -1 where nobody knows."""
        cuts: dict[str, int] = {}
        unknown = []
        for topic in [
            t for table in self.deployments[graph].tables.values() for t in (*table.lanes, table.dead_letters)
        ]:
            if await self._catalog.know(topic):
                position = await self._catalog.position_at(topic, at_ms)
                if position is None:
                    unknown.append(topic)
                else:
                    cuts[topic] = position
        if unknown:  # a trimmed log does not tell any more; runs of that time do
            cuts |= await self.journal.positions_before(graph, at_ms, unknown)
        cuts = together(cuts, await self.journal.runs_around(graph, at_ms))
        return {**dict.fromkeys(unknown, -1), **cuts}

    async def _look_back(self, graph: str, table: str, at_ms: int, before: int) -> Pin:
        """A table as it was at a moment, but no later than `before`; raises `PastGoneError` (rejected)."""
        cuts = await self.cuts_at(graph, at_ms)
        return await self._catalog.pin_at(table, min(cuts.get(table, 0), before))

    async def cuts_of_run(self, graph: str, run: str) -> dict[str, int]:
        """What a run read, and for all other tables of its app where they stood when it began.

        Raises:
            UnknownRunError: rejected; the app's journal has no such run.
        """
        entry = await self.journal.look_up(graph, run)
        return {**await self.cuts_at(graph, entry.started_ms), **entry.read}

    async def ask(
        self, graph: str, kind: str, arguments: Mapping[str, Any], *, at: Mapping[str, int] | None = None
    ) -> AsyncIterator[bytes]:
        """Have a worker answer a `query` or `read` order; yields the pieces of the answer.

        Args:
            at: by topic, the position as of which a table is read; those that are missing, as they are now.

        Raises:
            AskError: rejected; with what the worker says went wrong, so that the past of a table is gone.
        """
        stores = []
        for table in self.deployments[graph].tables.values():
            stores.append(store_ref(table, self._catalog.born_ms(table.topic)))
            if await self._catalog.know(table.dead_letters):
                stores.append(dead_letters_ref(table, self._catalog.born_ms(table.dead_letters)))
        order = question(graph, kind, stores, str(self._staging.folder), arguments)
        async for piece in ask(order, self._catalog, self._workforce.hire, self._now(), at or {}):
            yield piece

    async def replay(self, graph: str, run: str, wishes: ReplayWishes) -> AsyncGenerator[dict[str, Any], None]:
        """Run an earlier run again, into tables that nobody else sees; yields what happens, in the end how the rows
        differ (`Replay.events`).

        Raises:
            UnknownRunError: rejected; the app's journal has no such run.
            UnknownNodeError: rejected; its node is not deployed any more.
            StateNotKeptError, PastGoneError, WrittenGoneError: rejected; what it takes is gone.
        """
        entry = await self.journal.find(graph, run)
        nodes = self.deployments[graph].nodes
        node = nodes.get(run.rpartition("#")[0])
        if node is None:
            raise UnknownNodeError(entry.node, [each.node.key for each in nodes.values()])
        cuts = await self.cuts_at(graph, entry.started_ms)
        cuts |= {table: start for table, (start, _) in entry.wrote.items()}
        replay = Replay(
            entry,
            self._order(node, run=entry.run),
            {**dict.fromkeys((lane for table in node.stores for lane in table.lanes), 0), **cuts, **entry.read},
            wishes,
            node=node,
            log=self.log,
            catalog=self._catalog,
            call=self._call,
            hire=self._workforce.hire,
            clock=self._runtime.clock,
            look_back=partial(self._look_back, graph),
            grace_s=self.settings.time_limit_grace.total_seconds(),
        )
        async with contextlib.aclosing(replay.events()) as events:
            async for event in events:
                yield event

    async def run(self, graph: str, run: str) -> tuple[RunEntry, Lineage, RunRequest | None]:
        """A run with all that is known of it, the runs next to it, and the request that it answered.

        Raises:
            UnknownRunError: rejected; the app's journal has no such run.
        """
        entry = await self.journal.find(graph, run)
        request = (
            None if entry.trigger is None else await self._call(partial(request_at, self.log, graph, entry.trigger))
        )
        return entry, lineage_of(entry, await self.journal.all_runs(graph)), request
