"""A stream in log order over several partitions: within a run their rows come by the order of their ids.

Each partition has its place, and each is in order; what a later run finds may have lesser ids than what came before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tailrace.node.cursors import LOG_ORDER, Cursor, LogCursor

if TYPE_CHECKING:
    from tailrace.node.partitioned import PartitionedStore
    from tailrace.node.store import RunStore

__all__ = ["MergedCursor"]


class MergedCursor(Cursor):
    """Cursors of the partitions that a slot streams, as one."""

    def __init__(self, store: PartitionedStore, field: str) -> None:
        super().__init__(store, field)
        self._members = [LogCursor(lane, field) for lane in store.streamed]
        self._numbers = list(store.ref.streams)
        self._next_member: LogCursor | None = None
        self._hand: LogCursor | None = None
        self._kept: str | None = None
        """The id of the last row that earlier runs were given."""
        kept = self.session.order.orders.get(store.ref.key, {}).get(LOG_ORDER)
        if kept and kept[3] in self._numbers:
            self._kept = store.lanes[kept[3]].ids.id_at(kept[0], kept[1])
        self.save()
        self.committed()

    @property
    def inputs(self) -> Sequence[str]:
        return self.store.streamed_keys

    @property
    def lane_in_hand(self) -> RunStore:
        assert self._hand is not None
        return self._hand.store

    def _peek(self) -> bool:
        """Find the partition whose next row has the least id."""
        least: tuple[tuple[int, int], int] | None = None
        for number, member in enumerate(self._members):
            place = member.next_place()
            if place is not None and (least is None or (place, number) < least):
                least = place, number
        self._next_member = None if least is None else self._members[least[1]]
        return least is not None

    def _next(self) -> dict[str, Any]:
        assert self._next_member is not None
        self._hand = self._next_member
        return self._hand.pop()

    def keep_rest(self) -> None:
        for member in self._members:
            member.has_more = self.has_more
            member.keep_rest()

    def close(self) -> None:
        for member in self._members:
            member.close()

    def position(self) -> Any:
        return self._kept, self._hand, tuple(member.position() for member in self._members)

    def go_to(self, position: Any) -> None:
        self._kept, self._hand, places = position
        for member, place in zip(self._members, places, strict=True):
            member.go_to(place)
        self.has_more = False

    def seek(self, value: Any) -> None:
        self.in_hand = False
        self._hand = None
        for member in self._members:
            member.seek(value)
        self._kept = None if value is None or value == "" else str(value)

    @property
    def value(self) -> Any:
        """The id of the last row that was handed out."""
        return self._hand.value if self._hand is not None else self._kept

    def record(self, places: dict[str, tuple[int, int]], orders: dict[str, Any]) -> None:
        for member in self._members:
            member.record(places, {})
        if self._hand is not None:
            orders[LOG_ORDER] = [*self._hand.place_in_hand(), self.field, self._hand.store.ids.partition]
        elif self._kept is None:
            orders.pop(LOG_ORDER, None)

    def place_in_hand(self) -> tuple[int, int]:
        assert self._hand is not None
        return self._hand.place_in_hand()
