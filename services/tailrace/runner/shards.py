"""The writers of this host, one a shard: opening them, and committing through them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial

import orjson

from tailrace.engine import shard_of
from tailrace.errors import TailraceError
from tailrace.lake import StagingArea
from tailrace.log import Append, Commit, Log, NewRecord, Partition, Writer
from tailrace.runner.slots import SlotState, group_of, newest, restore, state_topic
from tailrace.runner.tails import CallLog
from tailrace.runner.transaction import Transaction
from tailrace.runtime import Runtime

__all__ = ["Shards", "writer_name"]


def writer_name(shard: int) -> str:
    """The name of a shard's writer in the log: the same for whoever owns the shard, so that owning it fences."""
    return f"shard-{shard}"


class Shards:
    """The open shards. One thing of a shard is done at a time: opening, one commit, closing. What writers do, they do in
    `threads`, where nobody waits for a transaction to end."""

    def __init__(
        self, log: Log, count: int, staging: StagingArea, runtime: Runtime, call: CallLog, threads: Executor
    ) -> None:
        self._log = log
        self._count = count
        self._staging = staging
        self._probe = runtime.probe
        self._random: random.Random = runtime.random
        self._call = call
        self._threads = threads
        self._writers: dict[int, Writer] = {}
        self._opened: dict[int, int] = {}
        """Number of the opening that its writer came from; none once that is lost."""
        self._epochs: dict[int, str] = {}
        self._turns: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.openings: dict[int, int] = {}
        """Number of the last opening of each shard that is ours, as the engine counts them."""

    def of(self, slot: str) -> int:
        """The shard of a slot."""
        return shard_of(slot, self._count)

    async def open(
        self, shard: int, opening: int, graphs: Sequence[str], index_topics: Sequence[str]
    ) -> dict[str, SlotState] | None:
        """Open the shard's writer, then read its slots: never the other way round (a late opener would commit over a
        newer state). None where this opening is not wanted any more.

        Raises OutcomeUnknownError or FencedError when another opener comes between.
        """
        async with self._turns[shard]:
            await self._close(shard)
            if self.openings.get(shard) != opening:  # it would fence whoever has the shard by now
                return None
            name = writer_name(shard)
            self._writers[shard] = await self._call(lambda: self._log.open_writer(name), self._threads)
            # All shards of an app share its topics: what the dead left open in any of them hides what comes after it from
            # who reads for this one, until that shard's writer is open, too.
            states: dict[str, SlotState] = await self._call(lambda: self._restore(shard, graphs, index_topics))
            self._opened[shard] = opening
            self._epochs[shard] = f"{self._random.getrandbits(40):010x}"
            if self.openings.get(shard) != opening:
                await self._close(shard)
                return None
            return states

    async def recall(self, shard: int, graphs: Sequence[str]) -> dict[str, SlotState] | None:
        """What slots of apps remember that nobody asked for when the shard was opened; None where it is not open, or is to
        be opened anew."""
        async with self._turns[shard]:
            if not self._is_open(shard):
                return None
            states: dict[str, SlotState] = await self._call(lambda: restore(self._log, graphs, shard, self._count))
            return states

    def _is_open(self, shard: int) -> bool:
        """Whether it has the writer of its last opening, which is not lost as far as anybody knows."""
        opened = self._opened.get(shard)
        return shard in self._writers and opened is not None and opened == self.openings.get(shard)

    def lose(self, shard: int) -> None:
        """What the shard had in flight is dropped: a commit that is not being written by now is not written any more."""
        self._opened.pop(shard, None)

    async def release(self, shard: int) -> None:
        """Close the shard's writer once its commit has ended, however it ends."""
        async with self._turns[shard]:
            if shard not in self.openings:  # else it has come back meanwhile, and the opening closes the old one
                await self._close(shard)

    async def _close(self, shard: int) -> None:
        self.lose(shard)  # what was to be committed by its writer is not to get into the hands of the next one
        writer = self._writers.pop(shard, None)
        if writer is not None:
            await asyncio.get_running_loop().run_in_executor(self._threads, writer.close)

    def stage(self, shard: int, run: str, slot: str = "") -> str:
        """Where a run of the shard stages files. No two openings share a folder: what an owner that was fenced still
        brings to an object store never takes the place of another's file."""
        name = f"{self._epochs.get(shard, '')}-{run}"
        return "/".join(each for each in (writer_name(shard), slot, name) if each)

    def _restore(self, shard: int, graphs: Sequence[str], index_topics: Sequence[str]) -> dict[str, SlotState]:
        states = restore(self._log, graphs, shard, self._count)
        name = writer_name(shard)
        self._staging.open(name, self._last_staged(name, index_topics))
        return states

    def _last_staged(self, name: str, index_topics: Sequence[str]) -> list[str]:
        folders: list[str] = []
        for topic in index_topics:
            partition = Partition(topic)
            last = newest(self._log, partition, self._log.settled_ends([partition])[partition]).get(_staged_key(name))
            if last is not None:
                folders += orjson.loads(last)
        return folders

    async def commit(self, shard: int, opening: int, transaction: Transaction, index_topic: str) -> Commit | None:
        """Write it all; None when the writer of that opening was lost meanwhile, and nothing was written.

        Raises as `Writer.commit`, and LakeUnavailableError (retriable): staged files cannot be brought to the lake.
        """
        async with self._turns[shard]:
            writer = self._writers.get(shard)
            if writer is None or self._opened.get(shard) != opening:  # what was to be written is run again
                return None
            staged = []
            if transaction.folders:
                staged = await asyncio.to_thread(self._staging.sync, transaction.folders)
            if staged:
                self._probe.reached("staged-synced")
                transaction.add(index_topic, [NewRecord(orjson.dumps(staged), _staged_key(writer.name))])
            appends, places = transaction.appends, transaction.places
            loop = asyncio.get_running_loop()
            commit = await loop.run_in_executor(self._threads, lambda: writer.commit(appends, places))
            self._probe.reached("committed")
            if staged:
                await asyncio.to_thread(self._staging.committed, staged)
                self._probe.reached("staged-marked")
            return commit

    async def states(self, graphs: Collection[str]) -> dict[str, SlotState]:
        """The slots of all shards as the log has them: for a look, as whoever owns a shard may write meanwhile."""
        states: dict[str, SlotState] = await self._call(lambda: restore(self._log, graphs, 0, 1))
        return states

    async def tidy(
        self,
        shard: int,
        graphs: Sequence[str],
        decide: Callable[[Mapping[str, SlotState]], Mapping[str, SlotState | None]],
    ) -> Mapping[str, SlotState | None]:
        """Write what `decide` makes of the shard's slots as the log has them; returns it. None: the slot goes, its group
        first. The shard is this host's; where none of its slots is deployed, its writer is opened for this alone. Nothing
        is done where it is to be opened anew.

        Raises as `Writer.commit`, and FencedError.
        """
        async with self._turns[shard], contextlib.AsyncExitStack() as exits:
            writer = self._writers.get(shard)
            if not self._is_open(shard) and (writer is not None or shard in self.openings):
                return {}
            if writer is None:
                writer = await self._call(lambda: self._log.open_writer(writer_name(shard)), self._threads)
                exits.push_async_callback(self._call, writer.close, self._threads)
            states = await self._call(lambda: restore(self._log, graphs, shard, self._count))
            changed = decide(states)
            if not changed:
                return {}
            records: dict[Partition, list[NewRecord]] = defaultdict(list)
            for slot, state in changed.items():
                if state is None:
                    await self._call(partial(self._log.delete_group, group_of(slot)))
                    self._probe.reached("removed-group")
                record = NewRecord(None, slot.encode()) if state is None else state.to_record(slot)
                records[Partition(state_topic(slot.partition("/")[0]))].append(record)
            appends = [Append(partition, lot) for partition, lot in records.items()]
            await asyncio.get_running_loop().run_in_executor(self._threads, lambda: writer.commit(appends))
            return changed

    def lost(self) -> list[int]:
        """Shards whose writer is good for nothing any more, though nothing was asked of it."""
        return [shard for shard, writer in self._writers.items() if not self._turns[shard].locked() and writer.lost]

    def close(self) -> None:
        """Let go of the writers."""
        for writer in self._writers.values():
            with contextlib.suppress(TailraceError):
                writer.close()


def _staged_key(name: str) -> bytes:
    return f"staged/{name}".encode()
