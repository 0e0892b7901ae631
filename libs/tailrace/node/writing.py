"""What a run writes to one table: rows typed and packed into messages, versions begun, all held until a commit.

Rows are copied when they come and encoded a hundred at a time. Nothing is sent before the session commits, so going
back to a savepoint means cutting a list; what would take much memory is moved into staged files meanwhile.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from tailrace.node.errors import MissingValueError, RecordsError
from tailrace.node.staging import batches, frame_slices, spill_rows, stage_tables, table_ipc
from tailrace.tables import PATTERNS_ID, Settings
from tailrace.tables.messages import read_arrow
from tailrace.tables.schema import (
    DATETIME,
    FieldType,
    RowEncoder,
    Schema,
    fields_from_json,
    fields_to_json,
    is_json,
    join_schemas,
)
from tailrace.tables.schema.plain import clean_text, json_document, plain

if TYPE_CHECKING:
    from tailrace.node.store import RunStore

__all__ = ["Declared", "Piece", "TableWriter", "forget_known_fields"]

ROWS_PER_MESSAGE = 100
"""Rows packed into one message: beyond that the log's cost a row hardly falls, and a reader of a few rows parses more."""

MESSAGE_BYTES_MAX = 256 << 10
"""Most bytes of rows in one message: larger ones are halved. The log takes about a megabyte."""

CLAIM_CHECK_BYTES_MIN = 512 << 10
"""From here on a write goes into a staged file: as messages it would be slower to write, and lose its columns."""

MEMORY_BYTES_MAX = 16 << 20
"""Most bytes of rows of one table that wait in memory; more is moved into staged files."""

_last_fields: dict[str, dict[str, FieldType]] = {}
"""By table, the fields that this worker's last run knew."""

_IMMUTABLE = frozenset({type(None), bool, int, float, str, bytes, Decimal, date, datetime, time, timedelta, UUID})


@dataclass(slots=True)
class Piece:
    """One message in the making."""

    kind: str
    rows: int = 0
    extra: dict[str, object] = field(default_factory=dict)
    body: bytes = b""
    """The JSON array of a `rows` message."""
    ts_ms: int = 0

    def encode(self, head: Mapping[str, object]) -> bytes:
        """The message, with what the run says of itself in its head."""
        whole: dict[str, object] = {"kind": self.kind, "ts": self.ts_ms, **head, "n": self.rows, **self.extra}
        encoded = orjson.dumps(whole)
        return encoded[:-1] + b',"rows":' + self.body + b"}" if self.kind == "rows" else encoded

    @property
    def memory_bytes(self) -> int:
        """About what it holds in memory."""
        ipc = self.extra.get("ipc")
        return len(self.body) + (len(ipc) if isinstance(ipc, str) else 0)


@dataclass(slots=True)
class Declared:
    """What is said about versions that the run begins: `Table(schema=)`, `init(...)` and the store's schema."""

    schema: Schema | None = None
    hints: dict[str, FieldType] = field(default_factory=dict)
    unique_on: tuple[str, ...] | None = None
    created: str | None = None
    monotonic_id: str | None = PATTERNS_ID
    ordered: bool = True
    roles: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def fixed(self) -> dict[str, FieldType]:
        """Types that values are cast to; hints come before the schema."""
        return {**(self.schema.types if self.schema else {}), **self.hints}

    @property
    def columns(self) -> frozenset[str]:
        """Fields that the table has whether or not a record names them: the schema's, not those hinted at."""
        return frozenset(self.schema.types) if self.schema else frozenset()

    @property
    def not_null(self) -> tuple[str, ...]:
        """Fields that every record must have, save those that are filled in."""
        given = (self.created, self.monotonic_id)
        return (
            tuple(each.name for each in self.schema.fields if not each.nullable and each.name not in given)
            if self.schema
            else ()
        )

    @property
    def key(self) -> tuple[str, ...]:
        """The unique key."""
        if self.unique_on is not None:
            return self.unique_on
        return self.schema.unique_on if self.schema else ()

    def settings(self) -> Settings:
        """The settings of a version that begins now."""
        roles: dict[str, tuple[str, ...]] = {}
        if self.schema:
            for role, names in self.schema.field_roles.to_json().items():
                roles[role] = (names,) if isinstance(names, str) else tuple(names)
        if self.created:
            roles["created_ordering"] = (self.created,)
        roles.update(self.roles)
        return Settings(
            monotonic_id=self.monotonic_id,
            ordered=self.ordered,
            unique_on=self.key,
            roles=roles,
            schema_name=self.schema.name if self.schema and not self.schema.name.startswith("_") else None,
            nullable={each.name: False for each in self.schema.fields if not each.nullable} if self.schema else {},
        )


@dataclass(slots=True)
class _Saved:
    pieces: int = 0
    rows: int = 0
    resetting: bool = False
    unfinished: int | None = None
    fields: dict[str, FieldType] | None = None
    changed: list[Piece] | None = None
    """What the pieces were, where some of them were changed since."""


class TableWriter:
    """The rows and markers that a run has for one table, in order, since its last commit."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self.declared = Declared(schema=store.declared)
        self.edition = 0
        """Counts changes, so that who laid these rows over the table knows when to do it again."""
        self.resetting = False
        """`reset` was called and nothing written since: the next write begins a version."""
        self._pieces: list[Piece] = []
        self._rows: list[dict[str, Any]] = []
        self._rows_key: tuple[str, ...] = ()
        self._unfinished: int | None = None
        self._encoder: RowEncoder | None = None
        self._begun: dict[str, FieldType] | None = None
        self._saved = _Saved()
        self._drop: tuple[str, ...] = (PATTERNS_ID,)
        self._memory_bytes = 0
        self._settings_json: dict[str, object] = {}
        self._plain = True
        self._settle_settings()

    # -- what is declared

    def declare(self, **changes: Any) -> None:
        """Change what holds for versions begun from here on, and for the rows written from here on."""
        self._encode()
        self.declared = replace(self.declared, **changes)
        self._encoder = None
        self._settle_settings()

    def _settle_settings(self) -> None:
        self._drop = tuple({PATTERNS_ID, self.declared.monotonic_id} - {None}) if self.declared.monotonic_id else ()
        self._settings_json = self.declared.settings().to_json()
        self._plain = self._drop == (PATTERNS_ID,) and self.declared.created is None and not self.declared.not_null

    @property
    def key(self) -> tuple[str, ...]:
        """The unique key that upserts go by: as declared, else the version's own; empty where there is none."""
        if self.declared.key:
            return self.declared.key
        view = self._store.view()
        return view.settings.unique_on if view else ()

    # -- rows

    def append(self, records: Any, *, key: tuple[str, ...] = ()) -> None:
        """Add a record, a list of records, a DataFrame or an Arrow table; with `key` the last row of each key counts."""
        if type(records) is dict or isinstance(records, Mapping):
            if (
                self._plain and not self.resetting and key == self._rows_key
            ):  # what every record of a stream goes through
                if _IMMUTABLE.issuperset(map(type, records.values())):
                    row = dict(records)
                else:
                    row = {name: _frozen(value) for name, value in records.items()}
                row.pop(PATTERNS_ID, None)
                self._rows.append(row)
                self.edition += 1
                if len(self._rows) >= ROWS_PER_MESSAGE:
                    self._encode(at_least=ROWS_PER_MESSAGE)
            else:
                self._add((records,), key)
            return
        home = type(records).__module__.partition(".")[0]
        if home == "pandas" and hasattr(records, "columns"):
            self._add_frame(records, key)
        elif home == "pandas" and hasattr(records, "to_frame"):
            self._add((records.to_dict(),), key)
        elif home == "pyarrow" and hasattr(records, "column_names"):
            self._add_arrow(records, key)
        elif isinstance(records, str | bytes) or not isinstance(records, Iterable):
            raise RecordsError(self._store.ref.name, records)
        else:
            self._add_many(records, key)

    def _add_many(self, records: Iterable[Any], key: tuple[str, ...]) -> None:
        rows = records if isinstance(records, list) else list(records)
        if not rows:
            return
        for row in rows:
            if not isinstance(row, Mapping):
                raise RecordsError(self._store.ref.name, row)
        before = len(self._pieces)
        self._add(rows, key)
        if len(rows) > ROWS_PER_MESSAGE:
            self._encode()
            if sum(piece.memory_bytes for piece in self._pieces[before:]) > CLAIM_CHECK_BYTES_MIN:
                self._spill(before)

    def _add(self, records: Sequence[Mapping[Any, Any]], key: tuple[str, ...]) -> None:
        if self.resetting:
            self._begin()
        if key != self._rows_key:
            self._encode()
            self._rows_key = key
        created = self.declared.created
        not_null = self.declared.not_null
        ready = []
        for record in records:
            if _IMMUTABLE.issuperset(map(type, record.values())):
                row = dict(record)
            else:
                row = {name: _frozen(value) for name, value in record.items()}
            for name in self._drop:
                row.pop(name, None)
            if created is not None:
                row[created] = datetime.fromtimestamp(self._now_ms() / 1000, UTC).replace(tzinfo=None)
            for name in not_null:
                if row.get(name) is None:
                    raise MissingValueError(self._store.ref.name, name)
            ready.append(row)
        self._rows += ready
        self.edition += 1
        if len(self._rows) >= ROWS_PER_MESSAGE:
            self._encode(at_least=ROWS_PER_MESSAGE)

    def _add_frame(self, frame: Any, key: tuple[str, ...]) -> None:
        if len(frame) == 0 or len(frame.columns) == 0:
            return
        columns = [column for column in frame.columns if str(column) not in self._drop]
        fields, slices = frame_slices(
            frame[columns] if len(columns) < len(frame.columns) else frame, self.declared.fixed, self.declared.columns
        )
        self._add_columnar(fields, slices, len(frame), key)

    def _add_arrow(self, table: Any, key: tuple[str, ...]) -> None:
        from tailrace.node.staging import arrow_slices

        if table.num_rows == 0 or table.num_columns == 0:
            return
        table = table.drop_columns([name for name in table.column_names if name in self._drop])
        fields, slices = arrow_slices(table, self.declared.fixed, self.declared.columns)
        self._add_columnar(fields, slices, table.num_rows, key)

    def _add_columnar(
        self, fields: dict[str, FieldType], slices: Callable[[int], Iterable[Any]], rows: int, key: tuple[str, ...]
    ) -> None:
        """Rows that come by column: few as rows, more as a small columnar batch, many as a staged file."""
        from tailrace.tables.schema import arrow_to_records

        if self.resetting:
            self._begin()
        if rows <= ROWS_PER_MESSAGE:
            (table,) = slices(rows)
            records = arrow_to_records(table, fields, for_stream=True)
            if not _holds_scalars(records, fields):  # in a row they would have types of their own
                self._grow(fields)
                self._add(records, key)
                return
        self._encode()
        created = self.declared.created
        for name in self.declared.not_null:
            if name not in fields:
                raise MissingValueError(self._store.ref.name, name)

        def checked() -> Iterable[Any]:
            for table in slices(65_536):
                for name in self.declared.not_null:
                    if table.column(name).null_count:
                        raise MissingValueError(self._store.ref.name, name)
                yield table if created is None else self._with_created(table, created)

        self._grow(fields)
        if created is not None:
            fields = {**{name: kind for name, kind in fields.items() if name != created}, created: DATETIME}
        extra = self._extra(fields, key)
        first: Any = None
        if rows <= 65_536:
            (first,) = checked()
            if first.nbytes <= 4 * CLAIM_CHECK_BYTES_MIN:
                ipc = table_ipc(first)
                if len(ipc) * 4 // 3 <= CLAIM_CHECK_BYTES_MIN:
                    encoded = base64.b64encode(ipc).decode()
                    self._push(Piece("arrow", rows, {**extra, "ipc": encoded}, ts_ms=self._now_ms()))
                    return
        tables = [first] if first is not None else checked()
        for path, group, count in stage_tables(self._store.session, fields, tables):
            self._push(Piece("file", count, {**extra, "path": path, "row_group": group}, ts_ms=self._now_ms()))

    def _with_created(self, table: Any, created: str) -> Any:
        import pyarrow as pa

        now = datetime.fromtimestamp(self._now_ms() / 1000, UTC).replace(tzinfo=None)
        if created in table.column_names:
            table = table.drop_columns([created])
        column = pa.array([now] * table.num_rows, pa.timestamp("us"))
        return table.append_column(pa.field(created, column.type), column)

    # -- encoding

    def _encoder_now(self) -> RowEncoder:
        if self._encoder is None:
            fixed = self.declared.fixed
            known = self._begun if self._begun is not None else self._known()
            self._encoder = RowEncoder(join_schemas(known, fixed), fixed=set(fixed))
        return self._encoder

    def _known(self) -> Mapping[str, FieldType]:
        """The types that the table's fields have, as far as this worker knows.

        The table itself is asked in a worker's first run only: the answer would have to wait for the commit of the run
        before. Later runs go by what they learnt then. Messages tell the types of their own columns alone, so nothing
        that is out of date gets into the table; and should a column have become wider meanwhile, readers widen.
        """
        known = _last_fields.get(self._store.ref.key)
        if known is None or self._store.known:
            view = self._store.base()[0]
            known = dict(view.fields) if view else {}
            if view is not None and view.settings.monotonic_id:
                known.pop(view.settings.monotonic_id, None)
        return known

    def _grow(self, fields: Mapping[str, FieldType]) -> None:
        """The table holds `fields` too from here on."""
        encoder = self._encoder_now()
        grown = join_schemas(encoder.fields, fields)
        if grown != encoder.fields:
            self._encode()
            self._encoder = RowEncoder(grown, fixed=set(self.declared.fixed))
            if self._begun is not None:
                self._begun = grown

    def _encode(self, *, at_least: int = 1) -> None:
        """Turn rows that wait into messages: all of them, or only whole lots of `at_least`."""
        rows = self._rows
        if not rows:
            return
        saved = min(self._saved.rows, len(rows)) if self._saved.rows else 0
        size = ROWS_PER_MESSAGE
        encoder = self._encoder_now()
        before = encoder.fields
        if len(rows) > size:
            # Types first, over all that came together: values are then encoded as what the column is.
            encoder.encode(rows)
        starts = list(range(0, saved, size)) + list(range(saved, len(rows), size))
        done = 0
        for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
            if stop - start < at_least and stop == len(rows):
                break
            self._encode_rows(encoder, rows[start:stop])
            done = stop
            if stop == saved:
                self._saved.pieces, self._saved.rows = len(self._pieces), 0
        self._rows = rows[done:]
        if saved and done < saved:
            self._saved.rows = saved - done
        if encoder.fields is not before:
            self._tell_widened(before, encoder.fields)
        if self._begun is not None:
            self._begun = encoder.fields
        if encoder.fields is not _last_fields.get(self._store.ref.key):
            _last_fields[self._store.ref.key] = encoder.fields
        if self._memory_bytes > MEMORY_BYTES_MAX:
            self._spill(0)

    def _encode_rows(self, encoder: RowEncoder, rows: list[dict[str, Any]]) -> None:
        body = encoder.encode(rows)
        if len(body) > MESSAGE_BYTES_MAX and len(rows) > 1:
            half = len(rows) // 2
            self._encode_rows(encoder, rows[:half])
            self._encode_rows(encoder, rows[half:])
            return
        names: set[str] = set(encoder.keys) if encoder.keys is not None else set().union(*rows)
        if not all(type(name) is str for name in names):
            names = {clean_text(str(name)) for name in names}
        names |= self.declared.columns
        extra = self._extra({name: kind for name, kind in encoder.fields.items() if name in names}, self._rows_key)
        piece = Piece("rows", len(rows), extra, body, self._now_ms())
        if len(body) > CLAIM_CHECK_BYTES_MIN:
            for path, group, count in spill_rows(self._store.session, [piece], _fields_of([piece])):
                self._push(Piece("file", count, {**extra, "path": path, "row_group": group}, ts_ms=piece.ts_ms))
            return
        self._push(piece)

    def _extra(self, fields: Mapping[str, FieldType], key: tuple[str, ...]) -> dict[str, object]:
        extra: dict[str, object] = {"fields": fields_to_json(fields)}
        if key:
            extra["key"] = list(key)
        if self._settings_json:
            extra["settings"] = self._settings_json
        return extra

    def _tell_widened(self, before: Mapping[str, FieldType], after: Mapping[str, FieldType]) -> None:
        for name in self.declared.fixed:
            if name in before and after[name] != before[name]:
                self._store.session.warn_once(
                    f"table {self._store.ref.name!r}: {name!r} is declared {before[name]}, and a value does not fit: "
                    f"the column is {after[name]} from here on"
                )

    def _push(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._memory_bytes += piece.memory_bytes
        self.edition += 1

    def _spill(self, start: int) -> None:
        """Move rows that wait in memory, from piece `start` on, into staged files."""
        saved = self._saved.pieces
        kept: list[Piece] = self._pieces[:start]
        lot: list[Piece] = []

        def flush() -> None:
            if lot:
                last = lot[-1]
                fields = join_schemas({}, _fields_of(lot))
                for path, group, count in spill_rows(self._store.session, lot, fields):
                    extra = {**last.extra, "fields": fields_to_json(fields), "path": path, "row_group": group}
                    kept.append(Piece("file", count, extra, ts_ms=last.ts_ms))
                lot.clear()

        for at in range(start, len(self._pieces)):
            piece = self._pieces[at]
            if at == saved:
                flush()
                self._saved.pieces = len(kept)
            if at == self._unfinished:
                flush()
                self._unfinished = len(kept)
            if piece.kind != "rows" or (lot and lot[-1].extra.get("key") != piece.extra.get("key")):
                flush()
            if piece.kind == "rows":
                lot.append(piece)
            else:
                kept.append(piece)
        flush()
        if saved >= len(self._pieces):
            self._saved.pieces = len(kept)
        self._pieces = kept
        self._memory_bytes = sum(piece.memory_bytes for piece in kept)
        self.edition += 1

    # -- versions

    def reset(self) -> None:
        """No version is active for this run any more; the next write begins one."""
        self._encode()
        self.resetting = True
        self._begun = None
        self._encoder = None
        self.edition += 1

    def begin(self, fields: Mapping[str, FieldType] | None = None, begun_ms: int | None = None) -> int:
        """Begin a version now, of `fields` where they are known; returns when it began (milliseconds), which its name
        tells. `begun_ms`: let that be when it began."""
        self._encode()
        return self._begin(fields, begun_ms)

    def append_columns(self, table: Any, fields: Mapping[str, FieldType]) -> None:
        """Add an Arrow table of these fields."""
        if table.num_rows:
            self._add_columnar(dict(fields), lambda size: batches(table, size), table.num_rows, ())

    def next_begun_ms(self) -> int:
        """When a version begins that begins now: after those before it."""
        base = self._store.base()[0]
        before = [*([base.begun_ms] if base else []), *map(self._begun_ms_of, self._pieces)]
        return max([self._now_ms(), *(begun_ms + 1 for begun_ms in before)])

    def _begin(self, fields: Mapping[str, FieldType] | None = None, begun_ms: int | None = None) -> int:
        now_ms = self._now_ms()
        begun_ms = self.next_begun_ms() if begun_ms is None else begun_ms
        self.resetting = False
        if self._unfinished is None:
            self._unfinished = len(self._pieces)
        self._begun = join_schemas(fields or {}, self.declared.fixed)
        self._encoder = None
        extra: dict[str, object] = {"begun_ms": begun_ms, "fields": fields_to_json(self._begun)}
        if self._settings_json:
            extra["settings"] = self._settings_json
        self._push(Piece("version", 0, extra, ts_ms=now_ms))
        return begun_ms

    @staticmethod
    def _begun_ms_of(piece: Piece) -> int:
        """When a version began that this piece begins: rows begin one where there is none."""
        begun = piece.extra.get("begun_ms", piece.ts_ms)
        return begun if isinstance(begun, int) else 0

    @property
    def holds_rows(self) -> bool:
        """Whether anything waits."""
        return bool(self._rows or self._pieces or self.resetting)

    @property
    def holds_version(self) -> bool:
        """Whether a version was begun that is not finished yet."""
        return self._unfinished is not None or self.resetting

    @property
    def replaces(self) -> bool:
        """Whether the version that the run found is no longer the active one for it."""
        return self.resetting or any(piece.kind in ("version", "reset", "activate") for piece in self._pieces)

    def finish_version(self, begun_ms: int | None = None) -> None:
        """The version begun last is whole: it goes with the next commit, and becomes the active one. `begun_ms`: when the
        one begins that comes after a reset."""
        self._encode()
        if self.resetting:
            self.resetting = False
            extra: dict[str, object] = {} if begun_ms is None else {"begun_ms": begun_ms}
            self._push(Piece("reset", 0, extra, ts_ms=self._now_ms()))
        self._unfinished = None

    def drop_unfinished(self) -> None:
        """A run that failed: readers stay on the version before."""
        self._encode()
        self.resetting = False
        if self._unfinished is not None:
            del self._pieces[self._unfinished :]
            self._unfinished = None
        self.edition += 1

    def mark(self, kind: str, **extra: object) -> None:
        """A marker such as `truncate`, `activate`, `delete` or `signal`."""
        self._encode()
        if kind in ("truncate", "delete") and self.resetting:
            return
        self._push(Piece(kind, 0, extra, ts_ms=self._now_ms()))

    def remove_own(self, places: set[tuple[int, int]]) -> None:
        """Take rows away that wait: (piece, row in it)."""
        if self._saved.changed is None:
            self._saved.changed = list(self._pieces)
        by_piece: dict[int, set[int]] = {}
        for at, row in places:
            by_piece.setdefault(at, set()).add(row)
        for at, gone in by_piece.items():
            self._pieces[at] = self._without(self._pieces[at], gone)
        self._memory_bytes = sum(piece.memory_bytes for piece in self._pieces)
        self.edition += 1

    def _without(self, piece: Piece, gone: set[int]) -> Piece:
        kept = [row for row in range(piece.rows) if row not in gone]
        extra = {name: value for name, value in piece.extra.items() if name not in ("ipc", "path", "row_group")}
        if piece.kind == "rows":
            rows = orjson.loads(piece.body)
            return Piece("rows", len(kept), extra, orjson.dumps([rows[row] for row in kept]), piece.ts_ms)
        if not kept:
            return Piece("rows", 0, extra, b"[]", piece.ts_ms)
        whole = {"kind": piece.kind, **piece.extra}
        if piece.kind == "arrow":
            table: Any = read_arrow(whole)
        else:
            table = self._store.session.files.row_group(str(whole["path"]), int(str(whole["row_group"])))
        table = table.take(kept)
        ipc = table_ipc(table)
        if len(ipc) <= CLAIM_CHECK_BYTES_MIN // 2:
            return Piece("arrow", len(kept), {**extra, "ipc": base64.b64encode(ipc).decode()}, b"", piece.ts_ms)
        ((path, group, count),) = stage_tables(self._store.session, _fields_of([piece]), [table])
        return Piece("file", count, {**extra, "path": path, "row_group": group}, b"", piece.ts_ms)

    # -- savepoints

    def save(self) -> None:
        """A failure goes back to here."""
        fields = self._encoder.fields if self._encoder else None
        self._saved = _Saved(len(self._pieces), len(self._rows), self.resetting, self._unfinished, fields)

    def restore(self) -> None:
        """Back to the last savepoint."""
        saved = self._saved
        if saved.changed is not None:
            self._pieces, saved.changed = saved.changed, None
        del self._pieces[saved.pieces :]
        del self._rows[saved.rows :]
        self.resetting, self._unfinished = saved.resetting, saved.unfinished
        if saved.fields is None:
            self._encoder = None
        elif self._encoder is not None and self._encoder.fields is not saved.fields:
            self._encoder = RowEncoder(saved.fields, fixed=set(self.declared.fixed))
        self._memory_bytes = sum(piece.memory_bytes for piece in self._pieces)
        self.edition += 1

    def restore_committed(self) -> None:
        """Back to the last commit: nothing waits."""
        self._saved = _Saved()
        self.restore()
        self._begun = None

    # -- for the session

    def own_messages(self) -> list[Piece]:
        """All that waits, as messages."""
        self._encode()
        return self._pieces

    @property
    def rows_pending(self) -> int:
        """Rows in `messages`."""
        return sum(piece.rows for piece in self._pieces)

    def messages(self, head: Mapping[str, object]) -> list[bytes]:
        """All that waits, ready to be sent."""
        self._encode()
        return [piece.encode(head) for piece in self._pieces]

    def sent(self) -> None:
        """It was committed."""
        self._pieces = []
        self._memory_bytes = 0
        self._saved = _Saved()
        self.edition += 1
        if self._begun is not None and self._encoder is None:
            self._encoder_now()
        self._begun = None

    def _now_ms(self) -> int:
        return self._store.session.clock.now_ms()


def forget_known_fields() -> None:
    """As in a worker that has not run anything yet."""
    _last_fields.clear()


def _frozen(value: Any) -> Any:
    """A value that its owner cannot change any more."""
    if type(value) in _IMMUTABLE:
        return value
    known = plain(value)
    return json_document(known) if isinstance(known, dict | list) else known


def _holds_scalars(records: Sequence[Mapping[str, Any]], fields: Mapping[str, FieldType]) -> bool:
    """Whether Json is something else than objects and lists somewhere, as a query may make it."""
    names = [name for name, kind in fields.items() if is_json(kind)]
    return any(not isinstance(record[name], dict | list | None) for record in records for name in names)


def _fields_of(pieces: Sequence[Piece]) -> dict[str, FieldType]:
    fields: dict[str, FieldType] = {}
    for piece in pieces:
        written = piece.extra["fields"]
        assert isinstance(written, dict)
        fields = join_schemas(fields, fields_from_json(written))
    return fields
