"""Where the streams of a run are, and what they hand out next. One cursor for each table and ordering.

A log-order cursor reads messages from its place up to the run's cut, a batch at a time. A cursor by a field sorts what
lies after its value. Both end early, at a row boundary, when the run has handed out its rows or used up its share of
time; `has_more` then says that rows are left.
"""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import orjson

from tailrace.node.errors import LogTrimmedError, OrderingError
from tailrace.node.values import decode_value, encode_value
from tailrace.tables import BadIdError, IdMaker, StreamBatch, VersionReader, VersionView, parse_id
from tailrace.tables.schema import RowEncoder, cast_value

if TYPE_CHECKING:
    import pyarrow as pa

    from tailrace.node.session import Session
    from tailrace.node.store import RunStore

__all__ = ["LOG_ORDER", "Cursor", "FieldCursor", "LogCursor", "Rest", "place_after"]

LOG_ORDER = ""
"""The ordering of a table's log, in the keys of cursors and in `Progress.orders`."""

_SCAN_RECORDS_MAX = 2_000
_BATCH_ROWS = 4_000
"""Rows asked for at once: they are in memory as objects, and a few hundredths of a second of work."""
_ASKED_ROWS_MIN = 200
"""Rows asked for at least where the run has time for a few only, by an estimate: fewer would be many questions."""
_FRAMES_MAX = 64
_RERAISE = dis.opmap["RERAISE"]

_rows_per_s: dict[str, float] = {}
"""By table, how many rows a second a run handed out of late: so that a run does not ask ahead for a batch that it will
not come to."""

_rows_per_message: dict[str, float] = {}
"""By table, how many rows a message held of late: so a run that may hand out a hundred rows does not parse ten
thousand. Kept over the runs of a worker."""
_wanted_whole: set[str] = set()
"""Tables of which the last run was given a part, and went back: it may have waited for more than there was, so the next
run, which follows at once, gets all. Kept over the runs of a worker; a new worker finds it out again."""


class Rest(NamedTuple):
    """Rows of a batch that a run which ended early did not come to, and the place and version that they were read for."""

    born_ms: int
    view: VersionView
    place: tuple[int, int]
    rows: list[dict[str, Any]]
    """The next one last."""
    places: Sequence[tuple[int, int]]

    def begins(self, place: tuple[int, int], born_ms: int, view: VersionView) -> bool:
        """Whether a stream of `view` from `place` on begins with these very rows: the version has only grown."""
        was = self.view
        return (
            self.place == place
            and self.born_ms == born_ms
            and not (view.settings.unique_on or view.deletes)  # a later message may take rows away
            and replace(view, segments=was.segments, appended=was.appended) == was
            and view.segments[:-1] == was.segments[:-1]
            and view.segments[-1][0] == was.segments[-1][0]
            and view.segments[-1][1] >= was.segments[-1][1]
        )


class Cursor:
    """What both kinds share: the bounds of the run, the record in hand, savepoints."""

    def __init__(self, store: RunStore, field: str) -> None:
        self.store = store
        self.session: Session = store.session
        self.field = field
        self.used = False
        self.has_more = False
        self.taken = 0
        self.in_hand = False
        """A record was handed out and nobody has asked for the next one."""
        self._dropped_at: list[tuple[int, int, bool]] | None = None
        self._saved: Any = None
        self._saved_taken = 0
        self._committed: Any = None
        self._checkpoint: Any = None
        if store.ref.key in _wanted_whole:
            _wanted_whole.discard(store.ref.key)
            self.session.unbound()

    # -- for each kind

    def _peek(self) -> bool:
        """Whether a row is there, which is then the next one; may read."""
        raise NotImplementedError

    def _next(self) -> dict[str, Any]:
        """Hand out the row that `_peek` found."""
        raise NotImplementedError

    def _may_stop(self) -> bool:
        return True

    @property
    def at_beginning(self) -> bool:
        """Whether no run has ever moved it."""
        return self.value is None

    def position(self) -> Any:
        """Where the cursor is; what `go_to` takes."""
        raise NotImplementedError

    def go_to(self, position: Any) -> None:
        """Go on from `position`; rows are read anew."""
        raise NotImplementedError

    def seek(self, value: Any) -> None:
        """Go on with rows whose ordering value is greater than `value`; None: from the beginning."""
        raise NotImplementedError

    def reposition(self, value: Any) -> None:
        """`seek`, at the wish of the node's code.

        Code may wish it in every run. Then a run that ends early would begin anew each time and never come to the rest
        of the table, so this one goes on to the end.
        """
        self.session.unbound()
        self.seek(value)

    @property
    def value(self) -> Any:
        """The ordering value of the last row that was handed out, None before the first."""
        raise NotImplementedError

    def record(self, places: dict[str, tuple[int, int]], orders: dict[str, Any]) -> None:
        """Put the position into what is committed."""
        raise NotImplementedError

    def place_in_hand(self) -> tuple[int, int]:
        """(offset, row) of the record in hand."""
        raise NotImplementedError

    @property
    def lane_in_hand(self) -> RunStore:
        """The partition that the record in hand lies in."""
        return self.store

    @property
    def inputs(self) -> Sequence[str]:
        """The keys of what it streams, as the host knows them."""
        return (self.store.ref.key,)

    # -- handing out

    def take(self) -> dict[str, Any]:
        """The next row; raises `StopIteration` where the stream ends, for good or for this run."""
        session = self.session
        loop = session.loop
        if session.over:
            session.ensure_going_on()
        if not loop.inside:
            loop.enter()
        self.in_hand = False
        if not self._peek():
            self._end(more=False)
        if (session.rows_left <= 0 or loop.now_s() >= loop.deadline_s) and self.taken and self._may_stop():
            self._end(more=True)
        session.rows_left -= 1
        self.taken += 1
        row = self._next()
        self.in_hand = True
        self._dropped_at = None
        session.hand = self
        return row

    def _end(self, *, more: bool) -> NoReturn:
        self.used = True
        self.has_more = more
        self.session.hand = None
        self.session.loop.leave()
        raise StopIteration

    def dropped(self) -> None:
        """The iterator that handed out the record in hand is gone: the loop was left, or an exception passes through.

        Which of the two shows later, when the exception's traceback names the very instructions where we are now.
        """
        if not self.in_hand:
            return
        self.session.loop.leave()
        frames: list[tuple[int, int, bool]] = []
        frame = sys._getframe(2)
        while frame is not None and len(frames) < _FRAMES_MAX:
            code = frame.f_code.co_code
            frames.append((id(frame), frame.f_lasti, code[frame.f_lasti] == _RERAISE))
            frame = frame.f_back  # type: ignore[assignment]
        self._dropped_at = frames

    @property
    def held(self) -> bool:
        """Whether a record is in hand and its loop goes on."""
        return self.in_hand and self._dropped_at is None

    def failed_in_hand(self, traceback: TracebackType | None) -> bool:
        """Whether an exception with this traceback left a record in hand."""
        if not self.in_hand:
            return False
        if self._dropped_at is None:
            return True
        passed: dict[int, set[int]] = {}
        while traceback is not None:
            passed.setdefault(id(traceback.tb_frame), set()).add(traceback.tb_lasti)
            traceback = traceback.tb_next
        # The innermost frame that both know is the one that the loop was in; those around it stand where they stood.
        # Behind a `finally` or `with` an exception goes on from another instruction than the one that raised it.
        known = (at in passed[frame] or again for frame, at, again in self._dropped_at if frame in passed)
        return next(known, False)

    def letter(self) -> tuple[int, int, Any]:
        """(offset, row, record) of the record in hand, read anew because the node may have changed it."""
        offset, row = self.place_in_hand()
        reader = self.lane_in_hand.stream_reader(lambda in_hand: 0 if in_hand else 1, (offset, row))
        assert reader is not None
        batch = next(iter(reader.stream(offset, row)), None)
        record: dict[str, Any] = dict(batch.rows[0]) if batch and batch.rows else {}
        if reader.id_name:
            record.pop(reader.id_name, None)
        return offset, row, orjson.loads(RowEncoder(reader.fields, grows=False, scalars=True).encode([record]))[0]

    # -- savepoints

    def save(self) -> None:
        """A failure goes back to here."""
        self._saved, self._saved_taken = self.position(), self.taken
        self._checkpoint = self._saved

    def restore(self) -> None:
        """Back to the last savepoint."""
        self.in_hand = False
        self.go_to(self._saved)
        self.taken = self._saved_taken

    def keep_rest(self) -> None:
        """The run has ended well: what was read and not handed out may serve the next one."""

    def close(self) -> None:
        """The run is over: let go of what was read, which would else stay until garbage is collected."""

    def committed(self) -> None:
        """The position was committed."""
        self._committed = self.position()

    def restore_committed(self) -> None:
        """Back to the last commit."""
        self.in_hand = False
        self.go_to(self._committed)

    def roll_back(self) -> None:
        """Back to the last checkpoint of this run, else to where it began; nothing but the place changes."""
        self.in_hand = False
        ended_early = self.has_more
        self.go_to(self._checkpoint)
        self.has_more = ended_early
        if ended_early:
            _wanted_whole.add(self.store.ref.key)


class LogCursor(Cursor):
    """A stream in log order, which is `patterns_id` order."""

    def __init__(self, store: RunStore, field: str) -> None:
        super().__init__(store, field)
        order = self.session.order
        self._place: tuple[int, int] = order.places.get(store.ref.key, (0, 0))
        last = order.orders.get(store.ref.key, {}).get(LOG_ORDER)
        self._last: tuple[int, int] | None = (last[0], last[1]) if last else None
        self._reader: VersionReader | None = None
        self._read = False
        self._batches: Iterator[StreamBatch] | None = None
        self._rows: list[dict[str, Any]] = []
        """Those that are left of the batch, the next one last: a row that nobody needs any more goes at once."""
        self._places: Sequence[tuple[int, int]] = []
        """Of the whole batch, in order."""
        self._at = self._size = 0
        self._loaded_s = 0.0
        self.save()
        self.committed()

    def take(self) -> dict[str, Any]:
        # As in `Cursor`, in one piece: each streamed record comes through here.
        session = self.session
        loop = session.loop
        if session.over:
            session.ensure_going_on()
        if not loop.inside:
            loop.enter()
        self.in_hand = False
        if self._at >= self._size and not self._load():
            self._end(more=False)
        if (session.rows_left <= 0 or loop.now_s() >= loop.deadline_s) and self.taken:
            self._end(more=True)
        session.rows_left -= 1
        self.taken += 1
        self._at += 1
        self.in_hand = True
        self._dropped_at = None
        session.hand = self
        return self._rows.pop()

    def next_place(self) -> tuple[int, int] | None:
        """(offset, row) of the next row; None where the stream ends. May read."""
        if self._at >= self._size and not self._load():
            return None
        offset, after = self._places[self._at]
        return offset, after - 1

    def pop(self) -> dict[str, Any]:
        """The next row, which is there."""
        self._at += 1
        return self._rows.pop()

    def _load(self) -> bool:
        """Read the next batch; whether there is one."""
        if not self._read:
            self._read = True
            if not self.store.writer.replaces:
                self._reader = self.store.stream_reader(self._wanted, self._place)
                if self._take_rest():
                    return True
        if self._reader is None:
            return False
        position = self.position()
        if self._batches is None:
            self._batches = self._from(position[0])
        try:
            batch = next(self._batches, None)
        except LogTrimmedError as error:  # while we read: what is gone from the log is in a snapshot
            self.store.trimmed(error.start)
            self._batches = self._from(position[0])
            batch = next(self._batches, None)
        now_s = self.session.loop.now_s()
        if self._size and now_s > self._loaded_s:
            _rows_per_s[self.store.ref.key] = self._size / (now_s - self._loaded_s)
        self._loaded_s = now_s
        self._place, self._last = position
        if batch is None:
            _, cut = self.store.base()
            self._place = max(self._place, (self._reader.view.segments[-1][1], 0)) if cut else self._place
            self._rows, self._places, self._at, self._size = [], [], 0, 0
            self._batches = iter(())
            return False
        self._rows, self._places = batch.rows, batch.places
        self._rows.reverse()
        self._at, self._size = 0, len(batch.rows)
        messages = batch.places[-1][0] - batch.places[0][0] + 1
        _rows_per_message[self.store.ref.key] = max(1.0, len(batch.rows) / messages)
        return True

    def _from(self, place: tuple[int, int]) -> Iterator[StreamBatch]:
        if self.store.lies_in_the_past(place):
            self._reader = self.store.stream_reader(self._wanted, place)
        assert self._reader is not None
        return self._reader.stream(*place)

    def _take_rest(self) -> bool:
        rest = self.session.rests.pop(self.store.ref.key, None)
        if rest is None or self._reader is None or self._at:
            return False
        if not rest.begins(self._place, self.store.ref.born_ms, self._reader.view):
            return False
        self._rows, self._places, self._at, self._size = rest.rows, rest.places, 0, len(rest.rows)
        self._loaded_s = self.session.loop.now_s()
        return True

    def keep_rest(self) -> None:
        if self.has_more and self._reader is not None and self._at < self._size:
            place, _ = self.position()
            view, born_ms = self._reader.view, self.store.ref.born_ms
            self.session.rests[self.store.ref.key] = Rest(born_ms, view, place, self._rows, self._places[self._at :])

    def close(self) -> None:
        self._rows, self._places, self._batches, self._reader = [], [], None, None
        self._at = self._size = 0

    def _rows_per_message(self) -> float:
        """How many rows a message holds, from the last batch or from the whole version."""
        known = _rows_per_message.get(self.store.ref.key)
        if known is None:
            assert self._reader is not None
            view = self._reader.view
            messages = sum(stop - start for start, stop in view.segments)
            known = _rows_per_message[self.store.ref.key] = max(1.0, view.appended / max(messages, 1))
        return known

    def _rows_until_deadline(self) -> float:
        """About how many rows the run will still hand out before its share of time is used up."""
        loop = self.session.loop
        rate = _rows_per_s.get(self.store.ref.key, float("inf"))
        return max(0.0, loop.deadline_s - loop.now_s()) * rate if loop.deadline_s < float("inf") else float("inf")

    def _wanted(self, in_hand: int) -> int:
        """Messages to ask for: no more than the run will hand out, since what it leaves has waited when its turn comes."""
        rows_per_message = self._rows_per_message()
        rows = min(max(self.session.rows_left, 1), max(self._rows_until_deadline(), _ASKED_ROWS_MIN))
        rows = min(rows - in_hand * rows_per_message, _BATCH_ROWS)
        if in_hand and rows <= 0:
            return 0
        return int(min(max(rows / rows_per_message, 1), _SCAN_RECORDS_MAX)) + 1

    def position(self) -> tuple[tuple[int, int], tuple[int, int] | None]:
        if not self._at:
            return self._place, self._last
        offset, row = self._places[self._at - 1]
        return (offset, row), (offset, row - 1)

    def go_to(self, position: Any) -> None:
        if position != self.position():
            self._place, self._last = position
            self._rows, self._places, self._at, self._size = [], [], 0, 0
            self._batches = None
            self.has_more = False

    def seek(self, value: Any) -> None:
        _, cut = self.store.base()
        place = place_after(self.store.ids, value, cut)
        last = (place[0], place[1] - 1) if place[1] else None
        self.in_hand = False
        self.go_to((place, last))

    @property
    def value(self) -> Any:
        _, last = self.position()
        return self.store.ids.id_at(*last) if last else None

    def record(self, places: dict[str, tuple[int, int]], orders: dict[str, Any]) -> None:
        place, last = self.position()
        key = self.store.ref.key
        if place == (0, 0):
            places.pop(key, None)
        else:
            places[key] = place
        if last is None:
            orders.pop(LOG_ORDER, None)
        else:
            orders[LOG_ORDER] = [*last, self.field]

    def place_in_hand(self) -> tuple[int, int]:
        _, last = self.position()
        assert last is not None
        return last


_ID_COLUMN = "\x00id"


class FieldCursor(Cursor):
    """A stream ordered by a field: rows without a value are left out, rows with equal values stay together."""

    def __init__(self, store: RunStore, field: str) -> None:
        super().__init__(store, field)
        kept = self.session.order.orders.get(store.ref.key, {}).get(field)
        self._value: Any = decode_value(kept) if kept is not None else None
        self._sorted: pa.Table | None = None
        self._from: Any = None  # the value that `_sorted` begins after
        self._at = 0
        self._rows: list[dict[str, Any]] = []
        self._rows_start = 0
        self._values: list[Any] = []
        self._ids: list[str] = []
        self._reader: VersionReader | None = None
        self.save()
        self.committed()

    def _peek(self) -> bool:
        if self._sorted is None:
            self._sort()
        assert self._sorted is not None
        return self._at < self._sorted.num_rows

    def _sort(self) -> None:
        import pyarrow as pa
        from pyarrow import compute

        pc: Any = compute  # its types know no column of any type
        replaces = self.store.writer.replaces
        self._reader = None if replaces else self.store.stream_reader(lambda _: _SCAN_RECORDS_MAX)
        self._from, self._at, self._rows = self._value, 0, []
        if self._reader is None:
            self._sorted = pa.table({})
            return
        if self.field not in self._reader.fields:
            raise OrderingError(self.store.ref.name, self.field, list(self._reader.fields))
        kind = self._reader.fields[self.field]
        after = cast_value(self._value, kind) if self._value is not None else None
        chunks = []
        for chunk in self._reader.tables(id_column=_ID_COLUMN):
            column = chunk.column(self.field)
            mask = pc.is_valid(column)
            if after is not None:
                mask = pc.and_(mask, pc.fill_null(pc.greater(column, pa.scalar(after, column.type)), False))
            chunks.append(chunk.filter(mask))
        table = pa.concat_tables(chunks) if chunks else self._reader.schema(_ID_COLUMN).empty_table()
        keys = [(self.field, "ascending"), (_ID_COLUMN, "ascending")]
        self._sorted = table.take(pc.sort_indices(table, sort_keys=keys))
        column = self._sorted.column(self.field)
        self._values = column.to_pylist()
        self._ids = [str(text) for text in self._sorted.column(_ID_COLUMN).to_pylist()]

    def _next(self) -> dict[str, Any]:
        from tailrace.tables.schema import arrow_to_records

        assert self._sorted is not None and self._reader is not None
        at = self._at - self._rows_start
        if not self._rows or not 0 <= at < len(self._rows):
            self._rows_start, at = self._at, 0
            part = self._sorted.slice(self._at, 500).drop_columns([_ID_COLUMN])
            self._rows = arrow_to_records(part, self._reader.fields, for_stream=True)
            if self._reader.id_name:
                for row, text in zip(self._rows, self._ids[self._at :], strict=False):
                    row[self._reader.id_name] = text
        self._value = self._values[self._at]
        self._at += 1
        return self._rows[at]

    def _may_stop(self) -> bool:
        return not self._at or self._values[self._at] != self._values[self._at - 1]

    def position(self) -> Any:
        return self._value, self._at, self._from, self._sorted is not None

    def go_to(self, position: Any) -> None:
        value, at, began, sorted_ = position
        self._value = value
        self._rows = []  # the node may have changed the rows that it was given
        if sorted_ and self._sorted is not None and began == self._from:
            self._at = at
        else:
            self._sorted, self._at = None, 0

    def seek(self, value: Any) -> None:
        self.in_hand = False
        self._value, self._sorted, self._at, self._rows = value, None, 0, []

    @property
    def value(self) -> Any:
        return self._value

    def record(self, places: dict[str, tuple[int, int]], orders: dict[str, Any]) -> None:
        if self._value is None:
            orders.pop(self.field, None)
        else:
            orders[self.field] = encode_value(self._value, self.field)

    def place_in_hand(self) -> tuple[int, int]:
        place = parse_id(self._ids[self._at - 1])
        return place.offset, place.row

    @property
    def lane_in_hand(self) -> RunStore:
        return self.store.lane(self._ids[self._at - 1])

    @property
    def inputs(self) -> Sequence[str]:
        return self.store.streamed_keys


def place_after(ids: IdMaker, value: Any, cut: int) -> tuple[int, int]:
    """The place behind the id `value`, by text order: ids of older topics lie before all rows, those of newer ones
    behind them. Texts that are no id are compared as text too.

    Raises:
        BadIdError: rejected; `value` is no text.
    """
    if value is None or value == "":
        return (0, 0)
    if not isinstance(value, str):
        raise BadIdError(str(value))
    first = ids.id_at(0, 0)
    if value < first:
        return (0, 0)
    if value[:10] > first[:10]:
        return (cut, 0)
    try:
        place = parse_id(value)
    except BadIdError:
        place = parse_id("".join(c if c in _ALPHABET else "z" for c in value[:26]).ljust(26, "0"))
    # Of rows with one offset and number the one of the lower partition comes first.
    row = place.row + (ids.partition <= place.partition)
    return (min(place.offset, cut), row if place.offset < cut else 0)


_ALPHABET = frozenset("0123456789abcdefghjkmnpqrstvwxyz")
