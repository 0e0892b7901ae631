"""Tables as of earlier cuts, with messages laid over them that are in no log: what a run that is run again reads and
writes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tailrace.log import NewRecord, Offset, Record
from tailrace.runner.past import Held
from tailrace.runner.runs import RUN_BYTES_MAX, Tail, Tails, TooLargeError
from tailrace.runner.tails import Pin, Scanned
from tailrace.tables import Messages, Snapshot, TableFold, VersionView

__all__ = ["Overlay", "Scratch"]

SCAN_BYTES_MAX = 16 << 20
"""About how much goes into one answer to a scan of what was laid over."""


class Overlay:
    """A table as of a cut, and messages after it. Its log is asked for what lies before the cut alone.

    Args:
        versions: those that were begun before the cut, as of the cut.
    """

    def __init__(self, table: str, tail: Tail, base: Pin, versions: Sequence[VersionView]) -> None:
        self.table = table
        self.base = base
        self.messages: list[Record] = []
        self.message_bytes = 0
        self._tail = tail
        self._fold = TableFold.from_json(
            {
                "table": table,
                "position": base.cut,
                "active": base.view.name if base.view else None,
                "last_ms": max((view.begun_ms for view in versions), default=0),
                "last_by_writer": {},
                "versions": [view.to_json() for view in versions],
            }
        )

    @property
    def end(self) -> int:
        """The next offset."""
        return self._fold.position

    def write(self, values: Iterable[NewRecord], ts_ms: int) -> None:
        """Lay messages over, at offsets that follow."""
        start = self.end
        self.lay([Record(Offset(start + at), ts_ms, None, each.value) for at, each in enumerate(values)])

    def lay(self, records: Sequence[Record]) -> None:
        """Lay records over that have offsets, at or after the end."""
        self.messages += records
        self.message_bytes += sum(len(record.value or b"") for record in records)
        self._fold.advance(((record.offset, record.ts_ms, record.value) for record in records), self.end)

    async def start(self) -> int:
        """The first offset that was not trimmed."""
        return min(await self._tail.start(), self.base.cut)

    async def advance(self, *, until: int | None = None, settled: bool = False) -> bool:
        """There is never more than is known."""
        return True

    async def pin(self) -> Pin:
        """As of its end."""
        return Pin(self.end, self._fold.view()) if self.messages else self.base

    async def views(self, cut: int) -> list[VersionView]:
        """The versions that were begun before `cut`, oldest first."""
        views = [version.view(self.end) for version in self._fold.versions.values()]
        return [view.before(cut) for view in views if view.segments[0][0] < cut]

    async def scan(self, start: int, stop: int, records_max: int) -> Scanned:
        """Messages with `start <= offset < stop`."""
        if start < self.base.cut:
            return await self._tail.scan(start, min(stop, self.base.cut), records_max)
        at = bisect_left(self.messages, start, key=lambda record: record.offset)
        found: list[Record] = []
        size = 0
        for record in self.messages[at : at + records_max]:
            if record.offset >= stop:
                break
            if size >= SCAN_BYTES_MAX:
                return Scanned(Messages.of(found), record.offset)
            found.append(record)
            size += len(record.value or b"")
        if len(found) == records_max:
            return Scanned(Messages.of(found), found[-1].offset + 1)
        return Scanned(Messages.of(found), stop)


class Scratch:
    """`Tails` as of earlier cuts, which take what is written and keep it for themselves.

    Args:
        names: what tables are called, by key.
    """

    def __init__(self, tails: Tails, names: Mapping[str, str]) -> None:
        self.overlays: dict[str, Overlay] = {}
        self._tails = tails
        self._names = names

    def __getitem__(self, topic: str) -> Overlay:
        return self.overlays[topic]

    def snapshots(self, topic: str, view: VersionView | None) -> tuple[Snapshot, ...]:
        """None that are of what was laid over."""
        return self._tails.snapshots(topic, view)

    async def pin_at(self, topic: str, cut: int) -> Pin:
        """The table as of the cut. What is then written is in its later pins.

        Raises `PastGoneError` (rejected) where nobody knows how it was."""
        overlay = self.overlays.get(topic)
        if overlay is None:
            base = await self._tails.pin_at(topic, cut)
            views = {view.name: view for view in await self._tails[topic].views(base.cut)}
            if base.view is not None:  # it may know more of the active one: a truncation is forgotten by the fold
                views[base.view.name] = base.view
            overlay = self.overlays[topic] = Overlay(
                self._names.get(topic, topic), self._tails[topic], base, list(views.values())
            )
        return await overlay.pin()

    async def held(
        self, topic: str, view: VersionView | None, cut: int, known: Sequence[Snapshot] | None = None
    ) -> Held:
        """Where a version's rows before the first cut are; what was laid over is where the log is."""
        overlay = self.overlays[topic]
        return await self._tails.held(topic, view, min(cut, overlay.base.cut), known)

    async def folder(self, snapshot: Snapshot) -> Path:
        """The local folder of a snapshot's files."""
        return await self._tails.folder(snapshot)

    async def staged(self, path: str) -> bool:
        """Have a staged file in the staging folder."""
        return await self._tails.staged(path)

    def write(self, topic: str, records: Sequence[NewRecord], ts_ms: int) -> None:
        """Keep what a run has written; its table was pinned.

        Raises `TooLargeError` (rejected) for more than memory is to hold."""
        self.overlays[topic].write(records, ts_ms)
        kept = sum(overlay.message_bytes for overlay in self.overlays.values())
        if kept > RUN_BYTES_MAX:
            raise TooLargeError("what the run wrote when it was run again", kept, RUN_BYTES_MAX)
