"""A snapshot: the rows of one table version up to a position, as Parquet files that any reader may open.

The lake makes snapshots (they are Delta tables); readers need only what is written down here. The files hold disjoint
ranges of ids, each in the order of the log, so reading them one after the other gives log order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tailrace.tables.schema import FieldType, parse_type

__all__ = ["HIDDEN_ID", "Snapshot", "SnapshotFile"]

HIDDEN_ID = "_patterns_id"
"""Column of the id in the files of a table that shows none: streams and cuts go by it."""


class SnapshotFile(NamedTuple):
    """One Parquet file: `path` below the snapshot's folder, and the ids that it begins and ends with."""

    path: str
    rows: int
    size_bytes: int
    first_id: str
    last_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The rows of one version that lie before `position`: one state of its Delta table."""

    version: str
    """The version's name."""
    folder: str
    """The Delta table's folder below the lake's root."""
    delta_version: int
    position: int
    """Every message before this offset is in the files, none at or after it."""
    fields: Mapping[str, FieldType]
    """The fields in force at the position, without the id; the files' columns are these as `stored` makes them."""
    unique_on: tuple[str, ...] = ()
    """The key by which the files hold one row each."""
    id_column: str = "patterns_id"
    files: tuple[SnapshotFile, ...] = ()
    """In the order of their ids."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(file.rows for file in self.files)

    def to_json(self) -> dict[str, object]:
        """For an index, or a worker."""
        return {
            "version": self.version,
            "folder": self.folder,
            "delta_version": self.delta_version,
            "position": self.position,
            "fields": {name: str(kind) for name, kind in self.fields.items()},
            "unique_on": list(self.unique_on),
            "id_column": self.id_column,
            "files": [list(file) for file in self.files],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Snapshot:
        """The inverse of `to_json`."""
        return cls(
            version=data["version"],
            folder=data["folder"],
            delta_version=data["delta_version"],
            position=data["position"],
            fields={name: parse_type(text) for name, text in data["fields"].items()},
            unique_on=tuple(data["unique_on"]),
            id_column=data["id_column"],
            files=tuple(SnapshotFile(*file) for file in data["files"]),
        )
