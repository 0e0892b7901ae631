"""How a run ended, in the engine's words. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from tailrace.engine import Requested, RunOutcome
from tailrace.node.protocol import Outcome
from tailrace.runner.deadletters import InHand
from tailrace.runner.runs import Run

__all__ = ["outcome_of_death", "outcome_of_end"]


def outcome_of_end(run: Run, ended: Outcome, duration_ms: int) -> RunOutcome:
    """The outcome of a run whose worker says that it ended."""
    seen = {table: {0: pin.cut} for table, pin in run.pinned.items() if table in run.pins}
    for table in ended.more:
        if table in seen:
            seen[table] = {0: min(seen[table][0], ended.progress.places.get(table, (0, 0))[0])}
    requested = None
    if ended.requested is not None:
        delay_ms, downstream = ended.requested
        requested = Requested(delay_ms=delay_ms, trigger_downstream=downstream)
    streamed = frozenset(ended.progress.streamed) & frozenset(run.pins)
    at = None
    if ended.retry and len(streamed) == 1:  # with several streams nobody can tell which record it was
        (table,) = streamed
        at = _name_of(table, ended.progress.places.get(table, (0, 0)))
    return RunOutcome(
        kind=ended.kind,  # type: ignore[arg-type]
        reason=ended.error or "",
        seen=seen,
        streamed=streamed,
        more=bool(ended.more),
        rows=ended.progress.rows_in,
        duration_ms=duration_ms,
        loop_ms=min(int(ended.loop_ms), duration_ms),
        requested=requested,
        retry=ended.retry,
        at=at,
        progressed=ended.progress.places != run.order.places,
    )


def outcome_of_death(
    run: Run, places: Mapping[str, tuple[int, int]], in_hand: InHand | None, reason: str, duration_ms: int
) -> RunOutcome:
    """The outcome of a run whose worker is gone: as if the record in hand had been consumed.

    `places` is where its streams (`run.streamed`) stood at the last commit.
    """
    seen = {table: {0: pin.cut} for table, pin in run.pins.items()}
    more = False
    for table in run.streamed:
        place = in_hand.next_place if in_hand and in_hand.table == table else places.get(table, (0, 0))
        if place[0] < seen[table][0]:
            seen[table], more = {0: place[0]}, True
    at = None
    if in_hand is not None and len(run.streamed) == 1:
        at = _name_of(in_hand.table, places.get(in_hand.table, (0, 0)))
    return RunOutcome(
        kind="died",
        reason=reason,
        seen=seen,
        streamed=frozenset(run.streamed),
        more=more,
        duration_ms=duration_ms,
        retry=True,
        at=at,
    )


def _name_of(table: str, place: tuple[int, int]) -> str:
    """The next record after a place."""
    return f"{table}@{place[0]}.{place[1]}"
