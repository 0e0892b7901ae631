"""`python -m tailrace.runner`: one of the runners that share the nodes of a Kafka log among themselves."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from tailrace.errors import TailraceError
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
    said = lambda port: print(f"ready: http://{settings.host}:{port}", flush=True)  # noqa: E731
    await SpreadRunner(settings, Runtime(probe=probe_from_environment()), said).run(stop)


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
    of = os.environ.get
    parser = argparse.ArgumentParser(
        prog="python -m tailrace.runner",
        description="Runs nodes. Several runners on one log share them; when one goes, the others take its nodes over.",
        epilog="Each option has a variable: TAILRACE_LOG, TAILRACE_LAKE, TAILRACE_SHARED_FOLDER, TAILRACE_DATA, "
        "TAILRACE_HOST, TAILRACE_PORT, TAILRACE_SESSION_TIMEOUT, TAILRACE_DRAIN, TAILRACE_SHARDS, TAILRACE_RUNS.",
    )
    log, shared = of("TAILRACE_LOG"), of("TAILRACE_SHARED_FOLDER")
    plain = SpreadSettings(log_url="kafka://localhost")
    parser.add_argument("--log", metavar="URL", default=log, required=log is None, help="kafka://host:port,...")
    parser.add_argument("--lake", metavar="URL", default=of("TAILRACE_LAKE"), help="s3://bucket/prefix and the like")
    parser.add_argument(
        "--shared-folder",
        metavar="DIR",
        type=Path,
        default=Path(shared) if shared else None,
        help="a folder that all runners and snapshotters see, where the lake is in no object store",
    )
    parser.add_argument("--data", metavar="DIR", type=Path, default=Path(of("TAILRACE_DATA", str(plain.data_dir))))
    parser.add_argument("--host", default=of("TAILRACE_HOST", plain.host), help="address of /health, /metrics, /status")
    parser.add_argument(
        "--port", type=int, default=int(of("TAILRACE_PORT", plain.port)), help="their port; 0: a free one"
    )
    parser.add_argument(
        "--session-timeout",
        metavar="SECONDS",
        type=float,
        default=float(of("TAILRACE_SESSION_TIMEOUT", plain.session_timeout.total_seconds())),
        help="silence after which a runner's nodes move to others",
    )
    parser.add_argument(
        "--drain",
        metavar="SECONDS",
        type=float,
        default=float(of("TAILRACE_DRAIN", plain.drain.total_seconds())),
        help="longest that a stop waits for runs to end",
    )
    parser.add_argument(
        "--shards",
        type=int,
        default=int(of("TAILRACE_SHARDS", plain.runner.shards_shared)),
        help="partitions of tailrace._slots where it is made now; later the topic says it",
    )
    parser.add_argument(
        "--runs", type=int, default=int(of("TAILRACE_RUNS", plain.runner.runs_max)), help="most runs at once"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
