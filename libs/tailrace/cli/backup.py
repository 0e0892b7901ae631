"""`backup`, `restore`, `migrate`: a whole deployment, out of a log and into one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tailrace.cli.errors import FileReadError, FileWriteError
from tailrace.cli.options import Json, log_option
from tailrace.cli.output import console, count, moment, print_json, say, size
from tailrace.runtime import Runtime, probe_from_environment

if TYPE_CHECKING:
    from tailrace.backup import Copied, Files, Progress
    from tailrace.cli.house import HouseSettings

__all__ = ["backup", "migrate", "restore"]

FOLDERS = ("staging", "apps")
"""Folders below the data folder that belong to the log: staged rows, and the files of deployed apps."""

LogUrl = Annotated[str | None, log_option("The log; else the one in the data folder.")]
LakeUrl = Annotated[
    str | None,
    typer.Option("--lake", envvar="TAILRACE_LAKE", metavar="URL", help="The lake; else `lake` in the data folder."),
]
DataFolder = Annotated[Path, typer.Option("--data", envvar="TAILRACE_DATA", metavar="DIR", help="The data folder.")]
WithoutLake = Annotated[bool, typer.Option("--without-lake", help="Leave the lake's files alone.")]


def backup(
    to: Annotated[Path, typer.Argument(metavar="FILE", help="The backup's file, or a folder to put it into.")],
    log: LogUrl = None,
    lake: LakeUrl = None,
    data: DataFolder = Path(".tailrace"),
    without_lake: WithoutLake = False,
    as_json: Json = False,
) -> None:
    """Write a whole deployment into one file: log, State, places, staged rows, lake.

    While everything runs: it is cut at one moment first. What is posted later is in the next backup.

    \b
    tailrace backup shop.backup
    tailrace backup /backups --log kafka://localhost:9092 --lake s3://rows/lake
    """
    from tailrace.backup import write_archive
    from tailrace.log import open_log

    settings, roots = _settings(data, log, lake, without_lake=without_lake)
    if to.is_dir():
        to /= time.strftime("tailrace-%Y%m%d-%H%M%S.backup", time.gmtime())
    _check_there(settings)
    runtime = Runtime(probe=probe_from_environment())
    source = open_log(settings.url, runtime=runtime)
    try:
        with _shown(as_json) as progress:
            try:
                copied, written = write_archive(
                    source, roots, to, head=(_version(), settings.shown_url), runtime=runtime, progress=progress
                )
            except OSError as error:
                raise FileWriteError(to, error.strerror or str(error)) from error
    finally:
        source.close()
    _tell(copied, as_json, {"backup": str(to), "bytes": written}, f"{to}, {size(written)}")


def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    log: LogUrl = None,
    lake: LakeUrl = None,
    data: DataFolder = Path(".tailrace"),
    without_lake: WithoutLake = False,
    check: Annotated[bool, typer.Option("--check", help="Only read it to its end: is it sound?")] = False,
    as_json: Json = False,
) -> None:
    """Put a backup where nothing is: into an empty log of either kind, with its files.

    Every record gets the offset that it had, so ids, State, places and the lake stay what they are. What was
    interrupted is begun again with the same command.

    \b
    tailrace restore shop.backup --check
    tailrace restore shop.backup --data /srv/tailrace
    tailrace restore shop.backup --log kafka://localhost:9092
    """
    from tailrace.backup import check_archive, restore_archive
    from tailrace.cli.house import data_lock

    try:
        if check:
            with _shown(as_json) as progress:
                copied = check_archive(source, progress)
            _tell(copied, as_json, {"backup": str(source)}, f"{source} is sound")
            return
        settings, roots = _settings(data, log, lake, without_lake=without_lake)
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        unlock = data_lock(settings.data_dir.resolve())
        try:
            runtime = Runtime(probe=probe_from_environment())
            with _shown(as_json) as progress:
                copied = restore_archive(source, settings.url, roots, runtime=runtime, progress=progress)
        finally:
            unlock()
    except OSError as error:
        raise FileReadError(Path(error.filename or source), error.strerror or str(error)) from error
    _tell(copied, as_json, {"log": settings.shown_url}, f"restored into {settings.shown_url}, and compared")


def migrate(
    source: Annotated[str, typer.Argument(metavar="FROM", help="URL of the log that is.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="URL of the log to be: an empty place.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be copied.")] = False,
    as_json: Json = False,
) -> None:
    """Move to another log, positions included: from the embedded one to Kafka, or back.

    Stop what uses the log first. Lake, staged files and apps stay where they are; start again with --log TO.

    \b
    tailrace migrate sqlite:////srv/tailrace/tailrace.db kafka://localhost:9092 --dry-run
    tailrace migrate sqlite:////srv/tailrace/tailrace.db kafka://localhost:9092
    """
    from tailrace.backup import copy_log
    from tailrace.log import open_log

    _check_file(source)
    runtime = Runtime(probe=probe_from_environment())
    log = open_log(source, runtime=runtime)
    shown_source, shown_target = source.partition("?")[0], target.partition("?")[0]
    try:
        if dry_run:
            _would_copy(log, target, as_json)
            return
        with _shown(as_json) as progress:
            copied = copy_log(
                log, target, head=(_version(), shown_source), limits=None, runtime=runtime, progress=progress
            )
    finally:
        log.close()
    _tell(copied, as_json, {"log": shown_target}, f"{shown_target} is {shown_source} now, and was compared")
    if not as_json:
        say(f"start what you stopped with --log {shown_target}; keep the old log until you have seen it run")


def _would_copy(log: Any, target: str, as_json: bool) -> None:
    from tailrace.cli.output import print_table
    from tailrace.log import LogCut, RestoreUnfinishedError, open_log

    cut: LogCut = log.cut()
    try:
        if target.startswith("sqlite://") and not _path(target).exists():
            found = "nothing"
        else:
            into = open_log(target)
            found = count(len(into.topics()), "topic")
            into.close()
    except RestoreUnfinishedError:
        found = "what an interrupted restore left"
    rows = [
        (
            topic,
            info.partitions,
            sum(cut.partitions[each][1] - cut.partitions[each][0] for each in cut.partitions if each.topic == topic),
        )
        for topic, info in cut.topics.items()
    ]
    groups, writers = len(cut.places), len(cut.writers)
    if as_json:
        topics = [{"topic": topic, "partitions": number, "offsets": offsets} for topic, number, offsets in rows]
        print_json({"topics": topics, "groups": groups, "writers": writers, "target": found})
        return
    print_table(("topic", "partitions", "offsets"), rows, right=("partitions", "offsets"))
    say(f"{count(groups, 'group')} with places, {count(writers, 'writer')}; at the target there is {found}")
    say("nothing was copied: --dry-run")


def _settings(
    data: Path, log: str | None, lake: str | None, *, without_lake: bool
) -> tuple[HouseSettings, dict[str, Files]]:
    from tailrace.backup import Folder
    from tailrace.cli.house import HouseSettings
    from tailrace.lake import LakeObjects

    settings = HouseSettings(data_dir=data, log_url=log, lake_url=lake)
    roots: dict[str, Files] = {name: Folder(data.resolve() / name) for name in FOLDERS}
    if not without_lake:
        roots["lake"] = LakeObjects(settings.location)
    return settings, roots


def _check_there(settings: HouseSettings) -> None:
    _check_file(settings.url)


def _check_file(url: str) -> None:
    """Opening an embedded log makes it: a wrong name must not look like an empty one."""
    if url.startswith("sqlite://") and not _path(url).exists():
        raise FileReadError(_path(url), "there is no log")


def _path(url: str) -> Path:
    return Path("/" + url.partition("://")[2].lstrip("/"))


def _version() -> str:
    from importlib.metadata import version

    return version("tailrace")


@contextmanager
def _shown(as_json: bool) -> Iterator[Progress]:
    """A bar at a terminal, one line a step elsewhere, nothing for programs."""
    from tailrace.backup import Progress

    to = console(stderr=True)
    if as_json or not to.is_terminal:
        last = ""

        def line(progress: Progress) -> None:
            nonlocal last
            if progress.doing != last and not as_json:
                last = progress.doing
                say(f"{last}: {progress.offsets_all:,} offsets, {size(progress.bytes_all)} of files", style="dim")

        yield Progress(show=line)
        return
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn())
    with Bar(*columns, console=to, transient=True) as bar:
        task = bar.add_task("", total=None, text="")

        def step(progress: Progress) -> None:
            # An offset counts as much as a hundred bytes: the bar is for people.
            bar.update(
                task,
                description=progress.doing,
                total=max(progress.offsets_all * 100 + progress.bytes_all, 1),
                completed=progress.offsets * 100 + progress.bytes,
                text=f"{progress.offsets:,} offsets, {size(progress.bytes)}",
            )

        yield Progress(show=step)


def _tell(copied: Copied, as_json: bool, more: dict[str, Any], line: str) -> None:
    head = copied.head
    if as_json:
        facts = {
            "made_ms": head.made_ms,
            "version": head.version,
            "source": head.source,
            "topics": len(head.cut.topics),
            "records": copied.records,
            "groups": len(head.cut.places),
            "files": copied.files,
            "file_bytes": copied.file_bytes,
        }
        print_json({**more, **facts})
        return
    say(
        f"{count(len(head.cut.topics), 'topic')}, {count(copied.records, 'record')}, "
        f"{count(len(head.cut.places), 'group')}, {count(copied.files, 'file')}, as of {moment(head.made_ms)}"
    )
    say(line, style="green")
