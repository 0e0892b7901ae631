"""The Delta table of one table version: what it holds, up to which position, and how commits to it are fenced.

Each commit carries, under `tailrace` in its metadata, what a reader of the table alone could not know: the position,
the version's view, and the fold of the whole topic at that position. The app transaction `<topic>/<partition>` carries
the position too, and is the fence: of two commits that were prepared from the same state, the second one fails.

Of a topic with several partitions each has a Delta table of its own, as if it were the topic (decision 10).
"""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import orjson

from tailrace.lake.errors import LakeConflictError, LakeDamagedError, lake_errors
from tailrace.lake.limits import LakeLimits
from tailrace.lake.location import LakeLocation
from tailrace.lake.parts import Part, is_part
from tailrace.tables import HIDDEN_ID, Snapshot, SnapshotFile, TableFold, VersionView
from tailrace.tables.schema import stored_schema

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties
    from deltalake.transaction import AddAction, RemoveAction
    from obstore.store import ObjectStore

__all__ = ["TableMeta", "VersionTable", "id_column_of"]

_KEY = "tailrace"
_SEEN = "tailrace.seen"
"""The Delta version from whose state a commit of ours was prepared: every commit up to it was known to be ours. So those of
others are found that come between, also by who opens the table later: until they are taken back."""
_HARMLESS = {"VACUUM START", "VACUUM END"}
"""Operations of others that change no rows."""


def id_column_of(view: VersionView) -> str:
    """The column of the ids: the one that rows show, or a hidden one."""
    return view.settings.monotonic_id or HIDDEN_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMeta:
    """What a commit says beside its rows."""

    topic: str
    born_ms: int
    position: int
    active: bool
    """Whether the version was the active one at the position."""
    view: VersionView
    fold_packed: str
    """The fold of the topic at the position, compressed: the other versions with it."""
    lane: int | None = None
    """The partition, of a topic with several."""

    @classmethod
    def of(cls, topic: str, born_ms: int, fold: TableFold, version: str, lane: int | None = None) -> TableMeta:
        """For a commit of `version` at the fold's position."""
        view = fold.view_of(version)
        assert view is not None, f"{version} is no version of {topic}"
        active = fold.active is not None and fold.active.name == version
        return cls(
            topic=topic,
            born_ms=born_ms,
            position=fold.position,
            active=active,
            view=view,
            fold_packed=_packed(fold),
            lane=lane,
        )

    def at_the_beginning(self) -> TableMeta:
        """The same version before its first message."""
        nothing = TableFold(self.fold().table)
        return replace(self, position=0, active=False, fold_packed=_packed(nothing))

    @property
    def is_foremost(self) -> bool:
        """Whether the version was the active one; where none was, whether its rows came last."""
        if self.active:
            return True
        foremost = self.fold().foremost
        return foremost is not None and foremost.name == self.view.name

    @property
    def app_id(self) -> str:
        """Name of the app transaction."""
        return f"{self.topic}/{self.lane or 0}"

    def fold(self) -> TableFold:
        """The fold of the whole topic at the position."""
        return TableFold.from_json(orjson.loads(zlib.decompress(base64.b85decode(self.fold_packed))))

    def to_json(self) -> str:
        """The text under `tailrace` in a commit."""
        return orjson.dumps(
            {
                "topic": self.topic,
                "born_ms": self.born_ms,
                "position": self.position,
                "active": self.active,
                "view": self.view.to_json(),
                "fold": self.fold_packed,
                **({} if self.lane is None else {"partition": self.lane}),
            }
        ).decode()

    @classmethod
    def from_json(cls, text: str) -> TableMeta:
        """The inverse of `to_json`."""
        data: dict[str, Any] = orjson.loads(text)
        return cls(
            topic=data["topic"],
            born_ms=data["born_ms"],
            position=data["position"],
            active=data["active"],
            view=VersionView.from_json(data["view"]),
            fold_packed=data["fold"],
            lane=data.get("partition"),
        )


def _packed(fold: TableFold) -> str:
    return base64.b85encode(zlib.compress(orjson.dumps(fold.to_json()))).decode()


class VersionTable:
    """One state of a version's Delta table, and the way to the next. Commits go through the state that was looked at."""

    def __init__(self, location: LakeLocation, folder: str, delta: DeltaTable, limits: LakeLimits) -> None:
        self.location, self.folder = location, folder
        self._delta, self._limits = delta, limits
        self._store: ObjectStore | None = None
        self.meta = self._read_meta()
        """Of the newest commit."""

    @classmethod
    def open(cls, location: LakeLocation, folder: str, *, limits: LakeLimits | None = None) -> VersionTable | None:
        """The newest state of the table in `folder`; None where there is none.

        Raises:
            LakeUnavailableError: retriable; the lake cannot be reached.
            LakeDamagedError: rejected; somebody else changed the table, or a part of its log is missing.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        if location.is_local and not (location.local_path(folder) / "_delta_log").is_dir():
            return None
        with lake_errors(folder):
            try:
                delta = DeltaTable(location.uri(folder), storage_options=location.storage_options)
            except TableNotFoundError:
                return None
        return cls(location, folder, delta, limits or LakeLimits())

    @classmethod
    def create(
        cls,
        location: LakeLocation,
        folder: str,
        meta: TableMeta,
        schema: pa.Schema,
        *,
        limits: LakeLimits | None = None,
    ) -> VersionTable:
        """Make the table, empty and at position 0.

        The rows come with a commit of their own: Delta lets two creators follow each other, and only commits to a table
        that is there can be fenced. That of two creators both succeed does no harm.
        """
        from deltalake import Schema
        from deltalake.exceptions import DeltaError
        from deltalake.transaction import create_table_with_add_actions

        limits = limits or LakeLimits()
        hours = -(-limits.removed_kept // timedelta(hours=1))
        nothing_yet = meta.at_the_beginning()
        with lake_errors(folder):
            if location.is_local:
                location.local_path(folder).mkdir(parents=True, exist_ok=True)
            try:
                create_table_with_add_actions(
                    location.uri(folder),
                    Schema.from_arrow(schema),
                    [],
                    mode="error",
                    configuration={
                        "delta.dataSkippingNumIndexedCols": "-1",  # else a wide table forgets the range of its ids
                        "delta.deletedFileRetentionDuration": f"interval {hours} hours",
                        "delta.enableExpiredLogCleanup": "false",  # `tidy` does, by count
                    },
                    storage_options=location.storage_options,
                    commit_properties=_properties(nothing_yet, seen=-1, fence=False),
                    post_commithook_properties=_hooks(),
                )
            except DeltaError as error:
                if "already exists" not in str(error):
                    raise
        made = cls.open(location, folder, limits=limits)
        if made is None:
            raise LakeDamagedError(folder, "_delta_log", "is gone, though it was written just now")
        made._sync(0)
        return made

    # -- what it holds --------------------------------------------------------------------------------------------

    @property
    def delta_version(self) -> int:
        """Delta's own count of commits."""
        return self._delta.version()

    @property
    def position(self) -> int:
        """Every message of the version before this offset is in, none at or after it."""
        return self.meta.position

    @property
    def store(self) -> ObjectStore:
        """The table's folder; one client for as long as the table is open."""
        if self._store is None:
            self._store = self.location.store(self.folder)
        return self._store

    def file_schema(self) -> pa.Schema:
        """The Arrow schema of the files, the ids' column among them; every column but that may hold NULL."""
        view = self.meta.view
        fields = {name: kind for name, kind in view.fields.items() if name != view.settings.monotonic_id}
        return stored_schema(fields, id_column=id_column_of(view))

    @property
    def columns(self) -> Mapping[str, bool]:
        """Each column, and whether it may hold NULL."""
        return {field.name: field.nullable for field in self._delta.schema().fields}

    def snapshot(self) -> Snapshot:
        """What readers need to know of this state."""
        import pyarrow as pa

        view = self.meta.view
        id_column = id_column_of(view)
        with lake_errors(self.folder):
            actions = pa.table(self._delta.get_add_actions(flatten=True))
        wanted = ("path", "num_records", "size_bytes", f"min.{id_column}", f"max.{id_column}")
        files: list[SnapshotFile] = []
        if actions.num_rows:
            missing = [name for name in wanted if name not in actions.column_names]
            columns = [] if missing else [actions.column(name).to_pylist() for name in wanted]
            files = [SnapshotFile(*row) for row in zip(*columns, strict=True)]
            if missing or any(None in file or not is_part(file.path) for file in files):
                raise self._changed("files that are not of Tailrace were added")
        files.sort(key=lambda file: file.first_id)
        if any(before.last_id >= after.first_id for before, after in pairwise(files)):
            raise self._changed("files with overlapping ids were added")
        return Snapshot(
            version=view.name,
            folder=self.folder,
            delta_version=self.delta_version,
            position=self.position,
            fields={name: kind for name, kind in view.fields.items() if name != view.settings.monotonic_id},
            unique_on=view.settings.unique_on,
            id_column=id_column,
            files=tuple(files),
        )

    # -- how it changes -------------------------------------------------------------------------------------------

    def commit(
        self,
        meta: TableMeta,
        *,
        now_ms: int,
        parts: Sequence[Part] = (),
        removed: Sequence[SnapshotFile] = (),
        overwrite: pa.Schema | None = None,
    ) -> None:
        """Go to the state at `meta.position`: `parts` come, `removed` go; with `overwrite` all go, and it is the schema.

        One Delta commit, and with it the point of no return.

        Raises:
            LakeConflictError: retriable; a rival was faster. This object is of no use any more.
        """
        from deltalake import Schema

        assert meta.position > self.position, "a commit goes forward"
        with lake_errors(self.folder):
            self._delta.create_write_transaction(
                [*_adds(parts, now_ms), *_removes(removed, now_ms)],
                "append" if overwrite is None else "overwrite",
                self._delta.schema() if overwrite is None else Schema.from_arrow(overwrite),
                commit_properties=_properties(
                    meta, seen=self.delta_version, fence=True, removes_files=bool(removed or overwrite)
                ),
                post_commithook_properties=_hooks(),
            )
        self._follow()
        assert self.position >= meta.position, f"{self.folder}: committed {meta.position}, found {self.position}"

    def replace(self, parts: Sequence[Part], removed: Sequence[SnapshotFile], *, now_ms: int) -> None:
        """The same rows in other files: the position stays. Commits of rivals that only add rows do no harm."""
        with lake_errors(self.folder):
            self._delta.create_write_transaction(
                [*_adds(parts, now_ms, same_rows=True), *_removes(removed, now_ms, same_rows=True)],
                "append",
                self._delta.schema(),
                commit_properties=_properties(self.meta, seen=self.delta_version, fence=False, removes_files=True),
                post_commithook_properties=_hooks(),
            )
        self._follow()

    def add_columns(self, schema: pa.Schema) -> None:
        """Add the columns of `schema` that the table does not have, empty; a commit of its own.

        Raises:
            LakeConflictError: retriable; a rival committed rows meanwhile. Adding columns looks at the newest state, so
                the fence would see the rival's position as ours if we went on from it.
        """
        from deltalake import Schema

        there = self.columns
        missing = [field for field in Schema.from_arrow(schema).fields if field.name not in there]
        if not missing:
            return
        position = self.position
        with lake_errors(self.folder):
            self._delta.alter.add_columns(
                missing, commit_properties=_properties(self.meta, seen=self.delta_version, fence=False)
            )
        self._follow()
        if self.position != position:
            raise LakeConflictError(self.folder, f"a rival went on to position {self.position}")

    def reload(self) -> None:
        """Go to the newest state, of whoever made it."""
        with lake_errors(self.folder):
            self._delta.update_incremental()
        self.meta = self._read_meta()

    def checkpoint(self) -> None:
        """Write a Delta checkpoint of this state: who opens the table reads the commits after it only."""
        with lake_errors(self.folder):
            self._delta.create_checkpoint()

    def vacuum(self, removed_kept: timedelta) -> int:
        """Delete the files that no state names since `removed_kept` or longer; their number."""
        hours = -(-removed_kept // timedelta(hours=1))
        with lake_errors(self.folder):
            found = self._delta.vacuum(hours, dry_run=True, enforce_retention_duration=False, full=True)
            if found:
                self._delta.vacuum(
                    hours,
                    dry_run=False,
                    enforce_retention_duration=False,
                    full=True,
                    commit_properties=_properties(self.meta, seen=self.delta_version, fence=False),
                    post_commithook_properties=_hooks(),
                )
        if found:
            self._follow()
        return len(found)

    def _follow(self) -> None:
        """Go to the state that we committed, or to a later one of a rival."""
        before = self.delta_version
        with lake_errors(self.folder):
            self._delta.update_incremental()
        self._sync(before + 1)
        self.meta = self._read_meta()

    def _sync(self, first: int) -> None:
        """Wait until the Delta commits from `first` on are on disk: the log behind them may be trimmed then."""
        if not self.location.is_local:
            return
        folder = self.location.local_path(self.folder)
        commits = [_commit_path(version) for version in range(first, self.delta_version + 1)]
        depth = self.folder.count("/") + 1 if first == 0 else 0  # of a new table: its folder's name is an entry there
        above = ["/".join([".."] * steps) for steps in range(1, depth + 1)]
        for path in (*commits, "_delta_log", "", *above):
            with lake_errors(self.folder, path):
                handle = os.open(folder / path, os.O_RDONLY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)

    # -- the metadata ---------------------------------------------------------------------------------------------

    def _read_meta(self) -> TableMeta:
        """Of the newest commit that belongs to the position of the app transaction.

        That is the last one, unless a rival's upkeep, prepared before it, came after it. Commits that the last one of
        ours was prepared without are looked at: of others there must be none among them.
        """
        newest: TableMeta | None = None
        found: TableMeta | None = None
        seen = self.delta_version
        for version in range(self.delta_version, -1, -1):
            info = self._our_commit(version)
            if info is None:
                continue
            meta = TableMeta.from_json(info[_KEY])
            if newest is None:
                newest, seen = meta, int(info.get(_SEEN, version - 1))
            if found is None:
                if meta.position == (self._delta.transaction_version(meta.app_id) or 0):
                    found = meta
                elif meta.position < newest.position or self.delta_version - version > self._limits.commits_kept:
                    break
            if found is not None and version <= seen + 1:
                return found
        raise self._changed("no commit tells the position")

    def _our_commit(self, version: int) -> Mapping[str, Any] | None:
        """What a commit of ours says of itself; None for one of somebody else that changed no rows."""
        info = self._commit_info(version)
        if isinstance(info.get(_KEY), str):
            return info
        if info.get("operation") in _HARMLESS:
            return None
        raise self._changed(f"commit {version} ({info.get('operation')}) is not of Tailrace", version)

    def _commit_info(self, version: int) -> Mapping[str, Any]:
        path = _commit_path(version)
        with lake_errors(self.folder, path):
            if self.location.is_local:
                text = (self.location.local_path(self.folder) / path).read_bytes()
            else:
                text = bytes(self.store.get(path).bytes())
        for line in text.splitlines():
            try:
                action = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise LakeDamagedError(self.folder, path, f"is no JSON ({error})") from error
            if "commitInfo" in action:
                info: dict[str, Any] = action["commitInfo"]
                return info
        return {}

    def _changed(self, how: str, version: int | None = None) -> LakeDamagedError:
        at = self.delta_version if version is None else version
        return LakeDamagedError(
            self.folder,
            _commit_path(at),
            f"somebody else changed the Delta table: {how}",
            "take the change back (delete that commit's file and those after it, while nothing writes), or move the table's folder away: "
            "the rows that the log still has are then written anew",
        )


def _commit_path(version: int) -> str:
    return f"_delta_log/{version:020}.json"


def _adds(parts: Sequence[Part], now_ms: int, *, same_rows: bool = False) -> list[AddAction]:
    from deltalake.transaction import AddAction

    return [AddAction(file.path, file.size_bytes, {}, now_ms, not same_rows, stats) for file, stats in parts]


def _removes(files: Sequence[SnapshotFile], now_ms: int, *, same_rows: bool = False) -> list[RemoveAction]:
    from deltalake.transaction import RemoveAction

    return [RemoveAction(file.path, not same_rows, now_ms, file.size_bytes, {}) for file in files]


def _properties(meta: TableMeta, *, seen: int, fence: bool, removes_files: bool = False) -> CommitProperties:
    """Of a commit that is prepared from the Delta version `seen`. Of two such commits that remove files the second fails by a
    mark of its own: Delta does not see that a file is gone where the rows stayed the same.
    """
    from deltalake import CommitProperties
    from deltalake.transaction import Transaction

    marks = [Transaction(meta.app_id, meta.position)] if fence else []
    if removes_files:
        marks.append(Transaction(f"{meta.topic}/files", seen + 1))
    return CommitProperties(custom_metadata={_KEY: meta.to_json(), _SEEN: str(seen)}, app_transactions=marks)


def _hooks() -> PostCommitHookProperties:
    """Checkpoints and clean-up are `tidy`'s work, so that a commit takes the same time always."""
    from deltalake import PostCommitHookProperties

    return PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
