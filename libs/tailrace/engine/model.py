"""What the engine is told and what it asks for: values only, each frozen.

The host feeds events (what has happened) and carries commands out (what to do). Every event has `now_ms`, the wall
clock in milliseconds since 1970 UTC, because the engine has no clock. Offsets are next offsets unless said otherwise,
and a *cut* is one next offset for each partition of each table: everything that was read lies before it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

from tailrace.engine.errors import BadRecordError

__all__ = [
    "CheckpointWanted",
    "CloseShard",
    "Command",
    "Commit",
    "CommitPart",
    "CommitRefused",
    "Committed",
    "Cron",
    "Cut",
    "Deploy",
    "Discard",
    "Drain",
    "Event",
    "Manual",
    "News",
    "NodeSpec",
    "OpenShard",
    "OutcomeKind",
    "Own",
    "Reactive",
    "Reason",
    "Requested",
    "RunEnded",
    "RunOutcome",
    "ShardOpened",
    "SlotRecord",
    "SlotsFound",
    "StartRun",
    "Tick",
    "Trigger",
    "Triggered",
    "WakeAt",
    "WriterLost",
    "shard_of",
]

Cut: TypeAlias = Mapping[str, Mapping[int, int]]
"""Table key to partition to next offset. A table or partition that is not named counts as 0: nothing seen yet."""

Reason: TypeAlias = Literal["news", "more", "schedule", "trigger", "deploy", "request", "retry"]
"""Why a run starts. `more`: the last one ended its stream early, or was interrupted after a checkpoint; `deploy`: a root node's only run of its own accord;
`request`: its code asked with `request_new_run`; `retry`: another try of what failed."""

OutcomeKind: TypeAlias = Literal["ok", "failed", "timed_out", "died"]
"""`failed`: the script raised. `timed_out`: the limit was raised into it. `died`: the worker is gone."""


def shard_of(slot: str, shards: int) -> int:
    """The shard that `slot` belongs to, for ever: the same on every machine and in every version."""
    return int.from_bytes(hashlib.blake2b(slot.encode(), digest_size=8).digest(), "big") % shards


# What a node is


@dataclass(frozen=True, slots=True)
class Reactive:
    """Runs on news of the tables it reads; without any, once, at its first deploy."""


@dataclass(frozen=True, slots=True)
class Cron:
    """Runs on a schedule alone: `text` has five fields, in UTC."""

    text: str


@dataclass(frozen=True, slots=True)
class Manual:
    """Runs only when triggered."""


Trigger: TypeAlias = Reactive | Cron | Manual


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """What the engine must know of a node that runs. Webhooks, charts and markdown never run, so are not given."""

    key: str
    """Names the node and its slot; the same over redeploys."""

    trigger: Trigger = field(default_factory=Reactive)

    reads: frozenset[str] = frozenset()
    """Keys of the tables whose news concern it, streamed or read whole."""

    writes: frozenset[str] = frozenset()
    """Keys of the tables it writes. A node that reads one of them never starts before its last run is committed."""

    is_root: bool = False
    """Nothing but itself can bring news to what it reads: it runs once at its first deploy if it is `Reactive`."""

    retries: int | None = None
    """How often what failed is tried again before it is given up; None: the author said nothing."""

    pauses_ms: tuple[int, ...] = ()
    """Pauses before the second and later tries, the last one repeating; empty: those of the limits."""

    stops: bool = False
    """What is given up is kept: the slot stands still at it until it is triggered, or deployed in another version."""

    timeout_ms: int = 600_000
    """Longest a run may take. The host enforces it."""

    version: str = ""
    """Changes with the node's code, parameters and wiring: what failed under another version is tried at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRecord:
    """What a slot remembers, committed in the same transaction as the rows of the run that changed it."""

    seen: Cut = field(default_factory=dict)
    """Cut of the last finished run; for a stream that was cut short, its place."""

    streamed: frozenset[str] = frozenset()
    """Tables that the last finished run streamed: only there do the slot's own records fire it."""

    more: bool = False
    """The last run left rows of a stream behind, or was interrupted after a checkpoint: the next one goes on at once."""

    ran: bool = False
    """A run has left something here, however it ended."""

    run: int = 0
    """Number of the last run that is committed, in part or whole."""

    schedule: str | None = None
    """Crontab text that `fired_ms` belongs to; None for a slot without a schedule."""

    fired_ms: int = 0
    """Last fire that is done with: fires after it are due."""

    open_fire_ms: int | None = None
    """The fire that a run was for which has not finished: the next one is for it, too."""

    wake_ms: int | None = None
    """When the run that the node's code asked for is due."""

    tries: int = 0
    """How often the work at hand has failed in a row; 0 where nothing is being tried again."""

    retry_ms: int | None = None
    """When the next try is due; with `tries` only. None with `tries`: the slot stands still (`NodeSpec.stops`)."""

    again: str | None = None
    """The record that failed, as the host names it (`RunOutcome.at`); with `tries` only."""

    tried: str = ""
    """Version of the node that failed; with `tries` or `failures` only."""

    failures: int = 0
    """Runs in a row that failed and got nowhere."""

    shut_ms: int | None = None
    """So many that nothing runs before this moment: the circuit breaker is open. With `failures` only."""

    error: str = ""
    """What the last run met, if it failed; for people."""

    trigger_offset: int = 0
    """Next offset of the triggers topic that this slot has not handled."""

    rest: Mapping[str, Any] = field(default_factory=dict)
    """What a newer version wrote and this one does not know; carried along."""

    def to_json(self) -> dict[str, Any]:
        """This record as JSON values; `from_json` gives an equal record back. Defaults are left out."""
        out: dict[str, Any] = dict(self.rest)
        for name in _PLAIN:
            value = getattr(self, name)
            if value != _DEFAULTS[name]:
                out[name] = value
        if self.seen:
            out["seen"] = {
                table: {str(partition): offset for partition, offset in sorted(cut.items())}
                for table, cut in sorted(self.seen.items())
            }
        if self.streamed:
            out["streamed"] = sorted(self.streamed)
        return out

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> SlotRecord:
        """The record that `to_json` wrote, by this version or another.

        Raises:
            BadRecordError: fatal; a known field holds what no version writes.
        """
        known: dict[str, Any] = {}
        for name, kind in _PLAIN.items():
            if name in value:
                # bool is an int to Python, but a number where a flag belongs is damage (and the other way round).
                if type(value[name]) not in kind:
                    raise BadRecordError(name, value[name])
                known[name] = value[name]
        if "seen" in value:
            known["seen"] = _cut(value["seen"])
        if "streamed" in value:
            if not isinstance(value["streamed"], list) or not all(isinstance(t, str) for t in value["streamed"]):
                raise BadRecordError("streamed", value["streamed"])
            known["streamed"] = frozenset(value["streamed"])
        rest = {name: item for name, item in value.items() if name not in _DEFAULTS}
        return SlotRecord(**known, rest=rest)


_PLAIN: dict[str, tuple[type, ...]] = {
    "more": (bool,),
    "ran": (bool,),
    "run": (int,),
    "schedule": (str, type(None)),
    "fired_ms": (int,),
    "open_fire_ms": (int, type(None)),
    "wake_ms": (int, type(None)),
    "tries": (int,),
    "retry_ms": (int, type(None)),
    "again": (str, type(None)),
    "tried": (str,),
    "failures": (int,),
    "shut_ms": (int, type(None)),
    "error": (str,),
    "trigger_offset": (int,),
}
_DEFAULTS: dict[str, Any] = {
    name.name: getattr(SlotRecord(), name.name) for name in fields(SlotRecord) if name.name != "rest"
}


def _cut(value: Any) -> dict[str, dict[int, int]]:
    try:
        return {
            str(table): {int(partition): _offset(offset) for partition, offset in cut.items()}
            for table, cut in value.items()
        }
    except (AttributeError, TypeError, ValueError) as error:
        raise BadRecordError("seen", value) from error


def _offset(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(value)
    return value


# What has happened


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy:
    """These are the nodes from now on. A node that is gone or has changed ends its run first; its record stays."""

    now_ms: int
    specs: tuple[NodeSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """These shards are this host's from now on; before the first one of these events, none are. One that goes is dropped
    with all that it has under way (whoever gets it reads what is committed), one that stays goes on undisturbed."""

    now_ms: int
    shards: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardOpened:
    """`OpenShard` is done: older writers are fenced, and `records` were read after that."""

    now_ms: int
    shard: int
    opening: int
    records: Mapping[str, SlotRecord]
    """By slot. A slot without a record is new. They already say whether a commit of unknown outcome happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsFound:
    """`records` of slots whose app was not deployed when their shards were opened; read after that. It comes before the
    `Deploy` that brings the app."""

    now_ms: int
    records: Mapping[str, SlotRecord]
    """By slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """A table has records. May come twice, late and in any order: the engine keeps the greatest offsets."""

    now_ms: int
    table: str
    last: Mapping[str, Mapping[int, int]]
    """Slot that wrote (empty: no node did) to partition to the offset of its last record that is not marked quiet.
    The record's own offset, not the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Triggered:
    """Somebody asked for a run of `slot`, in the record at `offset` of the triggers topic. May come twice."""

    now_ms: int
    slot: str
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed; `WakeAt` tells when the engine wants one. More of them do no harm."""

    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Requested:
    """The node's code called `request_new_run`."""

    delay_ms: int = 0
    trigger_downstream: bool = True
    """False: the host marks the run's rows quiet, so that they fire no one. The engine takes no notice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """How a run ended. Its rows, State and places wait with the host until a `Commit` names the run."""

    kind: OutcomeKind
    reason: str = ""
    """What killed it or what it raised, in a line; for people."""

    seen: Cut = field(default_factory=dict)
    """The cut that the run read, for each table it could read; the place for a stream that was cut short. After a
    death: as if the record in hand had been consumed (it counts only where that is given up)."""

    streamed: frozenset[str] = frozenset()
    """Tables that it streamed."""

    more: bool = False
    """A stream still has rows before the cut: `rows_max`, the share or an error ended it early, not the script."""

    rows: int = 0
    """How many rows its streams handed out."""

    duration_ms: int = 0
    loop_ms: int = 0
    """Time in stream loops; what is left of the duration is the run's fixed cost."""

    requested: Requested | None = None

    retry: bool = False
    """The work at hand failed and its effects are dropped: hand it out again. Never with `kind` ok, and never where
    `dead_letter_after_failure` made a dead letter of it."""

    at: str | None = None
    """The record in hand when it failed or died, in any words that name the same record again; None where there was
    none, or where the host cannot tell which of several it was."""

    progressed: bool = False
    """Work before the failed one was done and is kept: what failed now has not failed before."""

    owes: bool = False
    """Not all that the triggers asked for is done: they stay unanswered, and bring the next run, whoever hosts it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """The worker is done with a run, or is gone. Comes once a run, unless the run was discarded."""

    now_ms: int
    slot: str
    run: int
    outcome: RunOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointWanted:
    """The run's code asked to commit what it has so far, and waits until a commit with a part for it is done. Comes once
    each time: a second one would commit in the middle of what the code does next."""

    now_ms: int
    slot: str
    run: int
    owes: bool = False
    """See `RunOutcome`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """The transaction of `Commit` is durable and visible."""

    now_ms: int
    shard: int
    commit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRefused:
    """Nothing of the commit was written and the writer is good: the log is away, or its disk is full."""

    now_ms: int
    shard: int
    commit: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterLost:
    """The shard's writer is gone: fenced, unable to open, or a commit's outcome is unknown. The host has dropped what
    the shard had in flight, and must not use that writer again."""

    now_ms: int
    shard: int
    opening: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Start nothing new; what runs may end and be committed. For a clean stop."""

    now_ms: int


Event: TypeAlias = (
    Deploy
    | Own
    | ShardOpened
    | SlotsFound
    | News
    | Triggered
    | Tick
    | RunEnded
    | CheckpointWanted
    | Committed
    | CommitRefused
    | WriterLost
    | Drain
)


# What to do


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenShard:
    """Open the shard's writer, which fences older ones; then read its slots' records. Answer `ShardOpened` or
    `WriterLost`, with the same `opening`."""

    shard: int
    opening: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseShard:
    """The shard is another host's: close its writer once what it is doing has ended, however it ends, and let its slots'
    workers go. No answer; one to an earlier `OpenShard` or `Commit` may still come."""

    shard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRun:
    """Run the slot's script, on the State and places that its last run left, also where their commit is still to come
    (if that is lost, this run is discarded with it)."""

    slot: str
    run: int
    """Grows from run to run and follows the wall clock in ms, so no run of this slot had it before."""

    reasons: tuple[Reason, ...]
    rows_max: int
    """Most rows that each of its streams hands out."""

    share_ms: int
    """A stream ends at the next row once its loops took this long."""

    try_number: int = 1

    again: str | None = None
    """The record that failed before. If it is next in its partition, the streams hand out this one and no other
    (others that wait make `more`): so what is tried again is what failed, whatever has come in since."""

    dead_letter_after_failure: bool = False
    """This is the last try: if the record `again` fails (without one: whatever is in hand), it goes to the dead
    letters and is consumed."""

    covers: int = 0
    """Pieces of news, triggers and fires that this run answers; 1 where nothing was merged. All fires that were missed
    count as one, and what came before the shard was opened counts as far as the host told it piece by piece."""

    fire_ms: int | None = None
    """The scheduled time that it runs for."""

    trigger: int | None = None
    """The newest request of the triggers topic that it answers, if it answers any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitPart:
    """What one slot has in a `Commit`."""

    slot: str
    run: int | None
    """Take all that this run has buffered since its last part. None: only the record is written."""

    final: bool
    """The run has ended; else it waits for its checkpoint."""

    record: SlotRecord
    """Replaces the slot's record. Of two parts of one slot the later one counts, and their rows keep this order."""

    dead_letter: bool = False
    """The worker died on the last try: write the record that was in hand to the dead letters and move its place past
    it, in this transaction. A run without a record in hand writes none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Write all parts in one transaction of the shard's writer. Answer `Committed`, `CommitRefused` or `WriterLost`.
    At most one a shard is under way; what is in it must be kept until the answer. The writer is that of `opening`: once
    the shard is opened anew, nothing of this may be written, as its runs are run again."""

    shard: int
    opening: int
    commit: int
    parts: tuple[CommitPart, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Discard:
    """Kill the run's worker if it still works on it, and drop what it has buffered. No `RunEnded` is awaited."""

    slot: str
    run: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeAt:
    """Send a `Tick` at `at_ms` or soon after; None: none is needed. Each one replaces the last."""

    at_ms: int | None


Command: TypeAlias = OpenShard | CloseShard | StartRun | Commit | Discard | WakeAt
