"""Where a runner on Kafka stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from tailrace.errors import RejectedError, SettingError
from tailrace.lake import LakeLocation
from tailrace.runner.settings import RunnerSettings

__all__ = ["NotSharedError", "SpreadSettings"]


class NotSharedError(RejectedError):
    """Several runners are to work on one log, and what they all must see would lie on one machine."""

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(
            f"{what} would lie on this machine alone, where other runners of the log do not see it: name an object store"
            " with --lake s3://bucket/prefix, or a folder that all runners and snapshotters have mounted with --shared-folder"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadSettings:
    """Where a runner on Kafka stands: `python -m tailrace.runner`."""

    log_url: str
    lake_url: str | None = None
    shared_dir: Path | None = None
    data_dir: Path = Path(".tailrace-runner")
    host: str = "127.0.0.1"
    port: int = 8710
    session_timeout: timedelta = timedelta(seconds=10)
    """Longest that a runner may be silent before its nodes move. Less than the broker's
    `group.min.session.timeout.ms` (6 s) is refused; a machine that stands still for longer loses its nodes for a while."""
    drain: timedelta = timedelta(seconds=5)
    """Longest that a stop waits for runs to end, before the others get their nodes."""
    runner: RunnerSettings = field(default_factory=RunnerSettings)

    def __post_init__(self) -> None:
        if not self.log_url.startswith("kafka://"):
            raise SettingError("log", self.log_url, "must be kafka://...: on one machine `tailrace up` runs the nodes")
        if self.session_timeout < timedelta(seconds=1):
            raise SettingError("session_timeout", self.session_timeout, "must be at least 1 s")

    @property
    def lake(self) -> LakeLocation:
        """Where the lake is. Raises `NotSharedError`, `LakeUrlError` (rejected)."""
        location = LakeLocation.parse(self.lake_url or str((self.shared_dir or self.data_dir).resolve() / "lake"))
        if location.is_local and self.shared_dir is None:
            raise NotSharedError(f"the lake in {location.url}")
        return location

    @property
    def staging_dir(self) -> Path:
        """Where staged files lie; beside a lake in an object store, those that have not come there yet."""
        return (self.shared_dir or self.data_dir).resolve() / "staging"
