"""One node's slot in this host: what it remembers, its runs, and its warm worker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Protocol

from tailrace.node.protocol import Progress, RunOrder
from tailrace.runner.deployment import DeployedNode
from tailrace.runner.runs import Link, Run
from tailrace.runner.slots import SlotState
from tailrace.runner.workers import Worker

__all__ = ["Hire", "Slot", "Warm", "after"]


def after(state: SlotState, progress: Progress) -> SlotState:
    """The slot's state once `progress` counts; the engine's record comes with the commit."""
    return replace(state, state=progress.state, places=dict(progress.places), orders=progress.orders)


@dataclass(slots=True)
class Warm:
    """A worker that is up, with our end of its socket pair."""

    worker: Worker
    link: Link
    lasting: bool = True
    """Whether it may carry out later runs; not one that was started while the lake was away, and so never reaches it."""


class Hire(Protocol):
    """Gives a worker for an order of a node, or for a question."""

    async def __call__(self, order: RunOrder, node: DeployedNode | None = None) -> Warm: ...


@dataclass(slots=True)
class Slot:
    """A node's slot; changed on the event loop only."""

    name: str
    deployed: DeployedNode
    latest: SlotState = field(default_factory=SlotState)
    """As of the last commit."""
    head: SlotState = field(default_factory=SlotState)
    """As of the last run that ended or was checkpointed; where the next one goes on."""
    runs: dict[int, Run] = field(default_factory=dict)
    """Under way, or ended and not committed."""
    tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    warm: Warm | None = None
    current: Run | None = None
    busy: bool = False
    """A run was started and has not ended."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no ended run waits for its commit."""

    def restore(self, state: SlotState) -> None:
        """What the log says, after an opening."""
        self.latest = self.head = state

    def drop(self, number: int) -> Run | None:
        """Forget a run and what it wanted to commit; the head goes back to what is left."""
        run = self.runs.pop(number, None)
        if run is not None:
            if self.current is run:
                self.current = None
            self.rebase(self.latest)
        self.settle()
        return run

    def rebase(self, latest: SlotState) -> None:
        """`latest` is in the log now; the head is that, and what the other runs want to commit on top."""
        self.latest = self.head = latest
        for run in self.runs.values():
            for piece in run.pieces:
                self.head = after(self.head, piece.progress)

    def committed(self, number: int, *, final: bool) -> Run | None:
        """What this run had closed is in the log; `final`: the run is over. Returns it then."""
        run = self.runs.get(number)
        if run is None:
            return None
        run.pieces.clear()
        if final:
            del self.runs[number]
            self.settle()
            return run
        if run.checkpoint is not None and not run.checkpoint.done():
            run.checkpoint.set_result(None)
        return None

    def settle(self) -> None:
        """Let those go on who wait for the commits of earlier runs, if there are none left."""
        if not any(run.outcome is not None for run in self.runs.values()):
            self.settled.set()
