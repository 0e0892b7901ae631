"""What nodes that no deployment has any more remember: kept for a while, in case they come back, then let go of.

A slot's State record says since when no deployment of its app has the node. Whoever hosts its shard writes that, in steps
that each leave less to do for the next, whoever takes them and whoever dies in between:

 1. `removed-marked`   the State says since when. A node that comes back goes on from it, and the mark goes with its
                       next commit, or with the next look where it has nothing to do.
 2. `removed-group`    after `removed_retention` the slot's group is gone; the State is there, so this is done again.
 3. `removed-gone`     the State is gone. A node of this id that comes now begins anew.

Apps that are taken away as a whole keep what their nodes remember: `deploy` brings them back as they were.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import timedelta

from tailrace.errors import RetriableError
from tailrace.log import FencedError, OutcomeUnknownError
from tailrace.runner.shards import Shards
from tailrace.runner.slot import Slot
from tailrace.runner.slots import SlotState
from tailrace.runtime import Runtime

__all__ = ["RemovedNodes", "what_changes"]

_log = logging.getLogger(__name__)


def what_changes(
    states: Mapping[str, SlotState], deployed: Collection[str], now_ms: int, kept_ms: int
) -> dict[str, SlotState | None]:
    """What to write of slots of deployed apps: a State with a mark or without one, or None for one that may go.

    Args:
        deployed: slots whose nodes are deployed, or still at work.
    """
    changed: dict[str, SlotState | None] = {}
    for slot, state in states.items():
        if slot in deployed:
            if state.removed_ms is not None:
                changed[slot] = replace(state, removed_ms=None)
        elif state.removed_ms is None:
            changed[slot] = replace(state, removed_ms=now_ms)
        elif now_ms - state.removed_ms >= kept_ms:
            changed[slot] = None
    return changed


class RemovedNodes:
    """Looks after them in the shards of one host.

    Args:
        slots, unclaimed: what this host knows of nodes that are or were deployed, and of others; its own, which change.
        lose: has a shard opened anew: the log tells what is there.
        fenced: told that a shard is another host's.
    """

    def __init__(
        self,
        shards: Shards,
        slots: dict[str, Slot],
        unclaimed: dict[str, SlotState],
        runtime: Runtime,
        *,
        kept: timedelta,
        lose: Callable[[int, str], None],
        fenced: Callable[[int, FencedError], None],
    ) -> None:
        self._shards, self._slots, self._unclaimed, self._runtime = shards, slots, unclaimed, runtime
        self._kept_ms = int(kept.total_seconds() * 1000)
        self._lose, self._fenced = lose, fenced

    async def look(
        self, graphs: Collection[str], owned: Collection[int], deployed: Callable[[], Collection[str]]
    ) -> None:
        """Take the next step with each slot that is due for one.

        Args:
            graphs: the deployed apps.
            owned: the shards that are this host's to write for.
            deployed: gives the slots whose nodes are deployed now, or still at work.
        """
        due = self._due(await self._shards.states(graphs), deployed)
        for shard in sorted({self._shards.of(name) for name in due} & set(owned)):
            try:
                changed = await self._shards.tidy(shard, list(graphs), lambda found: self._due(found, deployed))
            except RetriableError as error:
                _log.warning("%s; removed nodes are looked at again later", error)
            except OutcomeUnknownError as error:
                self._lose(shard, str(error))
            except FencedError as error:
                self._fenced(shard, error)
            else:
                self._take_over(shard, changed)

    def _due(
        self, states: Mapping[str, SlotState], deployed: Callable[[], Collection[str]]
    ) -> dict[str, SlotState | None]:
        return what_changes(states, deployed(), self._runtime.clock.now_ms(), self._kept_ms)

    def _take_over(self, shard: int, changed: Mapping[str, SlotState | None]) -> None:
        """What the log says now, this host knows, too."""
        for name, state in changed.items():
            slot = self._slots.get(name)
            if state is None:
                self._unclaimed.pop(name, None)
                if slot is not None:
                    slot.restore(SlotState())  # if it came back a moment ago it begins anew
            elif slot is None:
                self._unclaimed[name] = state
            else:  # it may have committed since: the mark alone is news
                slot.rebase(replace(slot.latest, removed_ms=state.removed_ms))
        if any(state is not None for state in changed.values()):
            self._runtime.probe.reached("removed-marked")
        if None in changed.values():
            self._lose(shard, "what removed nodes remembered was let go of")  # and the engine reads what is there now
            self._runtime.probe.reached("removed-gone")
