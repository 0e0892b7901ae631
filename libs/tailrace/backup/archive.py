"""A backup's file: frames in one zstd stream, ended by a checksum over all of them.

    the line `tailrace backup 1`, not compressed
    H  what it is: version, time, the log's cut, names and sizes of files (JSON)
    F  a file begins: root, path, size (JSON)        D  some of its bytes
    R  records of one partition                       E  the end: where partitions begin by now (JSON), and the checksum

A frame is its kind (1 byte), the length of its body (8 bytes) and the body. Nothing in an archive is trusted: lengths have
a bound, paths are checked where files are written, and what ends without `E`, or with another checksum, is damaged.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import orjson

from tailrace.backup.errors import ArchiveDamagedError, ArchiveFormatError
from tailrace.log import LogCut, Offset, OffsetRange, Partition, Place, Record, TopicInfo

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["Archive", "ArchiveReader", "End", "FileBegins", "FileBytes", "Head", "Item", "Records"]

_FIRST_LINE = b"tailrace backup 1\n"
_FRAME = struct.Struct(">cQ")
_RECORD = struct.Struct(">qqii")
_BODY_BYTES_MAX = 256 << 20
"""Most bytes of one frame. A record has 8 MB unless somebody set more, and one that is alone in its frame fits."""

_LEVEL = 6
_DIGEST_BYTES = 32


class FileBegins(NamedTuple):
    """A file: its root (`lake`, `staging`, `apps`), its path below that, its size in bytes."""

    root: str
    path: str
    size: int


class Head(NamedTuple):
    """What an archive, or a log that is copied, holds."""

    cut: LogCut
    files: Sequence[FileBegins]
    made_ms: int
    version: str
    source: str
    """URL of the log, without its secrets."""


class FileBytes(NamedTuple):
    data: bytes


class Records(NamedTuple):
    partition: Partition
    records: Sequence[Record]


class End(NamedTuple):
    """Where partitions begin that were trimmed while they were read."""

    starts: Mapping[Partition, Offset]


Item = FileBegins | FileBytes | Records | End


class Archive:
    """Writes an archive; it has its name only when it is whole and on the disk.

    1. `<name>.part` is written. A crash leaves it; it is no backup, and the next one of that name writes over it.
    2. It is renamed: the point of no return.
    """

    def __init__(self, path: Path, head: Head) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._digest = blake2b(digest_size=_DIGEST_BYTES)
        self._raw: IO[bytes] = self._part.open("wb")
        self._raw.write(_FIRST_LINE)
        self._file = zstd.ZstdFile(
            self._raw,
            "wb",
            options={
                zstd.CompressionParameter.compression_level: _LEVEL,
                zstd.CompressionParameter.checksum_flag: 1,
            },
        )
        self._frame(b"H", orjson.dumps(_head_json(head)))

    def take(self, item: Item) -> None:
        match item:
            case FileBegins():
                self._frame(b"F", orjson.dumps(list(item)))
            case FileBytes(data):
                self._frame(b"D", data)
            case Records(partition, records):
                self._frame(b"R", _pack(partition, records))
            case End(starts):
                starts_json = [[*partition, start] for partition, start in starts.items()]
                self._frame(b"E", orjson.dumps({"starts": starts_json}))
                self._file.write(self._digest.digest())

    def finish(self) -> int:
        """Bring it to the disk, and give it its name; returns its bytes."""
        import os

        self._file.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        size = self._raw.tell()
        self._raw.close()
        self._part.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return size

    def close(self) -> None:
        """Let go; what was not finished is deleted."""
        if not self._raw.closed:
            self._raw.close()
            self._part.unlink(missing_ok=True)

    def _frame(self, kind: bytes, body: bytes) -> None:
        for part in (_FRAME.pack(kind, len(body)), body):
            self._digest.update(part)
            self._file.write(part)


class ArchiveReader:
    """Reads an archive, once.

    Raises:
        ArchiveFormatError: rejected; it is none.
        ArchiveDamagedError: rejected, also in the midst of `items`: what was given out so far does not count.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest = blake2b(digest_size=_DIGEST_BYTES)
        self._raw: IO[bytes] = path.open("rb")
        try:
            first = self._raw.read(len(_FIRST_LINE))
            if first != _FIRST_LINE:
                shown = first.decode(errors="replace").strip()
                raise ArchiveFormatError(path, shown if shown.startswith("tailrace backup") else "something else")
            self._file = zstd.ZstdFile(self._raw, "rb")
            kind, body = self._frame()
            if kind != b"H":
                raise ArchiveDamagedError(path, "it does not begin with its head")
            self.head = self._parsed(lambda: _head_of(orjson.loads(body)))
        except BaseException:
            self._raw.close()
            raise

    def __enter__(self) -> ArchiveReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raw.close()

    def items(self) -> Iterator[Item]:
        """All that follows the head, in order; the end comes last, and says that all before it is sound."""
        while True:
            kind, body = self._frame()
            if kind == b"F":
                root, path, size = self._parsed(lambda body=body: orjson.loads(body))
                yield FileBegins(str(root), str(path), int(size))
            elif kind == b"D":
                yield FileBytes(body)
            elif kind == b"R":
                yield self._parsed(lambda body=body: _unpack(body))
            elif kind == b"E":
                if self._read(_DIGEST_BYTES) != self._digest.digest():
                    raise ArchiveDamagedError(self._path, "its checksum is another one")
                if self._rest():
                    raise ArchiveDamagedError(self._path, "it goes on after its end")
                yield End({Partition(t, n): Offset(at) for t, n, at in orjson.loads(body)["starts"]})
                return
            else:
                raise ArchiveDamagedError(self._path, f"a frame of an unknown kind {kind!r}")

    def _frame(self) -> tuple[bytes, bytes]:
        head = self._read(_FRAME.size)
        kind, length = _FRAME.unpack(head)
        if length > _BODY_BYTES_MAX:
            raise ArchiveDamagedError(self._path, f"a frame of {length} bytes")
        body = self._read(length)
        self._digest.update(head)
        self._digest.update(body)
        return kind, body

    def _rest(self) -> bytes:
        """What comes after the end, which is nothing: to look for it makes zstd compare its own checksum."""
        return self._some(1)

    def _some(self, length: int) -> bytes:
        try:
            return bytes(self._file.read(length))
        except (EOFError, OSError, zstd.ZstdError) as error:
            raise ArchiveDamagedError(self._path, str(error)) from error

    def _read(self, length: int) -> bytes:
        data = self._some(length)
        if len(data) < length:
            raise ArchiveDamagedError(self._path, "it ends too early")
        return data

    def _parsed(self, parse: Any) -> Any:
        try:
            return parse()
        except (ValueError, KeyError, TypeError, IndexError, struct.error, AttributeError) as error:
            raise ArchiveDamagedError(self._path, f"a frame cannot be read ({error})") from error


def _pack(partition: Partition, records: Sequence[Record]) -> bytes:
    head = orjson.dumps(list(partition))
    parts = [len(head).to_bytes(4, "big"), head]
    for offset, ts_ms, key, value in records:
        lengths = (-1 if key is None else len(key), -1 if value is None else len(value))
        parts += [_RECORD.pack(offset, ts_ms, *lengths), key or b"", value or b""]
    return b"".join(parts)


def _unpack(body: bytes) -> Records:
    at = 4 + int.from_bytes(body[:4], "big")
    topic, number = orjson.loads(body[4:at])
    records = []
    while at < len(body):
        offset, ts_ms, key_length, value_length = _RECORD.unpack_from(body, at)
        key_end = at + _RECORD.size + max(key_length, 0)
        end = key_end + max(value_length, 0)
        if end > len(body):
            raise ValueError("a record is longer than its frame")
        key = None if key_length < 0 else body[at + _RECORD.size : key_end]
        records.append(Record(Offset(offset), ts_ms, key, None if value_length < 0 else body[key_end:end]))
        at = end
    return Records(Partition(str(topic), int(number)), records)


def _head_json(head: Head) -> dict[str, Any]:
    cut = head.cut
    return {
        "made_ms": head.made_ms,
        "version": head.version,
        "source": head.source,
        "topics": [list(topic) for topic in cut.topics.values()],
        "partitions": [[*partition, *stands] for partition, stands in cut.partitions.items()],
        "places": [
            [group, *partition, *place] for group, places in cut.places.items() for partition, place in places.items()
        ],
        "writers": dict(cut.writers),
        "files": [list(file) for file in head.files],
    }


def _head_of(data: dict[str, Any]) -> Head:
    places: dict[str, dict[Partition, Place]] = {}
    for group, topic, number, offset, metadata in data["places"]:
        places.setdefault(group, {})[Partition(topic, number)] = Place(Offset(offset), metadata)
    cut = LogCut(
        {topic[0]: TopicInfo(*topic) for topic in data["topics"]},
        {Partition(t, n): OffsetRange(Offset(start), Offset(stop)) for t, n, start, stop in data["partitions"]},
        places,
        data["writers"],
    )
    files = [FileBegins(*each) for each in data["files"]]
    return Head(cut, files, data["made_ms"], data["version"], data["source"])
