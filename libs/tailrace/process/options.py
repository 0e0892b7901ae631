"""The options of the services, each with its variable: one table for all of them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tailrace.durations import duration

__all__ = ["OPTIONS", "REQUIRED", "Option", "service_parser"]

REQUIRED = object()
"""In place of a default: the option, or its variable, must be given."""


class Option(NamedTuple):
    """An option that several commands and services may have. Its default is theirs."""

    flag: str
    """As it is written: `--ops-port`."""
    help: str
    metavar: str = "TEXT"
    read: Callable[[str], object] = str

    @property
    def name(self) -> str:
        """As a field of what was parsed: `ops_port`."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def variable(self) -> str:
        """What stands for the option where it is not given: `TAILRACE_OPS_PORT`."""
        return f"TAILRACE_{self.name.upper()}"


OPTIONS = (
    Option("--log", "the log: sqlite:///path or kafka://host:port,...", "URL"),
    Option("--lake", "where Delta tables are: a folder, or s3://bucket/prefix and the like", "URL"),
    Option("--data", "folder of what is this process's alone; `up` keeps everything there", "DIR", Path),
    Option(
        "--shared-folder",
        "a folder that all runners and snapshotters see: staged files, and the lake where none is named",
        "DIR",
        Path,
    ),
    Option("--host", "address to listen on; of a runner: of its pages", "ADDRESS"),
    Option("--port", "port to listen on; 0: a free one", "PORT", int),
    Option("--ops-host", "address of /healthz, /readyz and /metrics", "ADDRESS"),
    Option("--ops-port", "their port; with several workers the first of as many", "PORT", int),
    Option("--workers", "processes on the port", "COUNT", int),
    Option(
        "--drain", "seconds from the stop signal to the last connection, or to letting go of nodes", "SECONDS", float
    ),
    Option("--session-timeout", "silence after which a runner's nodes move to others", "SECONDS", float),
    Option("--shards", "partitions of tailrace._slots where it is made now; later the topic says it", "COUNT", int),
    Option("--runs", "most runs at once", "COUNT", int),
    Option(
        "--retention",
        "how long superseded table versions stay, and records that are in the lake: 12h, 30d",
        "TIME",
        duration,
    ),
    Option("--instance", "tells snapshotters apart; else the machine's name", "NAME"),
)
"""All of them. docs/reference/settings.md lists the same, which a test holds it to."""


def service_parser(
    service: str, description: str, defaults: Mapping[str, object], environment: Mapping[str, str] = os.environ
) -> argparse.ArgumentParser:
    """The parser of `python -m tailrace.<service>`.

    Args:
        defaults: by name, the options that the service has and what each is where neither it nor its variable is
            given; `REQUIRED`: one of them must be.
    """
    table = {option.name: option for option in OPTIONS}
    options = [table[name] for name in defaults]
    parser = argparse.ArgumentParser(
        prog=f"python -m tailrace.{service}",
        description=description,
        epilog=f"Each option has a variable: {', '.join(option.variable for option in options)}.",
    )
    for option in options:
        default = defaults[option.name]
        # A text is read as the option would be, so that a variable's mistake is told in the same way.
        known = environment.get(option.variable) or (None if default is REQUIRED else default)
        parser.add_argument(
            option.flag,
            metavar=option.metavar,
            type=option.read,
            default=known,
            required=default is REQUIRED and known is None,
            help=option.help if default in (REQUIRED, None) else f"{option.help} ({default})",
        )
    return parser
