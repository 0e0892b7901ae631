"""Bounds of one runner, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tailrace.errors import SettingError

__all__ = ["RunnerSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """Bounds of one runner."""

    shards: int = 4
    """Writers over all hosts of a log; each slot belongs to one for ever, so the number is fixed for a log's life."""

    shards_shared: int = 32
    """The same, on a log that several hosts share: partitions of the topic `tailrace._slots` when it is made. From then
    on the topic says it. More runners than shards leave some of them idle; each shard with slots is a producer."""

    workers_idle_max: int = 8
    """Most warm workers that wait for their node's next run. Each holds some 10-30 MB of its own; without a warm one
    a run begins with a fork (some 20 ms)."""

    worker_idle: timedelta = timedelta(seconds=60)
    """How long a warm worker waits for its node's next run, and a quarter of that more at most."""

    runs_max: int = 4
    """Most runs at the same time. More only share the same cores, and each holds its inputs in memory."""

    scan_records_max: int = 5_000
    """Most records in one answer to a worker. Fewer mean more round trips; all are in memory twice for a moment."""

    scan_bytes_max: int = 4 << 20
    """Most bytes in one answer to a worker (one record may be over it)."""

    tail_bytes_max: int = 16 << 20
    """Most bytes of a table's newest records that are kept in memory, so that a stream does not read them twice."""

    backlog_records_max: int = 20_000
    """Most records that are looked at before a run that streams a table begins; the rest waits for the next run."""

    index_every_offsets: int = 100_000
    """Offsets after which a table's fold is saved. Fewer write the index topic for little; more make the next start
    after a crash fold that many again (about 0.2 s)."""

    time_limit: timedelta = timedelta(minutes=10)
    """Hard limit of a run where the node sets none. The product's own is "typically" 10 minutes."""

    time_limit_grace: timedelta = timedelta(seconds=30)
    """From the limit being raised into the script to the kill. A script may need some of it to clean up."""

    retry_pauses: tuple[timedelta, ...] = (
        timedelta(seconds=1),
        timedelta(minutes=1),
        timedelta(minutes=10),
        timedelta(minutes=50),
    )
    """Pauses before the second and later tries of what failed. The first is short, because most trouble is over at once
    (a worker killed from outside); together they last over an hour, so that an outage costs nobody a record."""

    memory_bytes_max: int = 2 << 30
    """Memory of a worker where the node sets none."""

    cpu_limit: timedelta = timedelta(minutes=20)
    """CPU time of one run where the node sets none; no less than twice its time limit. Past it the worker is killed."""

    temp_bytes_max: int = 2 << 30
    """Quota of a worker's temporary folder; past it the worker is killed."""

    processes_max: int = 512
    """Processes and threads of a worker and what it started, where a control group can be made for it."""

    executor: str = "process"
    """What nodes run in: `process`, `bubblewrap` or `container`. A node may ask for a stronger one, never for a weaker."""

    container_image: str | None = None
    """Image of the executor `container`: one with this Python and this tailrace in it, as the runner's own."""

    network: bool = True
    """Whether nodes may reach other machines at all; one that says `network: false` may not in any case."""

    metadata_addresses: bool = False
    """Whether nodes' Python code may connect to 169.254.0.0/16, where clouds hand out the machine's credentials."""

    stop_timeout: timedelta = timedelta(seconds=3)
    """Longest that a clean stop waits for runs to end; what has not ended by then starts again after the restart."""

    history_retention: timedelta = timedelta(days=7)
    """How long runs, their output and triggers stay in the log. More is more to read through for who looks for a run."""

    history_interval: timedelta = timedelta(minutes=20)
    """How often what is older is let go of; each time takes some reads of the log."""

    removed_retention: timedelta = timedelta(days=7)
    """How long the State, the places and the group of a node stay that a deployment has taken away. One of its id that comes
    later begins anew."""

    retry_pause: timedelta = timedelta(milliseconds=250)
    """Pause before a log that is away is asked again."""

    writer_interval: timedelta = timedelta(seconds=2)
    """How often writers that have nothing to write are asked whether they still can: no more than a look at memory."""

    def __post_init__(self) -> None:
        for name in ("shards", "shards_shared"):
            if getattr(self, name) < 1:
                raise SettingError(name, getattr(self, name), "at least 1")
        if self.executor not in ("process", "bubblewrap", "container"):
            raise SettingError("executor", self.executor, "one of process, bubblewrap and container")
