"""A whole house as a process of its own, to be killed; its argument is a file of settings.

Its probe counts runs in a file that survives the kill, and may end the process at a named point. A planted fault
breaks one promise on purpose: the test that uses it must notice.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import signal
import struct
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from tailrace.cli.house import House, HouseSettings
from tailrace.log import Append, Commit, FencedError, NewRecord, OutcomeUnknownError, Partition, Place, open_log
from tailrace.runner import RunnerSettings
from tailrace.runtime import Probe, Runtime

LOG_FAULTS = (
    "place outside the transaction",
    "marker after rows",
    "no fencing",
    "outcome unknown",  # no fault of ours: what a network may do at any time
    "commit number ignored",
)
COUNTERS = struct.Struct("<QQ")


class CountingProbe(Probe):
    """Counts runs that were begun and committed in a shared file, and kills at the nth time of a point."""

    def __init__(self, path: str, kill_at: str | None, nth: int) -> None:
        with Path(path).open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), COUNTERS.size)
        self._kill_at, self._left = kill_at, nth

    def reached(self, point: str) -> None:
        begun, committed = COUNTERS.unpack_from(self._map)
        if point == "run-begun":
            begun += 1
        elif point == "run-committed":
            committed += 1
        COUNTERS.pack_into(self._map, 0, begun, committed)
        if point == self._kill_at:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class FaultyLog:
    """Wraps a log so that its writers misbehave in the way a fault asks for."""

    def __init__(self, log: Any, fault: str) -> None:
        self._log, self._fault = log, fault

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def open_writer(self, name: str) -> Any:
        return FaultyWriter(self, self._log.open_writer(name), self._fault)


class FaultyWriter:
    unknown_every = 5
    """Commits from one lost answer to the next: seldom enough for work to go on, often enough for a short test."""

    def __init__(self, log: FaultyLog, writer: Any, fault: str) -> None:
        self._log, self._writer, self._fault = log, writer, fault
        self._commits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def before(self, appends: Sequence[Append]) -> None:
        """Called before each commit."""

    def between(self, appends: Sequence[Append]) -> None:
        """Called when the rows are written and their places are not."""
        time.sleep(0.05)  # wide enough for a kill to fall into

    def commit(
        self, appends: Sequence[Append] = (), places: Mapping[str, Mapping[Partition, Place]] | None = None
    ) -> Any:
        self._commits += 1
        self.before(appends)
        if self._fault == "place outside the transaction":
            rows = [append for append in appends if not append.partition.topic.endswith("._state")]
            state = [append for append in appends if append.partition.topic.endswith("._state")]
            first = self._writer.commit(rows)
            self.between(rows)
            second = self._writer.commit(state, places)
            return Commit(second.number, {**first.written, **second.written})
        if self._fault == "marker after rows":
            appends = [Append(append.partition, _markers_last(append.records)) for append in appends]
        if self._fault in ("outcome unknown", "commit number ignored") and self._commits % self.unknown_every == 0:
            self._writer.commit(appends, places)  # it happened, but nobody is told
            if self._fault == "commit number ignored":  # "it failed, so do it again": the number would tell better
                return self._writer.commit(appends, places)
            raise OutcomeUnknownError("the commit", "the test says so")
        try:
            return self._writer.commit(appends, places)
        except FencedError:
            if self._fault != "no fencing":
                raise
            self._writer = self._log._log.open_writer(self._writer.name)  # "nobody else can be there": write on
            return self._writer.commit(appends, places)


def _markers_last(records: Sequence[NewRecord]) -> list[NewRecord]:
    markers = [record for record in records if (record.value or b"").startswith(b'{"kind":"version"')]
    return [record for record in records if record not in markers] + markers


def plant(fault: str) -> None:
    """Break one promise of the code that runs in this process."""
    import tailrace.cli.house as house_module
    import tailrace.gateway.app as gateway_module
    import tailrace.runner.shards as shards_module
    from tailrace.runner.shards import Shards
    from tailrace.runner.slots import restore

    if fault in LOG_FAULTS:
        house_module.open_log = lambda *args, **kwargs: FaultyLog(open_log(*args, **kwargs), fault)
    elif fault == "State not restored":

        def forgetful(*args: Any) -> Any:
            return {name: replace(state, state={}) for name, state in restore(*args).items()}

        shards_module.restore = forgetful
    elif fault == "read before open":
        original = Shards._open_and_restore

        def early(self: Any, shard: int, graphs: Any, index_topics: Any) -> Any:
            states = restore(self._log, graphs, shard, self._count)
            time.sleep(1.0)
            writer, _ = original(self, shard, graphs, index_topics)
            return writer, states

        Shards._open_and_restore = early  # type: ignore[method-assign]
    elif fault == "ack before durable":
        gateway = gateway_module.Gateway

        async def hasty(self: Any, *what: Any) -> None:
            async def later() -> None:
                await asyncio.sleep(0.05)
                await store(self, *what)

            late.append(asyncio.ensure_future(later()))

        late: deque[asyncio.Future[None]] = deque(maxlen=500)
        store = gateway._store
        gateway._store = hasty  # type: ignore[method-assign]
    elif fault == "dead letter committed apart":
        commit = Shards.commit

        async def apart(self: Any, shard: int, opening: int, transaction: Any, index_topic: str) -> Any:
            for partition in [p for p in transaction.records if p.topic.endswith("-dead")]:
                records = transaction.records.pop(partition)
                await self._call(lambda p=partition, r=records: self._log.append(p, r))
                await asyncio.sleep(0.4)
            return await commit(self, shard, opening, transaction, index_topic)

        Shards.commit = apart  # type: ignore[method-assign]
    else:
        raise SystemExit(f"no such fault: {fault}")


def describe(house: House) -> None:
    """What the host is at, on stderr: for a siege that does not end."""
    host = house._host
    assert host is not None
    for name, slot in host._slots.items():
        runs = {number: (run.outcome, len(run.pieces)) for number, run in slot.runs.items()}
        print(name, "running", slot.current is not None, "runs", runs, "head", slot.head.places, file=sys.stderr)
        print("   record", host._engine.record(name), file=sys.stderr)
        print("   due", host._engine.due(name, host._now()), file=sys.stderr)
    for topic, tail in host._catalog.tails.items():
        print(topic, "fold", tail.fold.position, tail.fold.last_by_writer, file=sys.stderr)
    print(
        "behind",
        host._behind,
        "refreshing",
        list(host._refreshing),
        "writers",
        list(host._shards.openings),
        file=sys.stderr,
    )
    for task in asyncio.all_tasks():
        task.print_stack(limit=3, file=sys.stderr)
    sys.stderr.flush()


async def serve(settings: dict[str, Any]) -> int:
    """Serve until SIGTERM; 1 if the house failed."""
    probe = CountingProbe(settings["counters"], settings.get("kill_at"), settings.get("nth", 1))
    pauses = tuple(timedelta(milliseconds=ms) for ms in (50, 200, 500, 1000))
    house = House(
        HouseSettings(
            apps=[Path(app) for app in settings["apps"]],
            data_dir=Path(settings["data"]),
            log_url=settings["log"],
            lake_url=settings.get("lake"),
            port=settings["port"],
            runner=RunnerSettings(retry_pauses=pauses),
        ),
        Runtime(probe=probe),
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: describe(house))
    await house.start()
    await asyncio.wait({asyncio.ensure_future(stop.wait()), house.failure}, return_when=asyncio.FIRST_COMPLETED)
    failure = house.failure.result() if house.failure.done() else None
    await house.stop()
    if failure is not None:
        print(f"house failed: {failure!r}", file=sys.stderr, flush=True)
    return 1 if failure is not None else 0


def main(arguments: Sequence[str]) -> int:
    """Serve as the file says, with the fault that it names."""
    given = json.loads(Path(arguments[0]).read_text())
    if given.get("fault"):
        plant(given["fault"])
    return asyncio.run(serve(given))
