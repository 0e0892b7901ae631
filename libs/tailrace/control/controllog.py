"""The control log: what is deployed is read from it, and changed in it alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tailrace.control.archive import BadArchiveError, content_hash, pack, unpack
from tailrace.control.deployments import AppVersion, Deployments, NoSuchDeploymentError
from tailrace.control.events import CONTROL, CONTROL_TOPIC, Deployed, Event, Undeployed, event_of, forgotten
from tailrace.errors import RetriableError
from tailrace.graph import COMPONENTS_FOLDER, App, build_app
from tailrace.log import Append, FencedError, Log, OffsetGapError, OutcomeUnknownError, scan
from tailrace.runtime import SYSTEM, Runtime

__all__ = ["ControlLog", "DeployConflictError", "DeployedApp", "Outcome"]

WRITER = "tailrace.control"
_TRIES = 5
"""Deploys that come between ours before we give up: each of them fenced us."""


class DeployConflictError(RetriableError):
    """Others deployed at the same time, again and again."""

    def __init__(self, app: str) -> None:
        self.app = app
        super().__init__(f"app {app!r} was not deployed: others deploy at the same time; try again")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedApp:
    """An app as the control log has it."""

    version: int
    content: str
    """Names what was deployed; the same for the same files."""
    app: App = field(repr=False)


class Outcome(NamedTuple):
    """What a deployment led to."""

    event: Deployed
    """Of what runs now, without its archive."""
    is_new: bool
    """Whether an event was written; not so where the same files ran already."""


class ControlLog:
    """Reads and writes the control log. Synchronous, as the log is; every call may block."""

    def __init__(self, log: Log, runtime: Runtime = SYSTEM) -> None:
        self.log = log
        self._runtime = runtime
        self._made = False

    def read(self, known: Deployments | None = None) -> Deployments:
        """What is deployed now; `known` is brought up to date and returned, where it is given."""
        if not self._made:
            self.log.create_topics([CONTROL_TOPIC])
            self._made = True
        deployments = known or Deployments()
        end = self.log.settled_ends([CONTROL])[CONTROL]
        start = max(deployments.position, self.log.starts([CONTROL])[CONTROL])
        for batch in scan(self.log, CONTROL, start, end):
            deployments.advance(batch.records, batch.next)
        return deployments

    def app_of(self, version: AppVersion) -> DeployedApp:
        """The app of a version, from its files.

        Raises:
            BadArchiveError: rejected; its files cannot be used, or are not kept any more.
        """
        event = self._event_at(version)
        files = unpack(event.archive)
        if content_hash(event.app, event.root_file, files) != event.content:
            raise BadArchiveError("its files are not those that were deployed")
        app = build_app(_own(files), event.root_file, event.app, _components(files))
        return DeployedApp(version=event.version, content=event.content, app=_named(app, event))

    def _event_at(self, version: AppVersion) -> Deployed:
        with contextlib.suppress(OffsetGapError):
            for record in self.log.read(CONTROL, version.offset, records_max=1).records:
                event = event_of(record)
                if isinstance(event, Deployed) and record.offset == version.offset:
                    return event
        raise BadArchiveError(f"the control log does not keep version {version.event.version} any more")

    def deploy(self, app: App, by: str) -> Outcome:
        """Make `app` what runs under its slug. Nothing is written where the very same files run already.

         1. `deploy-packed`     nothing has changed yet.
         2. `deploy-appended`   the point of no return: whoever follows the control log takes the app over, now or when
                                it starts next. A crash before leaves no trace.

        Raises:
            AppTooLargeError: rejected; its files do not fit into the control log.
            DeployConflictError: retriable; others deploy at the same time.
        """
        archive = pack(app.files)
        self._runtime.probe.reached("deploy-packed")
        return self._deploy(app.slug, lambda deployments: self._event(app, by, deployments, archive))

    def planned(self, app: App, by: str) -> Outcome:
        """What `deploy` would lead to. Raises AppTooLargeError as it does."""
        deployments = self.read()
        event = self._event(app, by, deployments, pack(app.files))
        if event is not None:
            return Outcome(replace(event, archive=b""), is_new=True)
        return Outcome(deployments.current[app.slug].event, is_new=False)

    def _event(self, app: App, by: str, deployments: Deployments, archive: bytes) -> Deployed | None:
        """What deploys `app`; None where it runs already."""
        content = content_hash(app.slug, app.root_file, app.files)
        running = deployments.running(app.slug)
        if running is not None and running.event.content == content:
            return None
        return Deployed(
            app=app.slug,
            title=app.title,
            version=deployments.next_version(app.slug),
            content=content,
            root_file=app.root_file,
            at_ms=self._runtime.clock.now_ms(),
            by=by,
            archive=archive,
        )

    def roll_back(self, slug: str, to: int | None, by: str) -> Outcome:
        """Deploy an older version of the app once more: `to`, or else the last that was another than this.

        Raises:
            NoSuchDeploymentError: rejected; there is no such version.
            BadArchiveError: rejected; its files cannot be used.
        """

        def event(deployments: Deployments) -> Deployed | None:
            wanted = deployments.version(slug, to)
            now = deployments.running(slug)
            if now is not None and now.event.content == wanted.event.content:
                return None
            older = self._event_at(wanted)
            return Deployed(
                app=slug,
                title=older.title,
                version=deployments.next_version(slug),
                content=older.content,
                root_file=older.root_file,
                at_ms=self._runtime.clock.now_ms(),
                by=by,
                back_to=older.back_to or older.version,
                archive=older.archive,
            )

        return self._deploy(slug, event)

    def undeploy(self, slug: str, by: str) -> Deployed:
        """Have nothing run under that slug; the app's Tables and its history stay. Returns what ran.

        Raises:
            NoSuchDeploymentError: rejected; no such app runs.
        """
        deployments = self.read()
        ran = deployments.running(slug)
        if ran is None:
            raise NoSuchDeploymentError(slug, None, deployments.current)

        def event(deployments: Deployments) -> Undeployed | None:
            if deployments.running(slug) is None:
                return None
            version, now_ms = deployments.next_version(slug), self._runtime.clock.now_ms()
            return Undeployed(app=slug, version=version, at_ms=now_ms, by=by)

        self._change(slug, event)
        return ran.event

    def _deploy(self, slug: str, event: Callable[[Deployments], Deployed | None]) -> Outcome:
        written = self._change(slug, event)
        if isinstance(written, Deployed):
            return Outcome(replace(written, archive=b""), is_new=True)
        running = self.read().running(slug)
        if running is None:
            raise DeployConflictError(slug)  # it ran when we looked
        return Outcome(running.event, is_new=False)

    def _change(self, slug: str, decide: Callable[[Deployments], Event | None]) -> Event | None:
        """Write the event that `decide` wants, given what is deployed, and return it; None: nothing is to be done.

        The writer is opened first and the log read after, so two at once never decide on the same state: the older
        one is fenced, and looks again. So it does after an unknown outcome: an event that is there counts.
        """
        if decide(self.read()) is None:
            return None
        tried: Event | None = None
        for _ in range(_TRIES):
            with contextlib.closing(self.log.open_writer(WRITER)) as writer:
                deployments = self.read()
                if isinstance(tried, Deployed) and deployments.has(tried):
                    return tried
                wanted = decide(deployments)
                if wanted is None:
                    return None
                records = [wanted.to_record(), *(forgotten(slug, old) for old in deployments.too_old(slug))]
                try:
                    writer.commit([Append(CONTROL, records)])
                except FencedError:
                    continue
                except OutcomeUnknownError:
                    tried = wanted
                    continue
            self._runtime.probe.reached("deploy-appended")
            return wanted
        raise DeployConflictError(slug)


def _named(app: App, event: Deployed) -> App:
    """The app under the name of its deployment: its own may come from the folder that it was read from."""
    return replace(app, slug=event.app, title=event.title)


def _own(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {path: data for path, data in files.items() if not path.startswith(f"{COMPONENTS_FOLDER}/")}


def _components(files: Mapping[str, bytes]) -> Callable[[str], Mapping[str, bytes] | None]:
    """What resolves `org/component@version` from files that travelled with the app."""

    def resolve(uses: str) -> Mapping[str, bytes] | None:
        prefix = f"{COMPONENTS_FOLDER}/{uses}/"
        found = {path.removeprefix(prefix): data for path, data in files.items() if path.startswith(prefix)}
        return found or None

    return resolve
