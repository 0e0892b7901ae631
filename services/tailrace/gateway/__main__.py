"""`python -m tailrace.gateway`: the gateway as processes of their own, for machines that do nothing else."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import resource
import sys
from datetime import timedelta
from pathlib import Path

import uvloop

from tailrace.errors import TailraceError
from tailrace.gateway.process import run_one, run_workers
from tailrace.gateway.settings import GatewaySettings, ProcessSettings
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
    of = os.environ.get
    parser = argparse.ArgumentParser(
        prog="python -m tailrace.gateway",
        description="Webhooks into the log: those of the apps that are deployed there (`tailrace deploy`).",
        epilog="Each option has a variable: TAILRACE_LOG, TAILRACE_HOST, TAILRACE_PORT, TAILRACE_OPS_HOST, "
        "TAILRACE_OPS_PORT, TAILRACE_WORKERS, TAILRACE_DRAIN.",
    )
    log, ops_port = of("TAILRACE_LOG"), of("TAILRACE_OPS_PORT")
    plain = ProcessSettings(log_url="")
    parser.add_argument(
        "--log", metavar="URL", default=log, required=log is None, help="sqlite:///path or kafka://host"
    )
    parser.add_argument("--routes", type=Path, help="a file of webhooks, in place of those that are deployed")
    parser.add_argument("--host", default=of("TAILRACE_HOST", plain.host), help="address to listen on")
    parser.add_argument(
        "--port", type=int, default=int(of("TAILRACE_PORT", plain.port)), help="port to listen on; 0: a free one"
    )
    parser.add_argument(
        "--ops-host", default=of("TAILRACE_OPS_HOST", plain.ops_host), help="address of /healthz, /readyz and /metrics"
    )
    parser.add_argument(
        "--ops-port",
        type=int,
        default=int(ops_port) if ops_port else None,
        help="their port; with several workers the first of as many",
    )
    parser.add_argument(
        "--workers", type=int, default=int(of("TAILRACE_WORKERS", plain.workers)), help="processes on the port"
    )
    parser.add_argument(
        "--drain",
        type=float,
        default=float(of("TAILRACE_DRAIN", plain.drain.total_seconds())),
        help="seconds from the stop signal to the last connection",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
