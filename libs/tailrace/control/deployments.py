"""What is deployed, as the control log has it: a fold over its events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tailrace.control.events import Deployed, event_of
from tailrace.errors import RejectedError
from tailrace.log import Offset, Record

__all__ = ["VERSIONS_KEPT", "AppVersion", "Deployments", "NoSuchDeploymentError"]

VERSIONS_KEPT = 100
"""Versions of an app that it can be rolled back to. Each holds the app's files: more would make the control log long to
read, and nobody goes back so far."""


class NoSuchDeploymentError(RejectedError):
    """The control log has no such app, or no such version of it."""

    def __init__(self, app: str, version: int | None, known: Iterable[str | int]) -> None:
        self.app, self.version, self.known = app, version, list(known)
        what = f"app {app!r} was never deployed" if version is None else f"app {app!r} has no version {version}"
        there = ", ".join(map(str, self.known[-10:])) or "none"
        super().__init__(f"{what}; there are: {there} (`tailrace deployments` lists them)")


@dataclass(frozen=True, slots=True, kw_only=True)
class AppVersion:
    """One deployment of an app, without its files: they lie in the control log at `offset`."""

    event: Deployed
    offset: Offset


@dataclass(frozen=True, slots=True)
class _Known:
    versions: tuple[AppVersion, ...] = ()
    """Oldest first."""
    newest: int = 0
    """Number of the newest event of the app."""
    current: int | None = None
    """The version that runs; None: it was taken away."""


class Deployments:
    """What the control log says up to `position`."""

    def __init__(self) -> None:
        self.position = Offset(0)
        """Records before it have been taken in."""
        self._apps: dict[str, _Known] = {}

    def advance(self, records: Iterable[Record], position: Offset) -> bool:
        """Take in what follows; returns whether another version of some app runs now.

        Events come in the order of the log, and each at most once; one that was taken in before, or that carries an
        older number than the app has reached, changes nothing.
        """
        before = {app: known.current for app, known in self._apps.items()}
        for record in records:
            if record.offset >= self.position:
                self._take(record)
        self.position = max(self.position, position)
        return before != {app: known.current for app, known in self._apps.items()}

    def _take(self, record: Record) -> None:
        event = event_of(record)
        if event is None:
            self._forget(record)
            return
        known = self._apps.get(event.app, _Known())
        if event.version <= known.newest:
            return
        if isinstance(event, Deployed):
            version = AppVersion(event=replace(event, archive=b""), offset=record.offset)
            known = replace(known, versions=(*known.versions, version), current=event.version)
        else:
            known = replace(known, current=None)
        self._apps[event.app] = replace(known, newest=event.version)

    def _forget(self, record: Record) -> None:
        """A tombstone takes a version out of the history; the one that runs is never taken away."""
        kind, _, rest = (record.key or b"").decode(errors="replace").partition("/")
        app, _, number = rest.rpartition("/")
        known = self._apps.get(app)
        if kind != "deployment" or known is None or record.value is not None or not number.isdecimal():
            return
        kept = tuple(each for each in known.versions if each.event.version != int(number))
        self._apps[app] = replace(known, versions=kept)

    @property
    def current(self) -> Mapping[str, AppVersion]:
        """The version of each app that runs now, by slug."""
        found = {app: self.running(app) for app in sorted(self._apps)}
        return {app: version for app, version in found.items() if version is not None}

    def running(self, app: str) -> AppVersion | None:
        """The version of the app that runs now."""
        known = self._apps.get(app, _Known())
        return next((each for each in known.versions if each.event.version == known.current), None)

    def has(self, event: Deployed) -> bool:
        """Whether this very event was taken in."""
        return any(replace(event, archive=b"") == each.event for each in self.history(event.app))

    def history(self, app: str) -> tuple[AppVersion, ...]:
        """The app's versions that are kept, oldest first."""
        return self._apps.get(app, _Known()).versions

    @property
    def apps(self) -> tuple[str, ...]:
        """All apps that were ever deployed, those included that were taken away."""
        return tuple(sorted(self._apps))

    def next_version(self, app: str) -> int:
        """The number of the app's next event."""
        return self._apps.get(app, _Known()).newest + 1

    def too_old(self, app: str, kept: int = VERSIONS_KEPT) -> tuple[int, ...]:
        """Versions to forget once one more was deployed."""
        numbers = [each.event.version for each in self.history(app)]
        return tuple(numbers[: max(0, len(numbers) + 1 - kept)])

    def version(self, app: str, number: int | None = None) -> AppVersion:
        """A version by its number; None: the one before the one that runs, other than it in content.

        Raises:
            NoSuchDeploymentError: rejected; there is none.
        """
        history = self.history(app)
        numbers = [each.event.version for each in history]
        if not history:
            raise NoSuchDeploymentError(app, None, self.apps)
        running = self.running(app)
        if number is not None:
            found = [each for each in history if each.event.version == number]
        elif running is None:
            found = list(history)
        else:  # back from a rollback is further back, not forth again
            number = (running.event.back_to or running.event.version) - 1
            content = running.event.content
            found = [each for each in history if each.event.version <= number and each.event.content != content]
        if not found:
            raise NoSuchDeploymentError(app, number, numbers)
        return found[-1]
