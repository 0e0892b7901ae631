"""An app's files as one archive that travels in a record: the same files give the same bytes, and nothing in it can reach
outside of its folder."""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from tailrace.errors import RejectedError, SettingError

__all__ = ["AppTooLargeError", "ArchiveLimits", "BadArchiveError", "content_hash", "pack", "unpack"]

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest date that a zip can tell: all files have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveLimits:
    """Bounds of one deployed app."""

    archive_bytes_max: int = 5 << 20
    """Largest archive. In base64, with its head, it must fit into one record of the log (`record_bytes_max`)."""

    files_bytes_max: int = 128 << 20
    """Most bytes of an app's files, unpacked: they are held in memory. As much as is read from a folder."""

    files_max: int = 10_000
    """Most files of one app. As many as are read from a folder."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise SettingError(name, getattr(self, name), "at least 1")


class AppTooLargeError(RejectedError):
    """An app's files do not fit into one record of the log."""

    def __init__(self, archive_bytes: int, archive_bytes_max: int, largest: str) -> None:
        self.archive_bytes, self.archive_bytes_max, self.largest = archive_bytes, archive_bytes_max, largest
        super().__init__(
            f"the app's files take {archive_bytes} bytes packed, over archive_bytes_max ({archive_bytes_max} bytes); the"
            f" largest is {largest}: put data into a Table, or take it out of the app's folder"
        )


class BadArchiveError(RejectedError):
    """What a deployment carries is no archive of an app's files."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"the archive of the deployment cannot be used: {why}; deploy the app once more")


def content_hash(slug: str, root_file: str, files: Mapping[str, bytes]) -> str:
    """Names what is deployed: the same for the same files, on every machine."""
    digest = hashlib.blake2b(f"{slug}\0{root_file}\0".encode(), digest_size=10)
    for path, data in sorted(files.items()):
        digest.update(f"{path}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


def pack(files: Mapping[str, bytes], limits: ArchiveLimits | None = None) -> bytes:
    """The files as a zip, in order of their paths.

    Raises:
        AppTooLargeError: rejected; they do not fit into a record.
    """
    limits = limits or ArchiveLimits()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, data in sorted(files.items()):
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, data, compress_type=zipfile.ZIP_DEFLATED, compresslevel=6)
    packed = buffer.getvalue()
    if len(packed) > limits.archive_bytes_max:
        largest = max(files, key=lambda path: len(files[path]))
        raise AppTooLargeError(len(packed), limits.archive_bytes_max, f"{largest} ({len(files[largest])} bytes)")
    return packed


def unpack(archive: bytes, limits: ArchiveLimits | None = None) -> dict[str, bytes]:
    """The files in an archive, by path; nothing is written.

    Raises:
        BadArchiveError: rejected; it is no zip, larger than it may be, or holds what is no plain file below a folder.
    """
    limits = limits or ArchiveLimits()
    if len(archive) > limits.archive_bytes_max:
        raise BadArchiveError(f"it has {len(archive)} bytes, over archive_bytes_max ({limits.archive_bytes_max} bytes)")
    files: dict[str, bytes] = {}
    left_bytes = limits.files_bytes_max
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            entries = opened.infolist()
            if len(entries) > limits.files_max:
                raise BadArchiveError(f"it holds {len(entries)} files, over files_max ({limits.files_max})")
            for entry in entries:
                _check(entry, files)
                with opened.open(entry) as stream:  # no more than we take is inflated, whatever its head says
                    data = stream.read(left_bytes + 1)
                left_bytes -= len(data)
                if left_bytes < 0:
                    raise BadArchiveError(f"its files are over files_bytes_max ({limits.files_bytes_max} bytes)")
                files[entry.filename] = data
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError, NotImplementedError) as error:
        raise BadArchiveError(f"it is no zip that can be read ({error})") from error
    for path in files:
        above = path.rpartition("/")[0]
        while above:
            if above in files:
                raise BadArchiveError(f"{above!r} is a file and a folder")
            above = above.rpartition("/")[0]
    return files


def _check(entry: zipfile.ZipInfo, files: Mapping[str, bytes]) -> None:
    name = entry.orig_filename
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if name != entry.filename or "\\" in name or "\0" in name or not all(_plain(part) for part in name.split("/")):
        raise BadArchiveError(f"{name!r} is no path below the app's folder")
    if kind not in (0, stat.S_IFREG) or entry.is_dir():
        raise BadArchiveError(f"{name!r} is no plain file")
    if name in files:
        raise BadArchiveError(f"{name!r} is in it twice")


def _plain(part: str) -> bool:
    return part not in ("", ".", "..")
