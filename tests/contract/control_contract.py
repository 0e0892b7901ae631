"""What the control log promises on every log."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tailrace.control import (
    CONTROL,
    AppTooLargeError,
    ControlLog,
    NoSuchDeploymentError,
    follow_deployments,
)
from tailrace.graph import App, build_app
from tailrace.log import Log, NewRecord, OutcomeUnknownError
from tailrace.runtime import Crash, CrashAt, Runtime

GRAPH = "functions:\n  - {node_file: a.py, id: nodea001}\nstores:\n  - {table: t, id: storet01}\n"
BY = "somebody@somewhere"


def app(slug: str, code: str = "print(1)\n", **more: bytes) -> App:
    files = {"graph.yml": GRAPH.encode(), "a.py": code.encode(), **more}
    return build_app(files, "graph.yml", slug)


class ControlContract:
    """A backend's test class adds a `log` fixture and nothing else."""

    @pytest.fixture
    def slug(self) -> str:
        """Other tests deploy to the same control log."""
        return f"app{secrets.token_hex(4)}"

    def test_a_deployment_carries_the_app(self, log: Log, slug: str) -> None:
        """Whoever follows needs nothing but the log."""
        control, wanted = ControlLog(log), app(slug)
        event, is_new = control.deploy(wanted, BY)
        assert (event.version, event.by, is_new) == (1, BY, True)
        version = ControlLog(log).read().running(slug)
        assert version is not None
        found = control.app_of(version)
        assert found.app == wanted
        assert found.content == event.content

    def test_the_same_files_again_change_nothing(self, log: Log, slug: str) -> None:
        control = ControlLog(log)
        control.deploy(app(slug), BY)
        end = log.settled_ends([CONTROL])  # a transaction of a moment ago is behind both
        assert control.deploy(app(slug), BY).is_new is False
        assert control.planned(app(slug), BY).is_new is False
        assert log.settled_ends([CONTROL]) == end

    def test_a_rollback_is_a_deployment_of_the_older_version(self, log: Log, slug: str) -> None:
        control = ControlLog(log)
        for code in ("one()\n", "two()\n", "three()\n"):
            control.deploy(app(slug, code), BY)
        assert [control.roll_back(slug, None, BY).event.back_to for _ in range(2)] == [2, 1]
        with pytest.raises(NoSuchDeploymentError):
            control.roll_back(slug, None, BY)
        event, _ = control.roll_back(slug, 3, BY)
        running = control.read().running(slug)
        assert running is not None
        assert (event.version, running.event.version) == (6, 6)
        assert control.app_of(running).app == app(slug, "three()\n")
        assert [each.event.version for each in control.read().history(slug)] == [1, 2, 3, 4, 5, 6]

    def test_what_was_taken_away_can_come_back(self, log: Log, slug: str) -> None:
        control = ControlLog(log)
        control.deploy(app(slug), BY)
        assert control.undeploy(slug, BY).version == 1
        assert control.read().running(slug) is None
        with pytest.raises(NoSuchDeploymentError):
            control.undeploy(slug, BY)
        event, _ = control.roll_back(slug, None, BY)
        assert (event.version, event.back_to) == (3, 1)

    def test_two_at_once_are_one_after_the_other(self, log: Log, slug: str) -> None:
        """The one that was fenced looks again, and no number is given twice."""
        control, rival = ControlLog(log), ControlLog(log)
        real = log.open_writer
        once = iter([True])

        def fenced(name: str) -> object:
            writer = real(name)
            if next(once, False):
                rival.deploy(app(slug, "rival()\n"), BY)
            return writer

        with _replaced(log, fenced):
            assert control.deploy(app(slug), BY).event.version == 2
        assert [each.event.version for each in control.read().history(slug)] == [1, 2]

    @pytest.mark.parametrize("written", [True, False])
    def test_an_unknown_outcome_is_found_out(self, log: Log, slug: str, written: bool) -> None:
        real = log.open_writer
        once = iter([True])

        class Doubtful:
            def __init__(self, name: str) -> None:
                self._writer = real(name)
                self.close = self._writer.close

            def commit(self, *arguments: object) -> object:
                if not next(once, False):
                    return self._writer.commit(*arguments)  # type: ignore[arg-type]
                if written:
                    self._writer.commit(*arguments)  # type: ignore[arg-type]
                raise OutcomeUnknownError("commit", "the log went away")

        with _replaced(log, Doubtful):
            assert ControlLog(log).deploy(app(slug), BY).is_new is True
        assert [each.event.version for each in ControlLog(log).read().history(slug)] == [1]

    @pytest.mark.parametrize(("point", "there"), [("deploy-packed", False), ("deploy-appended", True)])
    def test_a_death_leaves_all_or_nothing(self, log: Log, slug: str, point: str, there: bool) -> None:
        """The event is the point of no return; the same command again completes what a death cut off."""
        with pytest.raises(Crash):
            ControlLog(log, Runtime(probe=CrashAt(point))).deploy(app(slug), BY)
        assert (ControlLog(log).read().running(slug) is not None) is there
        assert ControlLog(log).deploy(app(slug), BY).is_new is not there
        assert [each.event.version for each in ControlLog(log).read().history(slug)] == [1]

    def test_an_app_that_does_not_fit_is_refused(self, log: Log, slug: str) -> None:
        data = secrets.token_bytes(6 << 20)
        with pytest.raises(AppTooLargeError, match=r"data\.bin"):
            ControlLog(log).deploy(app(slug, **{"data.bin": data}), BY)
        assert ControlLog(log).read().running(slug) is None

    def test_followers_see_what_runs_and_each_change(self, log: Log, slug: str) -> None:
        async def follow() -> list[tuple[int | None, str | None]]:
            control, seen = ControlLog(log), []
            async with contextlib.aclosing(follow_deployments(log)) as follower, asyncio.timeout(30):
                steps: list[Callable[[], object]] = [
                    lambda: control.deploy(app(slug, "one()\n"), BY),
                    lambda: log.append(CONTROL, [NewRecord(b"not ours", b"x")]),
                    lambda: control.deploy(app(slug, "two()\n"), BY),
                    lambda: control.roll_back(slug, None, BY),
                    lambda: control.undeploy(slug, BY),
                ]
                first = await anext(follower)
                assert slug not in first
                for number, step in enumerate(steps):
                    await asyncio.to_thread(step)
                    if number == 1:
                        continue
                    found = (await anext(follower)).get(slug)
                    seen.append((found.version, found.app.files["a.py"].decode()) if found else (None, None))
            return seen

        assert asyncio.run(follow()) == [(1, "one()\n"), (2, "two()\n"), (3, "one()\n"), (None, None)]

    def test_an_app_whose_files_cannot_be_used_goes_on(self, log: Log, slug: str) -> None:
        async def follow() -> tuple[int, int]:
            control = ControlLog(log)
            control.deploy(app(slug), BY)
            async with contextlib.aclosing(follow_deployments(log)) as follower, asyncio.timeout(30):
                before = (await anext(follower))[slug]
                good = control.read().running(slug)
                assert good is not None
                damaged = control._event_at(good)
                record = replace(damaged, version=2, archive=b"PK damaged").to_record()
                await asyncio.to_thread(log.append, CONTROL, [record])
                await asyncio.to_thread(control.deploy, app(f"{slug}b"), BY)
                after = (await anext(follower))[slug]
            return before.version, after.version

        assert asyncio.run(follow()) == (1, 1)


@contextlib.contextmanager
def _replaced(log: Log, open_writer: object) -> Iterator[None]:
    log.open_writer = open_writer  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        del log.open_writer
