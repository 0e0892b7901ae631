"""The workers of this host: hired for an order, kept warm for their node's next run, let go of."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable

from tailrace.node.protocol import RunOrder
from tailrace.runner.deployment import DeployedNode
from tailrace.runner.pools import Place, WorkerPools, stronger
from tailrace.runner.reach import Ground, limits_of
from tailrace.runner.runs import Link
from tailrace.runner.settings import RunnerSettings
from tailrace.runner.slot import Slot, Warm
from tailrace.runner.tails import Spawn
from tailrace.runner.workers import Worker, WorkerSpec, WorkerStartError

__all__ = ["Workforce"]

_VARIABLES = ("ENVIRONMENT",)
"""Variables of the host that node code sees, too."""


class Workforce:
    """Hires workers, and keeps those warm whose nodes ran last.

    Args:
        said: told of each line of a slot's worker: the slot, the run (None: between runs), the stream, the text.
    """

    def __init__(
        self,
        pools: WorkerPools,
        ground: Ground,
        settings: RunnerSettings,
        spawn: Spawn,
        said: Callable[[Slot, str | None, str, str], None],
    ) -> None:
        self._pools, self._ground, self._settings = pools, ground, settings
        self._spawn, self._said = spawn, said
        self._idle: OrderedDict[str, tuple[Slot, float]] = OrderedDict()
        """Slots whose worker waits for the next run, and since when (of the loop's clock); the one that ran last at the end."""

    async def hire(self, order: RunOrder, node: DeployedNode | None = None) -> Warm:
        """A worker that carries out `order`, and later ones of the same node and graph version; without a node, a
        question.

        Raises:
            WorkerStartError: retriable; it did not come up.
            EnvironmentBuildError, ExecutorMissingError: rejected; see `WorkerPools.spawn`.
        """
        settings = self._settings
        network = settings.network and (order.kind == "python" if node is None else node.node.network)
        place = Place() if node is None else self._place(node)
        environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        try:
            reach = self._ground.reach(order, network=network, metadata_addresses=settings.metadata_addresses)
            spec = WorkerSpec(limits=limits_of(order, settings), reach=reach, environment=environment)
            worker = await self._pools.spawn(spec, place)
        except OSError as error:  # a full disk, say: it has no folder
            raise WorkerStartError(order.node or order.kind, str(error)) from error
        reader, writer = await asyncio.open_connection(sock=worker.sock, limit=8 << 20)
        return Warm(worker, Link(reader, writer), self._ground.reaches_lake(reach, order.graph))

    async def prepare(self, nodes: Iterable[DeployedNode]) -> None:
        """Begin to make ready what workers of these nodes come from."""
        await self._pools.prepare(map(self._place, nodes))

    def _place(self, node: DeployedNode) -> Place:
        executor = stronger(self._settings.executor, node.node.executor or self._settings.executor)
        return Place(environment=node.environment, executor=executor, libraries=node.libraries)

    async def engage(self, slot: Slot, order: RunOrder) -> Warm:
        """The worker that carries out a slot's run: the one that is warm, else a new one. Raises as `hire` does."""
        self._idle.pop(slot.name, None)
        if slot.warm is None:
            slot.warm = await self.hire(order, slot.deployed)
            self._spawn(self._read_output(slot, slot.warm.worker))
        return slot.warm

    def keep(self, slot: Slot) -> None:
        """Its run is over and the next one may have the same worker; where too many wait, the longest idle one goes."""
        self._idle[slot.name] = slot, asyncio.get_running_loop().time()
        while len(self._idle) > self._settings.workers_idle_max:
            self._retire_longest()

    async def rest(self) -> None:
        """Let go of workers that have waited for `worker_idle`, for as long as this is awaited: a house without traffic
        does without their memory."""
        idle_s = self._settings.worker_idle.total_seconds()
        while True:
            await asyncio.sleep(idle_s / 4)
            until_s = asyncio.get_running_loop().time() - idle_s
            while self._idle and next(iter(self._idle.values()))[1] <= until_s:
                self._retire_longest()

    def _retire_longest(self) -> None:
        _, (slot, _) = self._idle.popitem(last=False)
        self.retire(slot)

    def retire(self, slot: Slot) -> None:
        """Let go of the slot's worker, if there is one."""
        self._idle.pop(slot.name, None)
        warm, slot.warm = slot.warm, None
        if warm is not None:
            warm.link.close()
            self._spawn(warm.worker.kill())

    async def _read_output(self, slot: Slot, worker: Worker) -> None:
        async for line in worker.output:
            self._said(slot, line.run, line.stream, line.text)
