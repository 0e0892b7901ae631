"""`python -m tailrace.runner`: one of the runners that share the nodes of a Kafka log among themselves."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from tailrace.errors import TailraceError
from tailrace.process import REQUIRED, service_parser, settle_memory
from tailrace.runner.settings import RunnerSettings
from tailrace.runner.spread import SpreadRunner, SpreadSettings
from tailrace.runtime import Runtime, probe_from_environment


def main() -> int:
    """Run nodes until SIGTERM or SIGINT; 1 where it could not start, or must not go on."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stderr)
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        asyncio.run(_serve(_settings(sys.argv[1:])))
    except TailraceError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


async def _serve(settings: SpreadSettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def ready(port: int) -> None:
        settle_memory()
        print(f"ready: http://{settings.host}:{port}", flush=True)

    await SpreadRunner(settings, Runtime(probe=probe_from_environment()), ready).run(stop)


def _settings(arguments: Sequence[str]) -> SpreadSettings:
    found = _parser().parse_args(arguments)
    return SpreadSettings(
        log_url=found.log,
        lake_url=found.lake,
        shared_dir=found.shared_folder,
        data_dir=found.data,
        host=found.host,
        port=found.port,
        session_timeout=timedelta(seconds=found.session_timeout),
        drain=timedelta(seconds=found.drain),
        runner=replace(RunnerSettings(), shards_shared=found.shards, runs_max=found.runs),
    )


def _parser() -> argparse.ArgumentParser:
    plain = SpreadSettings(log_url="kafka://localhost")
    return service_parser(
        "runner",
        "Runs nodes. Several runners on one log share them; when one goes, the others take its nodes over.",
        {
            "log": REQUIRED,
            "lake": None,
            "shared_folder": None,
            "data": plain.data_dir,
            "host": plain.host,
            "port": plain.port,
            "session_timeout": plain.session_timeout.total_seconds(),
            "drain": plain.drain.total_seconds(),
            "shards": plain.runner.shards_shared,
            "runs": plain.runner.runs_max,
        },
    )


if __name__ == "__main__":
    sys.exit(main())
