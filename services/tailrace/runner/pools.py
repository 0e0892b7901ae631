"""Where workers come from: a warm pool with the large libraries and one without, one for each environment of an app, and
a pool of its own for each sandbox."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tailrace.runner.environments import Environment, Environments, code_folders
from tailrace.runner.sandbox import EXECUTORS, Bubblewrap, Container, ExecutorMissingError, Sandbox, container_tool
from tailrace.runner.workers import PRELOAD, PRELOAD_LIGHT, Worker, WorkerPool, WorkerSpec

__all__ = ["Place", "WorkerPools", "stronger"]

ENVIRONMENT_POOLS_MAX = 8
"""Most warm pools of environments; the least recently used one without workers goes. Each holds some 60 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a worker runs in."""

    environment: Environment | None = None
    executor: str = "process"
    libraries: bool = True
    """Whether the large libraries should be ready; where there is no environment of the app's own."""


class WorkerPools:
    """Workers for any place.

    Args:
        container_image: what containers are made of; None: there are none.
    """

    def __init__(self, folder: Path, environments: Environments, *, container_image: str | None = None) -> None:
        self._folder, self.environments, self._image = folder, environments, container_image
        self._default = WorkerPool(folder=folder)
        self._light = WorkerPool(folder=folder, preload=PRELOAD_LIGHT)
        self._by_environment: OrderedDict[str, WorkerPool] = OrderedDict()
        self._sandboxes: dict[WorkerPool, asyncio.Task[None]] = {}
        self._lock = asyncio.Lock()
        self._numbers = itertools.count(1)

    async def start(self) -> None:
        """Prepare the warm pool without large libraries in the background."""
        await self._light.start()

    async def prepare(self, places: Iterable[Place]) -> None:
        """Prepare the one with them, too, if a worker in one of these places comes from it: loading them takes a second
        of CPU time and 70 MB, which an app that asks for none does without."""
        if any(each.libraries and each.environment is None and each.executor == "process" for each in places):
            await self._large()

    async def _large(self) -> WorkerPool:
        async with self._lock:
            if not self._default.begun:
                await self._default.start()
        return self._default

    async def spawn(self, spec: WorkerSpec, place: Place) -> Worker:
        """A new worker.

        Raises:
            WorkerStartError: retriable; it did not come up.
            EnvironmentBuildError: rejected; the app's requirements do not install.
            ExecutorMissingError: rejected; the machine lacks what the executor needs.
        """
        if place.environment is not None:
            await asyncio.to_thread(self.environments.build, place.environment)
            spec = spec.with_reads(*self._code(place.environment))
        if place.executor != "process":
            return await self._spawn_in_sandbox(spec, place)
        if place.environment is None:
            if not place.libraries:
                return await self._light.spawn(spec)
            return await (await self._large()).spawn(spec, preloaded=True)
        return await (await self._pool_of(place.environment)).spawn(spec, preloaded=place.libraries)

    async def close(self) -> None:
        """End all workers; takes about two seconds."""
        pools = [self._default, self._light, *self._by_environment.values(), *self._sandboxes]
        await asyncio.gather(*(pool.close() for pool in pools), *self._sandboxes.values())

    def _code(self, environment: Environment | None) -> tuple[str, ...]:
        """What the interpreter of an environment reads of ours."""
        if environment is None:
            return ()
        return (str(self.environments.code(environment).absolute()), *code_folders())

    async def _pool_of(self, environment: Environment) -> WorkerPool:
        async with self._lock:
            key = environment.key
            pool = self._by_environment.get(key)
            if pool is None:
                for other in [k for k, p in self._by_environment.items() if not p.workers]:
                    if len(self._by_environment) >= ENVIRONMENT_POOLS_MAX:
                        await self._by_environment.pop(other).close()
                pool = self._new_pool(environment, None, PRELOAD)
                await pool.start()
                self._by_environment[key] = pool
            self._by_environment.move_to_end(key)
            return pool

    def _new_pool(
        self, environment: Environment | None, sandbox: Sandbox | None, preload: tuple[str, ...], processes_max: int = 0
    ) -> WorkerPool:
        python = sys.executable
        first: tuple[str, ...] = ()
        if environment is not None:
            python = str(self.environments.python(environment).absolute())
            first = (str(self.environments.code(environment).absolute()),)
        return WorkerPool(
            folder=self._folder,
            preload=preload,
            python=python,
            first=first,
            sandbox=sandbox,
            processes_max=processes_max,
        )

    async def _spawn_in_sandbox(self, spec: WorkerSpec, place: Place) -> Worker:
        """A pool of one worker, which goes with it."""
        sandbox = await asyncio.to_thread(self._sandbox, spec, place)
        # The zygote and its own threads count, too.
        pool = self._new_pool(place.environment, sandbox, (), spec.limits.processes_max + 8)
        try:
            await pool.start()
            worker = await pool.spawn(spec)
        except BaseException:
            await pool.close()
            raise
        self._sandboxes[pool] = asyncio.create_task(self._close_after(pool, worker), name=f"sandbox of {worker.pid}")
        return worker

    async def _close_after(self, pool: WorkerPool, worker: Worker) -> None:
        await worker.wait()
        await pool.close()
        del self._sandboxes[pool]

    def _sandbox(self, spec: WorkerSpec, place: Place) -> Sandbox:
        paths = self._code(place.environment)
        if place.executor == "bubblewrap":
            sandbox = Bubblewrap(spec.reach, paths)
            sandbox.command(sys.executable, self._folder, None)  # raises where there is none
            return sandbox
        assert place.executor in EXECUTORS, place.executor
        if self._image is None:
            raise ExecutorMissingError("container", "no image is named (setting container_image)")
        tool = container_tool()
        if tool is None:
            raise ExecutorMissingError("container", "neither docker nor podman answers; see `docker info`")
        return Container(
            reach=spec.reach,
            tool=tool,
            image=self._image,
            name=f"tailrace-{os.getpid()}-{next(self._numbers)}",
            memory_bytes_max=spec.limits.memory_bytes_max,
            processes_max=spec.limits.processes_max + 8,
            paths=paths,
        )


def stronger(first: str, second: str) -> str:
    """The stronger of two executors: a node may ask for more than the runner's, never for less."""
    return max(first, second, key=EXECUTORS.index)
