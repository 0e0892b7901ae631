"""Where the lake is: a folder, or a place in an object store, with a folder for each table version."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tailrace.lake.errors import LakeUrlError, lake_errors

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["SUFFIX_CHARS", "LakeLocation"]

_PREFIXES = {
    "s3": ("AWS_",),
    "gs": ("GOOGLE_", "GCS_"),
    "az": ("AZURE_",),
}
"""Scheme -> how the environment variables begin that its store takes (delta-rs' and obstore's names are the same)."""

_PREFIX = re.compile(r"[A-Za-z0-9_./-]*").fullmatch

SUFFIX_CHARS = 10
"""At the end of a version's name, and of its folder's: they grow with time."""

_RETRIES_MAX = 4
_RETRY_TIMEOUT = timedelta(seconds=20)
"""Of one request to an object store. Much less: a store that is busy for a moment counts as gone. Much more: one table
keeps a snapshotter from the others."""


@dataclass(frozen=True, slots=True)
class LakeLocation:
    """The lake's root; tables are named by their folder below it (`shop/orders_01k3x9v2qd`)."""

    url: str
    """`/absolute/folder`, or `s3://bucket/prefix` and the like, without a slash at the end."""

    @classmethod
    def parse(cls, url: str) -> LakeLocation:
        """A folder (relative ones as of here), `file://`, `s3://`, `gs://` or `az://`.

        Raises:
            LakeUrlError: rejected; any other scheme, no bucket, or a path that Delta cannot name.
        """
        parts = urlsplit(url) if "://" in url else None
        if parts is None or parts.scheme == "file":
            text = url if parts is None else unquote(parts.path)
            if not text:
                raise LakeUrlError(url, "it names no folder")
            path = str(Path(text).expanduser().absolute())
            if "%" in path:
                raise LakeUrlError(url, "Delta cannot name a path with a percent sign")
            return cls(path)
        if parts.scheme not in _PREFIXES:
            raise LakeUrlError(url, f"there is no way to {parts.scheme}://")
        if not parts.netloc:
            raise LakeUrlError(url, "the bucket is missing")
        if parts.query or parts.fragment:
            raise LakeUrlError(url, "options come from the environment")
        if not _PREFIX(parts.path):
            raise LakeUrlError(url, "a prefix has letters, digits and -_./ only: clients encode others differently")
        return cls(url.rstrip("/"))

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return "://" not in self.url

    @property
    def storage_options(self) -> dict[str, str]:
        """What delta-rs is told of the store: the environment's variables in its own names.

        On S3 a commit is a conditional put, which the servers of our days know (`aws_conditional_put=etag`). A store that
        does not answer is given up soon: whoever waits for the lake tries again, and tells.
        """
        if self.is_local:
            return {}
        scheme = self.url.partition("://")[0]
        options = {name: value for name, value in os.environ.items() if name.startswith(_PREFIXES[scheme])}
        if scheme == "s3":
            options.setdefault("AWS_CONDITIONAL_PUT", "etag")
        return {"max_retries": str(_RETRIES_MAX), "retry_timeout": f"{_RETRY_TIMEOUT.seconds}s", **options}

    @staticmethod
    def folder(topic: str, version_name: str, lane: int | None = None) -> str:
        """The folder of one version: `<graph>/<rest of the topic>_<last 10 characters of the version's name>`; of a
        topic with several partitions the one in there that its partition `lane` has for itself."""
        graph, _, rest = topic.partition(".")
        assert graph and rest and "/" not in topic, f"{topic} is the topic of no table"
        return _lane_folder(f"{graph}/{rest}_{version_name[-SUFFIX_CHARS:]}", lane)

    @staticmethod
    def version_folder(folder: str) -> str:
        """The folder of a version, given that of one of its Delta tables."""
        return folder.rpartition("/")[0] if folder.count("/") > 1 else folder

    @staticmethod
    def suffix(folder: str) -> str:
        """The end of the name of the version that a folder is of; younger versions have greater ones."""
        return LakeLocation.version_folder(folder)[-SUFFIX_CHARS:]

    def uri(self, folder: str) -> str:
        """How `DeltaTable` is told of a table's folder."""
        return self.local_path(folder).as_uri() if self.is_local else f"{self.url}/{folder}"

    def local_path(self, folder: str = "") -> Path:
        """The folder of a table, or the root; local lakes only."""
        assert self.is_local, f"{self.url} is no folder of this machine"
        return Path(self.url, folder) if folder else Path(self.url)

    def store(self, folder: str = "") -> ObjectStore:
        """An object store that begins at the root, or at a table's folder."""
        from obstore.store import LocalStore, from_url

        with lake_errors(folder or self.url, "the store"):
            if self.is_local:
                path = self.local_path(folder)
                path.mkdir(parents=True, exist_ok=True)
                return LocalStore(path)
            return from_url(
                f"{self.url}/{folder}" if folder else self.url,
                retry_config={"max_retries": _RETRIES_MAX, "retry_timeout": _RETRY_TIMEOUT},
            )

    def folders(self, topic: str, lane: int | None = None) -> list[str]:
        """The folders of all versions of a topic that are there, oldest version first; with `lane` those that its
        partition has in them, whether or not there is anything in them yet."""
        graph, _, rest = topic.partition(".")
        with lake_errors(topic, graph):
            if self.is_local:
                found = self.local_path(graph)
                names = [entry.name for entry in os.scandir(found) if entry.is_dir()] if found.is_dir() else []
            else:
                listed = self.store().list_with_delimiter(f"{graph}/")["common_prefixes"]
                names = [prefix.rstrip("/").rpartition("/")[2] for prefix in listed]
        wanted = len(rest) + 1 + SUFFIX_CHARS
        found_names = [name for name in sorted(names) if len(name) == wanted and name.startswith(f"{rest}_")]
        return [_lane_folder(f"{graph}/{name}", lane) for name in found_names]

    def fetch(self, folder: str, path: str, into: Path) -> None:
        """Bring one file of a table to the local file `into`, whole or not at all."""
        with lake_errors(folder, path):
            unfinished = into.with_name(f"{into.name}.part")
            with unfinished.open("wb") as file:
                for chunk in self.store(folder).get(path):
                    file.write(chunk)
            unfinished.replace(into)

    @contextmanager
    def local_files(self, folder: str, paths: Sequence[str]) -> Iterator[Path]:
        """A local folder that holds these files of a table, until the end of the block."""
        if self.is_local:
            yield self.local_path(folder)
            return
        with TemporaryDirectory(prefix="tailrace-lake-") as made:
            for path in paths:
                self.fetch(folder, path, Path(made, path))
            yield Path(made)


def _lane_folder(version_folder: str, lane: int | None) -> str:
    return version_folder if lane is None else f"{version_folder}/partition={lane}"
