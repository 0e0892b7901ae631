"""`python -m tailrace.gateway`: the gateway as processes of their own, for machines that do nothing else."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import resource
import sys
from datetime import timedelta
from pathlib import Path

import uvloop

from tailrace.errors import TailraceError
from tailrace.gateway.process import run_one, run_workers
from tailrace.gateway.settings import GatewaySettings, ProcessSettings
from tailrace.process import REQUIRED, service_parser
from tailrace.runtime import Runtime, probe_from_environment


def main() -> int:
    """Serve until a signal comes; 1 where it could not start."""
    arguments = _parser().parse_args()
    settings = ProcessSettings(
        log_url=arguments.log,
        routes=arguments.routes,
        host=arguments.host,
        port=arguments.port,
        ops_host=arguments.ops_host,
        ops_port=arguments.ops_port,
        workers=arguments.workers,
        drain=timedelta(seconds=arguments.drain),
    )
    _allow_connections()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if settings.workers > 1:
        work = run_workers(settings, sys.argv[1:])
    else:
        work = run_one(settings, GatewaySettings(), Runtime(probe=probe_from_environment()))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)
    except TailraceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _allow_connections() -> None:
    """As many open files as this process may have: each connection is one, and the default is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):  # macOS has a limit of its own below the one it tells
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _parser() -> argparse.ArgumentParser:
    plain = ProcessSettings(log_url="")
    parser = service_parser(
        "gateway",
        "Webhooks into the log: those of the apps that are deployed there (`tailrace deploy`).",
        {
            "log": REQUIRED,
            "host": plain.host,
            "port": plain.port,
            "ops_host": plain.ops_host,
            "ops_port": plain.ops_port,
            "workers": plain.workers,
            "drain": plain.drain.total_seconds(),
        },
    )
    parser.add_argument("--routes", type=Path, help="a file of webhooks, in place of those that are deployed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
