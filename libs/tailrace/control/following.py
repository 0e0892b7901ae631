"""Following the control log: what is to run, now and whenever that changes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from functools import partial
from typing import TypeVar

from tailrace.control.archive import BadArchiveError
from tailrace.control.controllog import ControlLog, DeployedApp
from tailrace.control.deployments import Deployments
from tailrace.control.events import CONTROL
from tailrace.errors import RetriableError
from tailrace.log import Log
from tailrace.runtime import SYSTEM, Runtime

__all__ = ["follow_deployments"]

T = TypeVar("T")
_LOGGER = logging.getLogger("tailrace.control")
_PAUSE_S = 0.5
"""Before a log that is away is asked again."""


async def follow_deployments(log: Log, runtime: Runtime = SYSTEM) -> AsyncGenerator[Mapping[str, DeployedApp], None]:
    """The apps that are to run, by slug: at once (perhaps none), and then each time that another version of one does.

    Values of apps that did not change are the same objects as before. An app whose new files cannot be used goes on as
    it was, and a log that is away is waited for: this ends only when it is closed (`contextlib.aclosing`).
    """
    control = ControlLog(log, runtime)
    deployments = Deployments()
    apps: dict[str, DeployedApp] = {}
    await _call(lambda: control.read(deployments))
    with contextlib.closing(log.watch([CONTROL])) as watch:
        first = True
        while True:
            wanted = await _call(partial(_apps, control, deployments, apps))
            if first or wanted != apps:
                first, apps = False, wanted
                yield dict(apps)
            await watch.wait()
            await _call(lambda: control.read(deployments))


def _apps(control: ControlLog, deployments: Deployments, before: Mapping[str, DeployedApp]) -> dict[str, DeployedApp]:
    apps: dict[str, DeployedApp] = {}
    for slug, version in deployments.current.items():
        known = before.get(slug)
        if known is not None and (known.version, known.content) == (version.event.version, version.event.content):
            apps[slug] = known
            continue
        try:
            apps[slug] = control.app_of(version)
        except BadArchiveError as error:
            _LOGGER.error("version %d of app %s is left out: %s", version.event.version, slug, error)
            if known is not None:
                apps[slug] = known
    return apps


async def _call(function: Callable[[], T]) -> T:
    while True:
        try:
            return await asyncio.to_thread(function)
        except RetriableError as error:
            _LOGGER.warning("%s; trying again", error)
            await asyncio.sleep(_PAUSE_S)
