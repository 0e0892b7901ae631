"""A store with several partitions within a run: its lanes, each a store of its own, and what ties them together.

A run that is one of several slots of its node streams some of the partitions only; it reads and writes all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tailrace.node.cursors import Cursor
from tailrace.node.merged import MergedCursor
from tailrace.node.parting import PartitionedWriter
from tailrace.node.store import RunStore
from tailrace.tables import (
    MergedReader,
    VersionReader,
    VersionView,
    alike,
    joined_view,
    lane_of,
    parse_id,
    shown_begun_ms,
)

if TYPE_CHECKING:
    from tailrace.node.protocol import StoreRef
    from tailrace.node.session import Session

__all__ = ["Lane", "PartitionedStore"]

_LAST_OFFSET = (1 << 40) - 1
"""What is said from here on is said after all messages."""


class Lane(RunStore):
    """One partition: it shows what its group of lanes shows together."""

    def __init__(self, session: Session, ref: StoreRef, number: int, group: _Group) -> None:
        super().__init__(session, replace(ref, key=lane_of(ref.key, number)), number)
        self._group = group
        group.lanes.append(self)

    @property
    def tied_ms(self) -> int:
        """When the version began that the lanes show, or the one that would begin now."""
        return self._group.begun_ms or self.ref.born_ms

    @property
    def own_begun_ms(self) -> int | None:
        """When the version began, or will have, that this partition alone is in."""
        return self._begun_ms

    def base(self) -> tuple[VersionView | None, int]:
        self._group.tie()
        return super().base()

    def own_base(self) -> tuple[VersionView | None, int]:
        """What the host says of this partition alone."""
        return super().base()

    def own_view_of(self, name: str) -> VersionView | None:
        """A version as this partition has it; None where it has nothing of it."""
        header, _ = self.session.link.request({"op": "view", "table": self.ref.key, "version": name})
        return VersionView.from_json(header["view"]) if header.get("view") else None

    def show(self, view: VersionView | None) -> None:
        """Show this version as the active one."""
        assert self._base is not None
        self._base, self._overlay = (view, self._base[1]), None

    def committed(self, moved: Container[str]) -> None:
        super().committed(moved)
        if self._base is None:
            self._group.untie()


class _Group:
    """Lanes that are read together."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self.begun_ms: int | None = None
        """When the version began that they show."""
        self._tied = False

    def tie(self) -> None:
        """Ask the host for what it has not told yet, and have all lanes show one version."""
        if self._tied:
            return
        self._tied = True
        bases = [lane.own_base() for lane in self.lanes]
        views, cuts = [view for view, _ in bases], [cut for _, cut in bases]
        self.begun_ms = shown_begun_ms(lane.own_begun_ms for lane in self.lanes)
        if self.begun_ms is not None:
            views = [
                view if lane.own_begun_ms == self.begun_ms else lane.own_view_of(lane.next_version_name(self.begun_ms))
                for lane, view in zip(self.lanes, views, strict=True)
            ]
        for lane, view in zip(self.lanes, alike(views, cuts), strict=True):
            lane.show(view)

    def untie(self) -> None:
        """The host has something new to tell."""
        self._tied = False


class PartitionedStore(RunStore):
    """All partitions of a store as one."""

    def __init__(self, session: Session, ref: StoreRef) -> None:
        super().__init__(session, ref)
        whole = _Group()
        self._lanes = [Lane(session, ref, number, whole) for number in range(ref.partitions)]
        self.writer = PartitionedWriter(self, [lane.writer for lane in self._lanes])
        self._streamed = self._lanes
        if list(ref.streams) != list(range(ref.partitions)):
            own = _Group()  # the others' partitions need not be looked at for streaming
            self._streamed = [Lane(session, ref, number, own) for number in ref.streams]
            for lane in self._streamed:
                lane.writer = self.writer

    @property
    def lanes(self) -> Sequence[RunStore]:
        return self._lanes

    @property
    def streamed(self) -> Sequence[Lane]:
        """The partitions that its streams hand out."""
        return self._streamed

    @property
    def streamed_keys(self) -> Sequence[str]:
        return [lane.ref.key for lane in self._streamed]

    def lane(self, row_id: str) -> RunStore:
        return self._lanes[parse_id(row_id).partition % len(self._lanes)]

    # -- views

    def base(self) -> tuple[VersionView | None, int]:
        """The active version over the partitions that are streamed; there is no one cut."""
        return joined_view([lane.base()[0] for lane in self._streamed]), -1

    @property
    def known(self) -> bool:
        return any(lane.known for lane in self._lanes)

    def committed(self, moved: Container[str]) -> None:
        for lane in dict.fromkeys([*self._lanes, *self._streamed]):
            lane.committed(moved)

    def view(self) -> VersionView | None:
        return joined_view(self._views(None))

    def view_of(self, name: str) -> VersionView | None:
        return joined_view(self._views(name))

    def versions(self) -> list[Any]:
        names: dict[str, int] = {}
        for lane in self._lanes:
            names.update({view.name: view.begun_ms for view in lane.versions()})
        return [self.view_of(name) for name in sorted(names, key=names.__getitem__)]

    def _views(self, name: str | None) -> list[VersionView | None]:
        """A version (None: the active one) lane by lane, with what the run has written, all with the same fields."""
        views = [lane.view() if name is None else lane.view_of(name) for lane in self._lanes]
        return alike(views, [_LAST_OFFSET] * len(views))

    # -- readers

    def _log_cursor(self, id_name: str) -> Cursor:
        return MergedCursor(self, id_name)

    def reader(self, view: VersionView | None = None, *, every_id: bool = False) -> VersionReader | None:
        return self._merged(
            self._views(view.name if view is not None else None),
            [partial_reader(lane, every_id) for lane in self._lanes],
        )

    def stream_reader(self, wanted: Callable[[int], int], place: tuple[int, int] = (0, 0)) -> VersionReader | None:
        assert place == (0, 0), "places are a lane's"
        return self._merged(
            [lane.base()[0] for lane in self._streamed],
            [lambda _, lane=lane: lane.stream_reader(wanted) for lane in self._streamed],  # type: ignore[misc]
        )

    def reader_at(self, at_ms: int) -> VersionReader | None:
        thens = [lane.past_at(at_ms=at_ms) for lane in self._lanes]
        begun_ms = shown_begun_ms(then.begun_ms for then in thens)
        if begun_ms is None:
            return None
        thens = [
            then
            if then.begun_ms == begun_ms
            else lane.past_at(at_ms=at_ms, cut=then.cut, version=lane.next_version_name(begun_ms))
            for lane, then in zip(self._lanes, thens, strict=True)
        ]
        return self._merged(
            alike([then.view for then in thens], [then.cut for then in thens]),
            [partial(lane.reader_then, then) for lane, then in zip(self._lanes, thens, strict=True)],
        )

    @staticmethod
    def _merged(
        views: Sequence[VersionView | None], make: Sequence[Callable[[VersionView], VersionReader | None]]
    ) -> VersionReader | None:
        whole = joined_view(views)
        if whole is None:
            return None
        readers = [maker(view) for view, maker in zip(views, make, strict=True) if view is not None]
        return MergedReader(whole, [reader for reader in readers if reader is not None])

    def lane_views(self, name: str) -> list[VersionView | None]:
        return self._views(name)


def partial_reader(lane: Lane, every_id: bool) -> Callable[[VersionView], VersionReader | None]:
    """Makes the reader of a lane for a view of it."""
    return lambda view: lane.reader(view, every_id=every_id)
