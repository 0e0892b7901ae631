"""The engine's bounds, each with what goes wrong on either side of it."""

from __future__ import annotations

from dataclasses import dataclass

from tailrace.errors import SettingError

__all__ = ["EngineLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """Bounds of one engine."""

    runs_max: int = 16
    """Most runs at once over all slots. Fewer let slow nodes hold the others back; each is a busy process."""

    rows_first: int = 100
    """Rows that a stream may hand out in a slot's first run. More delay the first output of a slow node, which nobody
    knows to be slow yet; fewer cost a quick one some runs until its bound has grown."""

    rows_max: int = 25_600
    """Where that bound stops growing. `list(stream)` holds them all in memory; fewer would let the fixed cost of a
    run show where a row takes microseconds."""

    share_ms: int = 25
    """Time in stream loops after which a run should end, so that its output is seen. Outputs are to be visible 0.2 s
    after their input was read, and the commit and the run before must fit in too, on a busy machine. Shorter spends the
    time on runs."""

    share_fixed_costs: int = 5
    """Or that many times the run's fixed cost, where this is longer: so a node that takes a second to begin spends
    most of its time on rows."""

    retry_pauses_ms: tuple[int, ...] = (10_000, 60_000, 600_000, 3_000_000)
    """Pauses before the second and later tries; the last one repeats. Together over an hour, so that a service which
    is away for lunch costs nobody a record; the first is short, because most trouble is."""

    failures_max: int = 5
    """Runs of a slot in a row that may fail and get nowhere; with this many the circuit breaker opens. Fewer would hold
    a node up whose service is away for a second; more only burn the machine."""

    shut_ms: int = 1_000
    """How long the breaker stays open at first; doubling with each failure of the one run that is then let through."""

    shut_ms_max: int = 300_000
    """Longest that it stays open: a node whose trouble is over goes on so soon without anybody's doing."""

    error_characters_max: int = 500
    """Most of an error that a slot's record keeps."""

    commit_parts_max: int = 256
    """Most parts in one transaction: it holds every reader back while it is open."""

    commit_pause_ms: int = 100
    """Pause before a refused commit is tried again, doubling up to `pause_ms_max`."""

    open_pause_ms: int = 100
    """Pause before a shard is opened once more whose last opening led to no commit, doubling up to `pause_ms_max`.
    The first time there is none: a lost writer's shard stands still until it is open."""

    pause_ms_max: int = 10_000
    """Longest of these two pauses: a log that is back is found that soon, and one that is away is not hammered."""

    def __post_init__(self) -> None:
        for name in (
            *("runs_max", "rows_first", "share_ms", "commit_parts_max", "commit_pause_ms", "open_pause_ms"),
            *("failures_max", "shut_ms"),
        ):
            if getattr(self, name) < 1:
                raise SettingError(name, getattr(self, name), "must be at least 1")
        if self.rows_max < self.rows_first:
            raise SettingError("rows_max", self.rows_max, f"must be at least rows_first ({self.rows_first})")
        if self.pause_ms_max < max(self.commit_pause_ms, self.open_pause_ms):
            raise SettingError("pause_ms_max", self.pause_ms_max, "must be at least the pauses that it bounds")
        if self.shut_ms_max < self.shut_ms:
            raise SettingError("shut_ms_max", self.shut_ms_max, f"must be at least shut_ms ({self.shut_ms})")
        if not self.retry_pauses_ms or min(self.retry_pauses_ms) < 0:
            raise SettingError("retry_pauses_ms", self.retry_pauses_ms, "must name at least one pause, none negative")

    @property
    def tries_max(self) -> int:
        """Tries of what fails on a node that says nothing about retries."""
        return len(self.retry_pauses_ms) + 1

    def pause_ms(self, first_ms: int, times: int) -> int:
        """The pause after the `times`th failure in a row, from 1: `first_ms`, doubling."""
        return int(min(self.pause_ms_max, first_ms << min(times - 1, 20)))

    def breaker_ms(self, failures: int) -> int | None:
        """How long the circuit breaker is open after that many failures in a row; None: it is closed."""
        beyond = failures - self.failures_max
        return None if beyond < 0 else min(self.shut_ms_max, self.shut_ms << min(beyond, 20))
