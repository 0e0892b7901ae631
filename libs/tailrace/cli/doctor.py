"""`doctor`: gathers what can be seen of a deployment, and prints what its checks find."""

from __future__ import annotations

import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tailrace.cli.backup import DataFolder, LakeUrl, LogUrl
from tailrace.cli.errors import EXIT_FAILED, EXIT_OK
from tailrace.cli.options import Json
from tailrace.cli.output import console, count, print_json, printable, say

if TYPE_CHECKING:
    from tailrace.cli.house import HouseSettings
    from tailrace.doctor import Finding, MachineFacts
    from tailrace.log import LogFacts
    from tailrace.runtime import Clock

__all__ = ["doctor"]

PACKAGES = ("tailrace", "confluent-kafka", "deltalake", "duckdb", "pyarrow")


def doctor(
    log: LogUrl = None,
    lake: LakeUrl = None,
    data: DataFolder = Path(".tailrace"),
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Mend settings of topics, and end transactions that the cluster has left open."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell what is wrong with a deployment, and how to mend it.

    Looks at log, lake, clocks, disks, versions and what holds node code. Everything may run meanwhile.

    \b
    tailrace doctor
    tailrace doctor --log kafka://localhost:9092 --lake s3://rows/lake
    tailrace doctor --json | jq '.[] | select(.level == "wrong")'
    """
    from tailrace.cli.house import HouseSettings
    from tailrace.doctor import Facts, examine_all, hanging_writers, topic_mends
    from tailrace.lake import examine_lake
    from tailrace.log import end_hanging, examine, mend_topics
    from tailrace.runtime import SYSTEM

    settings = HouseSettings(data_dir=data, log_url=log, lake_url=lake)
    to = console(stderr=True)
    with to.status("looking at this machine") as status:
        machine = _machine(settings, SYSTEM.clock)
        status.update(f"looking at {settings.shown_url}")
        log_facts = _log_facts(settings) if _is_missing(settings.url) else examine(settings.url)
        status.update(f"looking at {settings.lake}")
        facts = Facts(log=log_facts, lake=examine_lake(settings.location), machine=machine)
        mends, writers = topic_mends(facts), hanging_writers(facts)
        if fix and (mends or writers):
            for name, wanted in mends.items():
                say(f"{name}: setting {', '.join(f'{key}={value}' for key, value in wanted.items())}")
            mend_topics(settings.url, mends)
            for writer in writers:
                say(f"{writer}: ending its transaction as it was decided")
            end_hanging(settings.url, writers)
            facts = Facts(log=examine(settings.url), lake=facts.lake, machine=machine)
    findings = examine_all(facts)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print(findings)
    raise typer.Exit(EXIT_FAILED if any(finding.level == "wrong" for finding in findings) else EXIT_OK)


def _log_facts(settings: HouseSettings) -> LogFacts:
    from tailrace.log import LogFacts

    return LogFacts(url=settings.shown_url, unreachable=f"there is no log at {settings.shown_url}")


def _is_missing(url: str) -> bool:
    """Looking at an embedded log would make it."""
    return url.startswith("sqlite://") and not Path("/" + url.partition("://")[2].lstrip("/")).exists()


def _machine(settings: HouseSettings, clock: Clock) -> MachineFacts:
    from importlib.metadata import PackageNotFoundError, version

    from tailrace.doctor import MachineFacts
    from tailrace.runner import containment

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    data = settings.data_dir.resolve()
    return MachineFacts(
        python=sys.version_info[:3],
        versions=versions,
        now_ms=clock.now_ms(),
        data_dir=str(data),
        disk_free_bytes=shutil.disk_usage(data).free if data.is_dir() else None,
        leftovers=tuple(_leftovers(data)),
        gaps=tuple(containment().gaps()),
    )


def _leftovers(data: Path) -> list[str]:
    if not data.is_dir():
        return []
    return sorted(str(path) for path in [*data.glob("*-restoring"), *data.glob("*.part")])


def _print(findings: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    marks = {"ok": Text("✓", style="green"), "note": Text("!", style="yellow"), "wrong": Text("✗", style="red")}
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        told = Text(printable(finding.what))
        if finding.mend:
            told.append(f"\n→ {printable(finding.mend)}", style="bold" if finding.level == "wrong" else "dim")
        table.add_row(marks[finding.level], Text(finding.check, style="bold"), told)
    to = console()
    if to.is_terminal:
        to.print(table)
    else:
        for finding in findings:
            print(f"{finding.level}: {finding.check}: {printable(finding.what)}")
            if finding.mend:
                print(f"    -> {printable(finding.mend)}")
    wrong = sum(finding.level == "wrong" for finding in findings)
    say(f"{count(wrong, 'thing')} wrong" if wrong else "nothing is wrong", style="red" if wrong else "green")
