"""A house in a process of its own, which tells its parent what happens: `python -m benchmarks.house_main SETTINGS`.

SETTINGS is a JSON object {apps, data, url, out, note_scans, runner}; `runner` has what differs from `RunnerSettings`. One JSON line for each run and line of output goes to the
file `out`, with the time at which it was told; at the end, where `note_scans` names topics, one for each time that
records of theirs were handed to a worker. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import uvloop

from tailrace.cli.house import House, HouseSettings
from tailrace.process import settle_memory
from tailrace.runner import Entry, RunnerSettings
from tailrace.runner.tails import Scanned, TableTail
from tailrace.runtime import Runtime


def note_scans(topics: set[str], scans: list[dict[str, Any]]) -> None:
    """Have the host note when it gave which records of these topics to a worker."""
    scan = TableTail.scan

    async def noting(self: TableTail, start: int, stop: int, records_max: int) -> Scanned:
        scanned = await scan(self, start, stop, records_max)
        if self.info.name in topics and scanned.messages.offsets:
            scans.append({"at_ns": time.monotonic_ns(), "start": scanned.messages.offsets[0], "next": scanned.next})
        return scanned

    TableTail.scan = noting  # type: ignore[method-assign]


async def main() -> None:
    """Run until the parent closes our standard input."""
    settings = orjson.loads(sys.argv[1])
    scans: list[dict[str, Any]] = []
    if settings.get("note_scans"):
        note_scans(set(settings["note_scans"]), scans)
    with Path(settings["out"]).open("wb", buffering=0) as out:  # noqa: ASYNC230 - once, at the start

        def tell(entry: Entry) -> None:
            out.write(orjson.dumps({"at_ns": time.monotonic_ns(), **asdict(entry)}) + b"\n")

        house = House(
            HouseSettings(
                apps=[Path(app) for app in settings["apps"]],
                data_dir=Path(settings["data"]),
                log_url=settings.get("url"),
                port=0,
                runner=RunnerSettings(**settings.get("runner", {})),
            ),
            Runtime(),
            tell,
        )
        await house.start()
        settle_memory()
        print("up", flush=True)
        end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await asyncio.wait({end, house.failure}, return_when=asyncio.FIRST_COMPLETED)
        await house.stop()
        for each in scans:
            out.write(orjson.dumps({"type": "scan", **each}) + b"\n")
    if house.failure.done():
        raise house.failure.result()


uvloop.run(main())
