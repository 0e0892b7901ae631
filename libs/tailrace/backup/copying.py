"""Backup, restore and migration: one stream of records and files, from where it comes to where it goes.

A log is read up to one cut, so that rows, State and places belong together; files are named before and after the cut, and
the cut is taken again where the lake moved between. Memory is bounded by one batch of records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from tailrace.backup.archive import Archive, ArchiveReader, End, FileBegins, FileBytes, Head, Item, Records
from tailrace.backup.errors import ArchiveDamagedError, CopyDiffersError, SourceChangedError
from tailrace.backup.files import Files, safe_path
from tailrace.log import (
    Log,
    LogCut,
    LogLimits,
    NotEmptyError,
    Offset,
    OffsetGapError,
    Partition,
    Record,
    Restore,
    TailraceError,
    open_log,
    open_restore,
)
from tailrace.runtime import SYSTEM, Runtime

__all__ = ["Copied", "Progress", "check_archive", "copy_log", "restore_archive", "write_archive"]

_BATCH_BYTES_MAX = 4 << 20
_TRIES_MAX = 30
"""How often the lake may move while the log is cut: a snapshotter commits every few seconds, and this takes less."""

_LAKE = "lake"
_DELTA_LOG = "/_delta_log/"


@dataclass
class Progress:
    """Told of what was done, out of what there is; `show` is called after each step."""

    show: Callable[[Progress], None] = lambda progress: None
    offsets_all: int = 0
    offsets: int = 0
    bytes_all: int = 0
    bytes: int = 0
    doing: str = ""

    def begin(self, doing: str, head: Head) -> None:
        self.doing, self.offsets, self.bytes = doing, 0, 0
        self.offsets_all = sum(stop - start for start, stop in head.cut.partitions.values())
        self.bytes_all = sum(file.size for file in head.files)
        self.show(self)

    def advance(self, *, offsets: int = 0, bytes_: int = 0) -> None:
        self.offsets += offsets
        self.bytes += bytes_
        self.show(self)


class Copied(NamedTuple):
    """What was copied."""

    head: Head
    records: int
    files: int
    file_bytes: int


@dataclass
class _Digests:
    """What a log holds, in a few bytes a partition; of a compacted one its fold, since older records of a key may go."""

    cut: LogCut
    records: int = 0
    _plain: dict[Partition, blake2b] = field(default_factory=dict)
    _folds: dict[Partition, dict[bytes | None, bytes]] = field(default_factory=dict)

    def take(self, partition: Partition, records: list[Record] | tuple[Record, ...]) -> None:
        self.records += len(records)
        if self.cut.topics[partition.topic].compacted:
            fold = self._folds.setdefault(partition, {})
            for record in records:
                fold.pop(record.key, None)
                if record.value is not None:
                    fold[record.key] = _digest(record)
        else:
            whole = self._plain.setdefault(partition, blake2b(digest_size=16))
            for record in records:
                whole.update(_digest(record))

    def result(self) -> dict[Partition, object]:
        return {
            **{partition: whole.hexdigest() for partition, whole in self._plain.items()},
            **{partition: fold for partition, fold in self._folds.items() if fold},
        }


def _digest(record: Record) -> bytes:
    offset, ts_ms, key, value = record
    lengths = f"{offset} {ts_ms} {None if key is None else len(key)} {None if value is None else len(value)} "
    return blake2b(lengths.encode() + (key or b"") + (value or b""), digest_size=16).digest()


def write_archive(
    log: Log, roots: Mapping[str, Files], path: Path, *, head: tuple[str, str], runtime: Runtime, progress: Progress
) -> tuple[Copied, int]:
    """A backup of a log with its files; returns what is in it, and its bytes. `head`: our version, and the log's name."""
    what = _cut(log, roots, *head, runtime)
    progress.begin("writing", what)
    archive = Archive(path, what)
    try:
        records = 0
        for item in _from_log(log, roots, what, progress):
            archive.take(item)
            records += len(item.records) if isinstance(item, Records) else 0
        runtime.probe.reached("archive-written")
        size = archive.finish()
    finally:
        archive.close()
    return Copied(what, records, len(what.files), progress.bytes), size


def check_archive(path: Path, progress: Progress) -> Copied:
    """Read a backup to its end, without putting anything anywhere."""
    with ArchiveReader(path) as reader:
        progress.begin("checking", reader.head)
        records = 0
        for item in reader.items():
            records += _count(item, progress)
        return Copied(reader.head, records, len(reader.head.files), progress.bytes)


def restore_archive(
    path: Path,
    url: str,
    roots: Mapping[str, Files],
    *,
    limits: LogLimits | None = None,
    runtime: Runtime = SYSTEM,
    progress: Progress,
) -> Copied:
    """Put a backup where there is nothing: its files first, then its log, which counts only when all is there.

    1. `restore-files`  files are written one by one. A crash leaves some; the next restore takes them for its own.
    2. the steps of `Restore` of the log. The last one is the point of no return.
    3. What was written is read back and compared.
    """
    with ArchiveReader(path) as reader:
        head = reader.head
        _check_files(path, head, roots)
        progress.begin("restoring", head)
        into = open_restore(url, head.cut, limits=limits, runtime=runtime)
        try:
            digests = _Digests(head.cut)
            items = reader.items()
            end = _put_all(path, items, into, roots, digests, progress, runtime)
            into.finish(end.starts)
        finally:
            into.close()
    _verify(url, head, digests, limits, progress)
    return Copied(head, digests.records, len(head.files), progress.bytes)


def copy_log(
    log: Log, url: str, *, head: tuple[str, str], limits: LogLimits | None, runtime: Runtime, progress: Progress
) -> Copied:
    """A log made again at another place, with all its positions, so that its lake and staged files stay where they are."""
    what = _cut(log, {}, *head, runtime)
    progress.begin("copying", what)
    into = open_restore(url, what.cut, limits=limits, runtime=runtime)
    try:
        digests = _Digests(what.cut)
        end = End({})
        for item in _from_log(log, {}, what, progress):
            if isinstance(item, Records):
                into.put(*item)
                digests.take(item.partition, list(item.records))
            elif isinstance(item, End):
                end = item
        now = log.ends(list(what.cut.partitions))
        if any(now[partition] > stands.stop for partition, stands in what.cut.partitions.items()):
            raise SourceChangedError(
                "the log was written to", "stop `tailrace up`, gateways and runners that use it; then begin again"
            )
        into.finish(end.starts)
    finally:
        into.close()
    _verify(url, what, digests, limits, progress)
    return Copied(what, digests.records, 0, 0)


def _cut(log: Log, roots: Mapping[str, Files], version: str, source: str, runtime: Runtime) -> Head:
    """The log's cut, with the files that belong to it: no snapshot was made between the two."""
    lake = roots.get(_LAKE)
    for _ in range(_TRIES_MAX):
        before = _commits(lake)
        cut = log.cut()
        sizes = {root: files.sizes() for root, files in roots.items()}
        if lake is None or {path for path in sizes[_LAKE] if _DELTA_LOG in path} == before:
            files = [FileBegins(root, path, size) for root in sizes for path, size in sizes[root].items()]
            return Head(cut, files, runtime.clock.now_ms(), version, source)
    raise SourceChangedError("the lake was written to", "stop the snapshotter for as long as the backup begins")


def _commits(lake: Files | None) -> set[str]:
    return set() if lake is None else {path for path in lake.sizes() if _DELTA_LOG in path}


def _from_log(log: Log, roots: Mapping[str, Files], head: Head, progress: Progress) -> Iterator[Item]:
    for begins in head.files:
        yield begins
        size = 0
        try:
            for piece in roots[begins.root].read(begins.path):
                size += len(piece)
                yield FileBytes(piece)
                progress.advance(bytes_=len(piece))
        except (FileNotFoundError, TailraceError) as error:
            raise SourceChangedError(f"{begins.root}/{begins.path} went away ({error})", "begin again") from error
        if size != begins.size:
            raise SourceChangedError(f"{begins.root}/{begins.path} changed its size", "begin again")
    starts: dict[Partition, Offset] = {}
    for partition, (start, stop) in head.cut.partitions.items():
        at = start
        while at < stop:
            try:
                batch = log.read(partition, at, stop=stop, bytes_max=_BATCH_BYTES_MAX)
            except OffsetGapError as error:  # what is gone by now is in the lake
                starts[partition] = Offset(min(error.start, stop))
                progress.advance(offsets=starts[partition] - at)
                at = starts[partition]
                continue
            if batch.records:
                yield Records(partition, batch.records)
            progress.advance(offsets=batch.next - at)
            if batch.next == at:
                raise SourceChangedError(f"{partition.topic} was made again", "begin again")
            at = batch.next
    yield End(starts)


def _put_all(
    path: Path,
    items: Iterator[Item],
    into: Restore,
    roots: Mapping[str, Files],
    digests: _Digests,
    progress: Progress,
    runtime: Runtime,
) -> End:
    item: Item | None = next(items)
    while item is not None and not isinstance(item, End):
        if isinstance(item, FileBegins):
            pieces = _Pieces(items, progress)
            if item.root in roots:
                roots[item.root].write(item.path, pieces)
                runtime.probe.reached("restore-files")
            else:
                for _ in pieces:
                    pass
            item = pieces.after
            continue
        if not isinstance(item, Records) or item.partition not in digests.cut.partitions:
            raise ArchiveDamagedError(path, "its frames are in no order")
        into.put(*item)
        digests.take(item.partition, list(item.records))
        progress.advance(offsets=len(item.records))
        item = next(items)
    assert isinstance(item, End)
    return item


class _Pieces:
    """The bytes of one file, up to the item after it."""

    def __init__(self, items: Iterator[Item], progress: Progress) -> None:
        self._items, self._progress = items, progress
        self.after: Item | None = None

    def __iter__(self) -> Iterator[bytes]:
        for item in self._items:
            if not isinstance(item, FileBytes):
                self.after = item
                return
            self._progress.advance(bytes_=len(item.data))
            yield item.data


def _count(item: Item, progress: Progress) -> int:
    match item:
        case FileBytes(data):
            progress.advance(bytes_=len(data))
        case Records(_, records):
            progress.advance(offsets=len(records))
            return len(records)
    return 0


def _check_files(path: Path, head: Head, roots: Mapping[str, Files]) -> None:
    """Only what an interrupted restore of the same backup left may be there."""
    for begins in head.files:
        if not safe_path(begins.path):
            raise ArchiveDamagedError(path, f"a file is named {begins.path!r}")
    for root, files in roots.items():
        ours = {begins.path: begins.size for begins in head.files if begins.root == root}
        for name, size in files.sizes().items():
            if ours.get(name) != size and ours.get(name.removesuffix(".part")) is None:
                raise NotEmptyError(files.where, f"a file {name} that is not of this backup")


def _verify(url: str, head: Head, written: _Digests, limits: LogLimits | None, progress: Progress) -> None:
    """Read the copy back: each partition must be what was written, each place where it was."""
    progress.begin("comparing", head)
    found = _Digests(head.cut)
    log = open_log(url, limits=limits)
    try:
        now = log.cut()
        different = [topic for topic, info in head.cut.topics.items() if now.topics.get(topic) != info]
        different += [
            f"the places of {group}" for group in head.cut.places if now.places.get(group) != head.cut.places[group]
        ]
        for item in _from_log(log, {}, head._replace(cut=_from_starts(head.cut, now), files=[]), progress):
            if isinstance(item, Records):
                found.take(item.partition, list(item.records))
    finally:
        log.close()
    one, other = written.result(), found.result()
    different += [f"{p.topic}/{p.number}" for p in sorted(one.keys() | other.keys()) if one.get(p) != other.get(p)]
    if different:
        raise CopyDiffersError(url.partition("?")[0], different)


def _from_starts(cut: LogCut, now: LogCut) -> LogCut:
    starts = {partition: now.partitions[partition].start for partition in cut.partitions if partition in now.partitions}
    return cut._replace(
        partitions={
            partition: stands._replace(start=max(stands.start, starts[partition]))
            for partition, stands in cut.partitions.items()
            if partition in starts
        }
    )
