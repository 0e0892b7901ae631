"""One store of the app within a run: the version that is read, with what the run itself has written laid over it."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tailrace.node.cursors import LOG_ORDER, Cursor, FieldCursor, LogCursor
from tailrace.node.errors import HostRefusedError, OrderingError
from tailrace.node.link import HostMessages
from tailrace.node.protocol import StoreRef
from tailrace.node.writing import TableWriter
from tailrace.tables import (
    PATTERNS_ID,
    IdMaker,
    Messages,
    Snapshot,
    SnapshotReader,
    TableFold,
    VersionReader,
    VersionView,
    activation,
    version_name,
)
from tailrace.tables.schema import Schema

if TYPE_CHECKING:
    from tailrace.node.session import Session

__all__ = ["PastAnswer", "RunStore"]


class _Overlaid:
    """`MessageSource`: the host's messages before the cut, the run's own from there on."""

    def __init__(self, host: HostMessages, cut: int, own: Messages) -> None:
        self._host, self._cut, self._own = host, cut, own

    def scan(self, start: int, stop: int) -> Iterator[Messages]:
        yield from self._host.scan(start, min(stop, self._cut))
        own = self._own.between(start, stop)
        if own.offsets:
            yield own


class _Past(NamedTuple):
    """Where rows of a version begin: the snapshot if they do not in the log, the log's start, and the id before which
    the snapshot's rows count (None: all do)."""

    snapshot: SnapshotReader | None
    log_start: int
    before: str | None


class PastAnswer(NamedTuple):
    """A table as it was."""

    view: VersionView | None
    """The version that was active then, or was asked for."""
    cut: int
    begun_ms: int | None
    """See `TableFold`."""
    held: Mapping[str, Any]
    """Where its rows are, as the host says."""


def _snapshot_reader(header: Mapping[str, Any]) -> SnapshotReader | None:
    """The snapshot that an answer of the host names."""
    if header["snapshot"] is None:
        return None
    known = Snapshot.from_json(header["snapshot"])
    return SnapshotReader(known, Path(header["folder"]), before=header["before"])


class RunStore:
    """A store: its reader, its writer, its views."""

    def __init__(self, session: Session, ref: StoreRef, partition: int = 0) -> None:
        self.session = session
        self.ref = ref
        self.ids = IdMaker(ref.topic, ref.born_ms, partition)
        self.declared = Schema.from_json(ref.schema) if ref.schema else None
        self._base: tuple[VersionView | None, int] | None = None
        self._begun_ms: int | None = None
        self._log_start = 0
        self._pasts: dict[str, _Past] = {}
        self._name_to_come: str | None = None
        self._others: dict[str, VersionView] = {}
        self._overlay: tuple[int, VersionView | None, Messages] | None = None
        self.writer = TableWriter(self)

    # -- views

    def base(self) -> tuple[VersionView | None, int]:
        """The active version as of the run's cut, and that cut."""
        if self._base is None:
            header, _ = self.session.link.request({"op": "view", "table": self.ref.key})
            view = header.get("view")
            self._base = (VersionView.from_json(view) if view else None, header["cut"])
            self._begun_ms = header.get("begun_ms")
            self._log_start = max(self._log_start, header.get("log_start", 0))
        return self._base

    @property
    def known(self) -> bool:
        """Whether the host was asked for the active version already."""
        return self._base is not None

    @property
    def tied_ms(self) -> int | None:
        """See `TableFold`."""
        return None

    @property
    def lanes(self) -> Sequence[RunStore]:
        """The partitions of the table, each a store of its own."""
        return (self,)

    def lane_views(self, name: str) -> Sequence[VersionView | None]:
        """A version as each of the lanes shows it; None for those that have nothing of it."""
        return [self.view_of(name)]

    @property
    def streamed_keys(self) -> Sequence[str]:
        """The keys of the partitions that its streams hand out."""
        return (self.ref.key,)

    def lane(self, row_id: str) -> RunStore:
        """The partition that a row lies in."""
        return self

    def committed(self, moved: Container[str]) -> None:
        """The run so far was committed; if it wrote here, the table is read as of a new cut."""
        self.writer.sent()
        if self.ref.key in moved:
            self._base = None
            self._overlay = None
            self._pasts.clear()

    def view(self) -> VersionView | None:
        """The active version with what this run has written: what the run's own reads show."""
        return self._overlaid()[1]

    def view_of(self, name: str) -> VersionView | None:
        """A version by its name, active or not."""
        view = self.view()
        if view is not None and view.name == name:
            return view
        if name not in self._others:
            header, _ = self.session.link.request({"op": "view", "table": self.ref.key, "version": name})
            if not header.get("view"):
                return None
            self._others[name] = VersionView.from_json(header["view"])
        return self._others[name]

    def name_to_come(self) -> str:
        """The physical name that SQL may use for a version that does not exist yet; the same until it does."""
        if self._name_to_come is None:
            self._name_to_come = self.next_version_name(self.session.clock.now_ms())
        return self._name_to_come

    def is_name_to_come(self, name: str) -> bool:
        """Whether `name` is the one that SQL was given for a version that does not exist yet."""
        return name == self._name_to_come

    def activate(self, name: str) -> None:
        """Make a version by name the active one."""
        view = self.view_of(name)
        if view is None:
            raise HostRefusedError("set_active_version", f"table {self.ref.name!r} has no version {name!r}")
        self.writer.finish_version()
        self.writer.mark("activate", **activation(view))

    def next_version_name(self, begun_ms: int) -> str:
        """The physical name of a version begun at `begun_ms`."""
        return version_name(self.ref.name, begun_ms)

    def _overlaid(self) -> tuple[int, VersionView | None, Messages]:
        base, cut = self.base()
        pieces = self.writer.own_messages()
        if self._overlay is not None and self._overlay[0] == self.writer.edition:
            return self._overlay
        offsets = range(cut, cut + len(pieces))
        ts_ms = [piece.ts_ms for piece in pieces]
        values = [piece.encode({"run": self.session.order.run}) for piece in pieces]
        view = base
        if pieces:
            versions = {view.name: view for view in self._others.values()}
            if base is not None:
                versions[base.name] = base
            fold = TableFold.from_json(
                {
                    "table": self.ref.name,
                    "position": cut,
                    "active": base.name if base else None,
                    "last_ms": base.begun_ms if base else 0,
                    "last_by_writer": {},
                    "versions": [each.to_json() for each in versions.values()],
                    "tied_ms": self.tied_ms,
                }
            )
            fold.advance(zip(offsets, ts_ms, values, strict=True), cut + len(pieces))
            view = fold.view()
        if self.writer.resetting:
            view = None
        own = Messages(offsets, ts_ms, [len(value) for value in values], b",".join(values))
        self._overlay = (self.writer.edition, view, own)
        return self._overlay

    # -- streams

    def log_cursor(self) -> Cursor:
        """The cursor in log order."""
        return self.cursor(None)

    def cursor(self, field: str | None) -> Cursor:
        """The run's one cursor for an ordering; None, or the id's name, is log order."""
        view, _ = self.base()
        id_name = (view.settings.monotonic_id if view else None) or PATTERNS_ID
        in_log_order = field is None or (field in (id_name, PATTERNS_ID) and not (view and field in self._plain(view)))
        key = (self.ref.key, LOG_ORDER if in_log_order else str(field))
        with self.session.lock:
            cursor = self.session.cursors.get(key)
            if cursor is None:
                cursor = self._log_cursor(id_name) if in_log_order else FieldCursor(self, str(field))
                self.session.cursors[key] = cursor
            return cursor

    def _log_cursor(self, id_name: str) -> Cursor:
        return LogCursor(self, id_name)

    def default_order(self) -> str | None:
        """The field that a stream goes by when it is told nothing; None: log order.

        Raises:
            OrderingError: rejected; the rows have no ids, and no role orders them.
        """
        view, _ = self.base()
        roles = view.settings.roles if view else self.writer.declared.settings().roles
        chosen = roles.get("strictly_monotonic_ordering")
        if not chosen and view is not None and view.settings.monotonic_id is None:
            chosen = roles.get("created_ordering")
            if not chosen and not view.settings.ordered:
                raise OrderingError(self.ref.name, None, list(view.fields))
        return chosen[0] if chosen else None

    @staticmethod
    def _plain(view: VersionView) -> set[str]:
        """Fields that are ordinary values, although one may be called like an id."""
        return set() if view.settings.monotonic_id else set(view.fields)

    # -- readers

    def reader(self, view: VersionView | None = None, *, every_id: bool = False) -> VersionReader | None:
        """A reader of the active version, the run's own rows included, or of another `view`; None where there is no
        version. Own rows have no ids, or with `every_id` some that say where they wait."""
        _, active, own = self._overlaid()
        if view is None:
            view = active
        if view is None:
            return None
        _, cut = self.base()
        snapshot, log_start = None, 0
        if view.segments[0][0] < cut:  # else nobody but this run knows of it
            snapshot, log_start, _ = self._past(view.name)
        source = _Overlaid(HostMessages(self.session.link, self.ref.key), cut, own)
        return VersionReader(
            view,
            self.ids,
            source,
            self.session.files,
            unwritten_from=None if every_id else cut,
            snapshot=snapshot,
            log_start=log_start,
        )

    def reader_at(self, at_ms: int) -> VersionReader | None:
        """A reader of the table as it was at a moment, without what this run has written; None where there was no
        version.

        Raises:
            HostRefusedError: rejected; what lay there is gone.
        """
        then = self.past_at(at_ms=at_ms)
        return None if then.view is None else self.reader_then(then, then.view)

    def past_at(self, **asked: object) -> PastAnswer:
        """What the host says of the table as it was: at `at_ms`, but no later than `cut`; of its active version, or of
        `version`."""
        header, _ = self.session.link.request({"op": "past", "table": self.ref.key, **asked})
        view = VersionView.from_json(header["view"]) if header["view"] else None
        return PastAnswer(view, header["cut"], header["begun_ms"], header)

    def reader_then(self, then: PastAnswer, view: VersionView) -> VersionReader:
        """A reader of the view that was asked for, or of one that shows more."""
        return VersionReader(
            view,
            self.ids,
            HostMessages(self.session.link, self.ref.key),
            self.session.files,
            snapshot=_snapshot_reader(then.held),
            log_start=then.held["log_start"],
        )

    def count(self, view: VersionView) -> int:
        """The number of rows of a version, with what this run has written."""
        if view.exact_count is not None:  # the host need not be asked for more
            return view.exact_count
        reader = self.reader(view)
        assert reader is not None
        return reader.count()

    def stream_reader(self, wanted: Callable[[int], int], place: tuple[int, int] = (0, 0)) -> VersionReader | None:
        """A reader for streams: the active version up to the cut, without the run's own rows. It begins with a snapshot
        where what lies after `place` is not in the log any more."""
        view, _ = self.base()
        if view is None:
            return None
        snapshot, log_start = None, self._log_start
        if self.lies_in_the_past(place):
            snapshot, log_start, _ = self._past(view.name, streamed=True)
        source = HostMessages(self.session.link, self.ref.key, streamed=True, wanted=wanted)
        return VersionReader(view, self.ids, source, self.session.files, snapshot=snapshot, log_start=log_start)

    def past(self, view: VersionView) -> tuple[SnapshotReader, str | None] | None:
        """The snapshot that the rows of a version begin with, and the id before which they count (None: all do); None
        where they are all in the log."""
        _, cut = self.base()
        if view.segments[0][0] >= cut:  # nobody but this run knows of it
            return None
        snapshot, _, before = self._past(view.name)
        if snapshot is None or all(start >= snapshot.snapshot.position for start, _ in view.segments):
            return None  # truncated since
        return snapshot, before

    def lies_in_the_past(self, place: tuple[int, int]) -> bool:
        """Whether rows of the active version after a place are not in the log any more."""
        view, _ = self.base()
        return view is not None and max(place[0], view.segments[0][0]) < self._log_start

    def trimmed(self, log_start: int) -> None:
        """The log begins later than it was known."""
        self._log_start = max(self._log_start, log_start)
        self._pasts.clear()

    def _past(self, version: str, *, streamed: bool = False) -> _Past:
        """Where a version's rows begin. Asked for when rows are read."""
        if version not in self._pasts or streamed:
            request = {"op": "snapshot", "table": self.ref.key, "version": version, "stream": streamed}
            header, _ = self.session.link.request(request)
            self._pasts[version] = _Past(_snapshot_reader(header), header["log_start"], header["before"])
        return self._pasts[version]

    def schema_of(self, view: VersionView) -> Schema:
        """A version's schema as users see it."""
        from tailrace.node.schemas import schema_of_view

        return schema_of_view(view, self.declared)

    def versions(self) -> list[Any]:
        """The table's versions, as the host knows them."""
        header, _ = self.session.link.request({"op": "versions", "table": self.ref.key})
        return [VersionView.from_json(view) for view in header["versions"]]
