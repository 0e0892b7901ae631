"""How much a run may take on: the bound and the share of a slot's streams."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tailrace.engine.limits import EngineLimits
from tailrace.engine.model import RunOutcome

__all__ = ["Pace"]

_RUNS = 4
"""Of how many runs the fixed costs are remembered: one that is quicker than usual does not count for long."""


@dataclass(slots=True)
class Pace:
    """The bound of one slot, learnt from its runs. Not stored: after a restart it is learnt again in a few runs."""

    rows_max: int
    fixed_costs_ms: deque[int] = field(default_factory=lambda: deque(maxlen=_RUNS))
    """What the last few runs spent outside of their loops."""

    @staticmethod
    def first(limits: EngineLimits, *, tries: int) -> Pace:
        """The pace of a slot that nothing is known of; careful where its last run failed."""
        return Pace(rows_max=1 if tries else limits.rows_first)

    def share_ms(self, limits: EngineLimits) -> int:
        """What the loops of the next run may take.

        By the least of the last few runs' fixed costs: what comes on top in the others is waiting for a busy machine,
        and longer shares would only add to that.
        """
        return max(limits.share_ms, limits.share_fixed_costs * min(self.fixed_costs_ms, default=0))

    def learn(self, outcome: RunOutcome, limits: EngineLimits, *, rows_max: int, share_ms: int) -> None:
        """Take in a run that was given `rows_max` and `share_ms`.

        Where several rows were dropped together the bound is one row, and doubles from there: so the one that fails is
        closed in on in a few runs, and those before it are not lost along with it again and again.
        """
        if outcome.kind == "died" or (outcome.retry and not outcome.progressed and outcome.rows > 1):
            self.rows_max = 1
        elif outcome.kind == "ok" and outcome.streamed:
            self.fixed_costs_ms.append(max(0, outcome.duration_ms - outcome.loop_ms))
            if outcome.loop_ms > 2 * share_ms:  # a stream that the share ended is a little over it, not too large
                self.rows_max = max(1, min(self.rows_max, rows_max) // 2)
            elif outcome.more and rows_max >= self.rows_max and outcome.loop_ms <= share_ms:
                times = 4 if 4 * outcome.loop_ms < share_ms else 2
                self.rows_max = min(limits.rows_max, self.rows_max * times)
