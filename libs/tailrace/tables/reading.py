"""The rows of one table version as of a cut: as Arrow tables, and one by one in log order for streams.

Each row is cast by the schema in force at its place, then widened through every schema that came after, so that every
way of reading gives the same values, and a snapshot made anywhere between changes none. With a unique key the last row
of each key is the one that counts; deleted rows are left out, and so are those whose values no type of theirs can hold.
Memory is bounded by the chunk, not by the table (with a key: by the number of keys).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tailrace.tables.fold import REQUEST_FIELDS, WEBHOOK_FIELDS, VersionView
from tailrace.tables.ids import BadIdError, IdMaker, parse_id, place_number, places_of
from tailrace.tables.live import FOREVER, LastOfKey, Live, Regime, key_array, regimes_of
from tailrace.tables.messages import DATA_KINDS, Head, Messages, decode_messages
from tailrace.tables.pieces import BadMessageError, BadRow, FileSource, Piece, columnar_table, pieces_of
from tailrace.tables.schema import (
    FieldType,
    ValueCastError,
    arrow_schema,
    arrow_to_records,
    compile_decoder,
    join,
    null_column,
    widen_column,
    widener,
)
from tailrace.tables.snapshot import SnapshotReader
from tailrace.tables.streamed import Moments, Row, StreamBatch, WebhookRow, moment_of

if TYPE_CHECKING:
    import pyarrow as pa

    from tailrace.tables.ids import Places

__all__ = ["MessageSource", "VersionReader"]

_FIRST = (-1, -1)
_SLICE_ROWS = 4_096
"""Rows of a columnar message, or of a snapshot, that are Python objects at a time."""

_CHUNK_ROWS = 65_536


class MessageSource(Protocol):
    """Where the messages of one topic come from."""

    def scan(self, start: int, stop: int) -> Iterator[Messages]:
        """The messages with `start <= offset < stop`, in batches of bounded size."""
        ...


class VersionReader:
    """Reads one version of a table as of a cut."""

    def __init__(
        self,
        view: VersionView,
        ids: IdMaker,
        source: MessageSource,
        files: FileSource,
        *,
        unwritten_from: int | None = None,
        snapshot: SnapshotReader | None = None,
        log_start: int = 0,
        on_bad_row: Callable[[BadRow], None] | None = None,
    ) -> None:
        """
        Args:
            unwritten_from: messages at or after this offset are not in the log yet: their rows have no id.
            snapshot: of this version, its position not after the cut. Reads begin with its rows; it is passed over
                where the version was truncated after it.
            log_start: the first offset that the log still has; streams that begin before it begin in the snapshot.
            on_bad_row: told of each row that a read leaves out because its types cannot hold it.
        """
        self.view = view
        self._unwritten_from = unwritten_from if unwritten_from is not None else 1 << 62
        self._ids = ids
        self._source = source
        self._files = files
        self._log_start = log_start
        self._on_bad_row = on_bad_row
        self._schemas = [(first, self._without_id(fields)) for first, fields in view.schemas]
        self._past: SnapshotReader | None = None
        self._position = 0
        """Where the tail begins: the snapshot's position."""
        if snapshot is not None and any(start < snapshot.snapshot.position for start, _ in view.segments):
            assert snapshot.snapshot.version == view.name, f"a snapshot of {snapshot.snapshot.version}, not {view.name}"
            self._past, self._position = snapshot, snapshot.snapshot.position
        self._final = self._schemas[-1][1] if self._schemas else {}
        if self._past is not None:  # it may be younger than the cut, and its types wider
            held = self._past.snapshot.fields
            self._final = {name: join(kind, held.get(name, kind)) for name, kind in self._final.items()}
        self._decoders: dict[tuple[int, bool], Callable[[Row], Row]] = {}

    @property
    def fields(self) -> Mapping[str, FieldType]:
        """The fields that a read shows, without the id."""
        return self._final

    @property
    def id_name(self) -> str | None:
        """Under which name rows show their id."""
        return self.view.settings.monotonic_id

    def schema(self, id_column: str | None, columns: Sequence[str] | None = None) -> pa.Schema:
        """Arrow schema of `tables`."""
        import pyarrow as pa

        names = self.fields if columns is None else columns
        schema = arrow_schema({name: self.fields[name] for name in names})
        return schema.append(pa.field(id_column, pa.string())) if id_column else schema

    # -- whole tables ---------------------------------------------------------------------------------------------

    def tables(
        self,
        rows_max: int = _CHUNK_ROWS,
        *,
        id_column: str | None = None,
        start: tuple[int, int] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[pa.Table]:
        """The rows in log order, at most about `rows_max` at a time.

        Args:
            id_column: name of a last column with the ids; None: without.
            start: only rows at or after this place (offset, row), none of which is superseded by one after it.
            columns: names of the fields to read, in this order; all where None. Of a snapshot's files only these are
                read, and the key's if rows may be superseded.
        """
        names = list(self.fields) if columns is None else list(columns)
        first = place_number(*(start or _FIRST))
        past = self._past if first < self._position << 16 else None
        tail = _Tail(lambda: self._pieces(max(first >> 16, self._position if past else 0), rows_max), rows_max)
        live = self._live(first, past, tail)
        if past is not None:
            yield from self._past_tables(past, live, first, names, id_column, rows_max)
        import pyarrow as pa

        made: list[pa.Table] = []
        rows = 0
        for piece in tail.pieces():
            if self._on_bad_row is not None:
                for bad in piece.bad:
                    self._on_bad_row(bad)
            mask = live.mask(piece.places)
            if len(piece.places) and piece.places[0] < first:
                mask = (piece.places >= first) if mask is None else mask & (piece.places >= first)
            shown = self._shown(piece, names, id_column)
            if mask is not None:
                shown = shown.filter(_boolean(mask))
            # Tables without columns lose their rows where they are joined.
            if made and (rows + shown.num_rows > rows_max or not shown.column_names):
                yield pa.concat_tables(made) if len(made) > 1 else made[0]
                made, rows = [], 0
            if shown.num_rows:
                made.append(shown)
                rows += shown.num_rows
        if made:
            yield pa.concat_tables(made) if len(made) > 1 else made[0]

    def table(self, *, id_column: str | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows in one Arrow table."""
        import pyarrow as pa

        chunks = list(self.tables(id_column=id_column, columns=columns))
        return pa.concat_tables(chunks) if chunks else self.schema(id_column, columns).empty_table()

    def count(self) -> int:
        """The number of rows that a read gives.

        Where appending alone decides it, it is what the messages say, without reading their rows.
        """
        exact = self.view.exact_count
        if exact is not None:
            return exact
        past = self._past
        tail = _Tail(lambda: self._pieces(self._position, _CHUNK_ROWS), _CHUNK_ROWS)
        live = self._live(place_number(*_FIRST), past, tail)
        rows = 0
        if past is not None:
            known = past.rows if live.everything else None
            chunks = self._past_tables(past, live, -1, [], "id", _CHUNK_ROWS) if known is None else ()
            rows = known if known is not None else sum(chunk.num_rows for chunk in chunks)
        for piece in tail.pieces():
            mask = live.mask(piece.places)
            rows += len(piece.places) if mask is None else int(mask.sum())
        return rows

    def superseding(self, start: tuple[int, int]) -> Live:
        """What the messages at or after `start` take away from rows before it, which a snapshot there holds.

        Its `newer` are the keys that come again (also where the later row was deleted since), its `gone` the places of
        deleted rows. To be asked only where neither the key nor the types of its fields changed after `start`.
        """
        first = place_number(*start)
        tail = _Tail(lambda: self._pieces(start[0], _CHUNK_ROWS), _CHUNK_ROWS)
        last = LastOfKey()
        regimes = [regime for regime in regimes_of(self.view) if regime.stop > start[0]]
        for regime in regimes:
            for piece in tail.pieces():
                self._add_keys(last, regime, self._keyed(piece, regime), piece.places)
        deleted = [(place, at) for place, at in self._deleted(start[0]) if place < first]
        key = regimes[-1].key if regimes else ()
        import numpy as np

        return Live(np.empty(0, np.int64), deleted, last.keys(), key)

    # -- streams --------------------------------------------------------------------------------------------------

    def stream(self, offset: int, row: int) -> Iterator[StreamBatch]:
        """The rows at or after a place, in log order, as streams give them (JSON parsed), each with its next place.

        A batch for each batch of the source, and several for columnar messages; lists, because this is the path of
        every streamed record. A place before the start of the log begins in the snapshot, and crosses into the log at
        its position.
        """
        past = self._past if offset < self._log_start else None
        gone: frozenset[int] = frozenset()
        if (
            past is not None or self.view.deletes or regimes_of(self.view)
        ):  # a plain stream loads neither numpy nor Arrow
            live = self._live(place_number(offset, row), past)
            gone = frozenset(live.gone.tolist())
            if past is not None:
                yield from self._past_batches(past, live, place_number(offset, row))
                offset, row = max((offset, row), (self._position, 0))
        yield from self._log_batches(offset, row, gone)

    def _log_batches(self, offset: int, row: int, gone: frozenset[int]) -> Iterator[StreamBatch]:
        id_name = self.id_name
        prefix_of, tails = self._ids.prefix, self._ids.tails(1)
        moments = Moments()
        moment = moments.moment
        decode, fields_until = self._stream_decoder(-1), -1
        only_posts = not gone and self._shown_types() == WEBHOOK_FIELDS
        for batch, docs in self._doc_batches(offset):
            if only_posts and (not row or batch.offsets[0] != offset):
                posted = moments.posts(batch, docs)
                if posted is not None:
                    if id_name is not None:
                        for one, text in zip(posted.rows, self._ids.of_first_rows(batch.offsets), strict=True):
                            one[id_name] = text
                    yield posted
                    continue
            rows: list[Row] = []
            places: list[tuple[int, int]] = []
            for at, ts_ms, doc in zip(batch.offsets, batch.ts_ms, docs, strict=True):
                kind = doc["kind"]
                if kind not in DATA_KINDS:
                    continue
                if kind in ("arrow", "file"):
                    if rows:
                        yield StreamBatch(rows, places)
                        rows, places = [], []
                    yield from self._columnar_batches(at, doc, (offset, row), gone)
                    continue
                if at >= fields_until:
                    decode, fields_until = self._stream_decoder(at), self._fields_until(at)
                own = doc.get("rows")
                if type(own) is not list:
                    continue
                if kind == "webhook":
                    received = moment(moment_of(doc.get("ts"), ts_ms))
                    posts: list[Row] = []
                    for record in own:
                        post: Row = WebhookRow()  # filling it is three times as fast as calling it with its fields
                        post["timestamp"], post["record"] = received, record
                        posts.append(post)
                    if "request_key" in doc:
                        for post in posts:
                            post["patterns_request_key"] = doc["request_key"]
                    own = posts
                elif "fields" not in doc:  # a foreign producer's: its rows may hold what no read shows
                    own = [_named(one, self._fields_of(self._step_at(at))) for one in own]
                count = len(own)
                try:
                    if count == 1 and not gone and at != offset:  # most messages of webhooks and small writes
                        one = decode(own[0])
                        if id_name is not None:
                            one[id_name] = prefix_of(at) + tails[0]
                        rows.append(one)
                        places.append((at, 1))
                        continue
                    own = [decode(one) for one in own]
                    numbers: Sequence[int] = range(count)
                except (ValueCastError, TypeError, AttributeError):
                    numbers, own = _decoded(own, decode)
                if id_name is not None:
                    prefix = prefix_of(at)
                    if count > len(tails):
                        tails = self._ids.tails(count)
                    for number, one in zip(numbers, own, strict=True):
                        one[id_name] = prefix + tails[number]
                first = row if at == offset else 0
                if not gone and first == 0:
                    rows += own
                    places += [(at, number + 1) for number in numbers]
                    continue
                for number, one in zip(numbers, own, strict=True):
                    if number >= first and (at << 16 | number) not in gone:
                        rows.append(one)
                        places.append((at, number + 1))
            if rows:
                yield StreamBatch(rows, places)

    def _columnar_batches(
        self, at: int, doc: Head, start: tuple[int, int], gone: frozenset[int]
    ) -> Iterator[StreamBatch]:
        """The rows of one columnar message, a slice at a time: as Python objects they take many times the memory."""
        step = self._step_at(at)
        try:
            table, types = columnar_table(at, doc, self._fields_of(step), self._files)
        except BadMessageError:
            return
        tails = self._ids.tails(table.num_rows)
        prefix, id_name = self._ids.prefix(at), self.id_name
        for first in range(start[1] if at == start[0] else 0, table.num_rows, _SLICE_ROWS):
            part = self._widened(table.slice(first, _SLICE_ROWS), types, step - 1, list(self.fields))
            own = self._records(part)
            if id_name is not None:
                for one, tail in zip(own, tails[first : first + len(own)], strict=True):
                    one[id_name] = prefix + tail
            places = [(at, number) for number in range(first + 1, first + 1 + len(own))]
            if gone:
                kept = [number for number in range(len(own)) if (at << 16 | first + number) not in gone]
                own, places = [own[number] for number in kept], [places[number] for number in kept]
            if own:
                yield StreamBatch(own, places)

    def _past_batches(self, past: SnapshotReader, live: Live, first: int) -> Iterator[StreamBatch]:
        id_name = self.id_name
        for chunk in self._past_tables(past, live, first, list(self.fields), "id", _SLICE_ROWS):
            ids = chunk.column(chunk.num_columns - 1)
            own = self._records(chunk.select(range(chunk.num_columns - 1)))
            if id_name is not None:
                for one, text in zip(own, ids.to_pylist(), strict=True):
                    one[id_name] = text
            places = [(place >> 16, (place & 0xFFFF) + 1) for place in places_of(ids).tolist()]
            yield StreamBatch(own, places)

    def _records(self, table: pa.Table) -> list[Row]:
        """Rows of the final fields as a stream hands them over."""
        own = arrow_to_records(table, self.fields, for_stream=True)
        return [WebhookRow(one) for one in own] if self._shows_posts else own

    @property
    def _shows_posts(self) -> bool:
        """Whether rows fall back to their `record`: those of a table that holds what webhooks write, and no more."""
        return self._shown_types() in (WEBHOOK_FIELDS, REQUEST_FIELDS)

    def _shown_types(self) -> dict[str, str]:
        return {name: str(kind) for name, kind in self.fields.items()}

    def _fields_until(self, offset: int) -> int:
        """The offset at which other fields than those at `offset` come into force."""
        later = [first for first, _ in self._schemas if first > offset]
        return later[0] if later else 1 << 62

    def _stream_decoder(self, offset: int) -> Callable[[Row], Row]:
        final, step = self.fields, self._step_at(offset)
        here = self._fields_of(step)
        decode = self._decoder(here)
        if self._shows_posts and here == final:
            width = len(here)

            def post(row: Row) -> Row:
                if type(row) is WebhookRow and len(row) == width and type(row["record"]) is not str:
                    return row
                return WebhookRow(decode(row))

            return post
        if here == final:
            return decode
        chains = {name: self._chain(here.get(name), step, name) for name in final}
        changed = [(name, chain) for name, chain in chains.items() if chain]
        shown: Callable[[Row], Row] = WebhookRow if self._shows_posts else lambda row: row

        def widened(row: Row) -> Row:
            values = decode(row)
            out = {name: values.get(name) for name in final}
            for name, chain in changed:
                value = out[name]
                for widen in chain:
                    if value is not None:
                        value = widen(value)
                out[name] = value
            return shown(out)

        return widened

    def _chain(self, kind: FieldType | None, step: int, name: str) -> list[Callable[[object], object]]:
        """What a value goes through from the type that it has after `step` schemas to the one that is shown."""
        chain = []
        for wider in self._types_after(step, name):
            if kind is not None:
                widen = widener(kind, wider)
                chain += [widen] if widen is not None else []
                kind = wider
        return chain

    def _decoder(self, fields: Mapping[str, FieldType]) -> Callable[[Row], Row]:
        key = (id(fields), True)  # the reader keeps the mappings alive
        decoder = self._decoders.get(key)
        if decoder is None:
            decoder = self._decoders[key] = compile_decoder(fields, for_stream=True)
        return decoder

    # -- parts ----------------------------------------------------------------------------------------------------

    def _without_id(self, fields: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        id_name = self.view.settings.monotonic_id
        return {name: kind for name, kind in fields.items() if name != id_name}

    def _step_at(self, offset: int) -> int:
        """How many schemas are in force at `offset`."""
        return sum(first <= offset for first, _ in self._schemas)

    def _fields_of(self, step: int) -> Mapping[str, FieldType]:
        return self._schemas[step - 1][1] if step else {}

    def _types_after(self, step: int, name: str) -> list[FieldType]:
        """The types that a field takes on after `step` schemas, one after the other."""
        types = [fields[name] for _, fields in self._schemas[step:] if name in fields]
        return [*types, self._final[name]] if name in self._final else types

    def _widened(
        self, table: pa.Table, fields: Mapping[str, FieldType], step: int, names: Sequence[str], stop: int = 1 << 62
    ) -> pa.Table:
        """A table of `fields` as one of the named fields, whose types are those that are shown.

        `step` schemas were in force where `fields` were; with `stop` the types are those after that many schemas.
        """
        import pyarrow as pa

        arrays: list[Any] = []
        shown = {}
        for name in names:
            kind = fields.get(name)
            if stop < len(self._schemas):
                types = [wider[name] for _, wider in self._schemas[max(step, 0) : stop] if name in wider]
            else:
                types = self._types_after(max(step, 0), name)
            final = types[-1] if types else kind
            assert final is not None, f"no field is called {name!r}"
            shown[name] = final
            if kind is None or name not in table.column_names:
                arrays.append(null_column(table.num_rows, final))
                continue
            column = table.column(name)
            for wider in types:
                if wider != kind:
                    column, kind = widen_column(column, kind, wider), wider
            arrays.append(column)
        made = pa.Table.from_arrays(arrays, schema=arrow_schema(shown))
        return made if names else table.select([])

    def _scans(self, start: int) -> Iterator[Messages]:
        repeats = frozenset(self.view.repeats)
        for segment_start, stop in self.view.segments:
            first = max(segment_start, start, self._log_start, 0)
            if first < stop:
                batches = self._source.scan(first, stop)
                yield from (batch.without(repeats) for batch in batches) if repeats else batches

    def _doc_batches(self, start: int) -> Iterator[tuple[Messages, list[Head]]]:
        for batch in self._scans(start):
            if batch.offsets:
                yield batch, decode_messages(batch)

    def _pieces(self, start: int, rows_max: int) -> Iterator[Piece]:
        return pieces_of(self._scans(start), self._schemas, self._files, rows_max)

    def _shown(self, piece: Piece, names: Sequence[str], id_column: str | None) -> pa.Table:
        import pyarrow as pa

        table = self._widened(piece.table, self._fields_of(piece.step), piece.step, names)
        if not id_column:
            return table
        written = piece.places < self._unwritten_from << 16
        ids: Any = self._ids.array(piece.places)
        if not written.all():
            ids = pa.array([text if kept else None for text, kept in zip(ids.to_pylist(), written, strict=True)])
        return table.append_column(pa.field(id_column, pa.string()), ids.cast(pa.string()))

    def _past_tables(
        self, past: SnapshotReader, live: Live, first: int, names: Sequence[str], id_column: str | None, rows_max: int
    ) -> Iterator[pa.Table]:
        """The snapshot's rows that count."""
        import pyarrow as pa

        snapshot = past.snapshot
        step = self._step_at(snapshot.position - 1)
        wanted = list(dict.fromkeys([*names, *live.key]))
        ids = id_column is not None or len(live.gone) > 0
        held = rows_max
        if live.newer is not None:  # each lookup costs as much as there are keys
            held = max(held, min(len(live.newer), 1 << 20))
        after = None
        if first > 0:
            offset, row = first >> 16, first & 0xFFFF
            after = self._ids.id_at(offset, row - 1) if row else self._ids.prefix(offset)
        for chunk in past.tables(columns=wanted, ids=ids, after=after, rows_max=held):
            table = self._widened(chunk, snapshot.fields, step, wanted)
            mask = live.newer_mask(table, self.fields)
            own_ids = chunk.column(chunk.num_columns - 1) if ids else None
            if own_ids is not None and len(live.gone):
                gone = live.mask(places_of(own_ids))
                mask = gone if mask is None else mask if gone is None else mask & gone
            table = table.select(list(names))
            if id_column is not None and own_ids is not None:
                table = table.append_column(pa.field(id_column, pa.string()), own_ids)
            if mask is not None:
                table = table.filter(_boolean(mask))
            for at in range(0, table.num_rows, rows_max):
                yield table.slice(at, rows_max)

    # -- which rows count -----------------------------------------------------------------------------------------

    def _live(self, first: int, past: SnapshotReader | None, tail: _Tail | None = None) -> Live:
        """Which rows at or after place `first` count."""
        import numpy as np

        begin = max(first >> 16, self._position if past is not None else 0)
        deleted = self._deleted(begin)
        gone: Places = np.empty(0, np.int64)
        regimes = [each for each in regimes_of(self.view) if each.stop > begin and each.start < self._stop]
        tail = tail or _Tail(lambda: self._pieces(begin, _CHUNK_ROWS), _CHUNK_ROWS)
        for regime in regimes:
            last = LastOfKey()
            known = past is not None and regime.start < begin and past.snapshot.unique_on == regime.key
            before = [(place, at) for place, at in deleted if at < regime.start]
            present = Live(gone, before)
            if past is not None and not known:
                for keys, places in self._past_keys(past, regime, first):
                    self._add_keys(last, regime, keys, places, present)
            for piece in tail.pieces():
                if len(piece.places) and piece.places[0] >> 16 < regime.stop:
                    self._add_keys(last, regime, self._keyed(piece, regime), piece.places, present)
            gone = np.union1d(gone, last.superseded())
            newer = last.keys() if past is not None and known else None
            if newer is not None and past is not None:
                # Keys of other types, which the last regime may give them though it has no row yet, are told by places.
                if len(regimes) == 1 and regime.stop == FOREVER:
                    return Live(gone, deleted, newer, regime.key)
                mine = Live(np.empty(0, np.int64), [], newer, regime.key)
                again = [places[mine.has_newer(keys)] for keys, places in self._past_keys(past, regime, first)]
                gone = np.union1d(gone, np.concatenate([np.empty(0, np.int64), *again]))
        return Live(gone, deleted)

    @property
    def _stop(self) -> int:
        return self.view.segments[-1][1] if self.view.segments else 0

    @staticmethod
    def _add_keys(
        last: LastOfKey, regime: Regime, keys: pa.Array[Any], places: Places, present: Live | None = None
    ) -> None:
        kept = places < regime.stop << 16
        mask = present.mask(places) if present is not None else None
        if mask is not None:
            kept &= mask
        if kept.all():
            last.add(keys, places)
        else:
            last.add(keys.filter(_boolean(kept)), places[kept])

    def _keyed(self, piece: Piece, regime: Regime) -> pa.Array[Any]:
        """The keys of a piece's rows, which are before the regime's end."""
        stop = regime.step if regime.stop < FOREVER else 1 << 62
        names = [name for name in regime.key if name in regime.fields]
        fields = self._fields_of(piece.step)
        if piece.step > regime.step:  # beyond its end: nobody looks at these
            return key_array(piece.table.select([]), regime.key, {})
        return key_array(self._widened(piece.table, fields, piece.step, names, stop), regime.key, regime.fields)

    def _past_keys(self, past: SnapshotReader, regime: Regime, first: int) -> Iterator[tuple[pa.Array[Any], Places]]:
        stop = regime.step if regime.stop < FOREVER else 1 << 62
        names = [name for name in regime.key if name in regime.fields]
        step = self._step_at(past.snapshot.position - 1)
        for chunk in past.tables(columns=names):
            places = places_of(chunk.column(chunk.num_columns - 1))
            table = self._widened(chunk, past.snapshot.fields, step, names, stop)
            kept = places >= first
            yield key_array(table, regime.key, regime.fields).filter(_boolean(kept)), places[kept]

    def _deleted(self, begin: int) -> list[tuple[int, int]]:
        """(place, offset of the message) of what messages at or after `begin` delete."""
        gone: list[tuple[int, int]] = []
        for offset in self.view.deletes:
            if offset < max(begin, self._log_start):
                continue
            for batch in self._source.scan(offset, offset + 1):
                for doc in decode_messages(batch):
                    ids = doc.get("ids")
                    for text in ids if isinstance(ids, list) else ():
                        try:
                            place = parse_id(text)
                        except (BadIdError, TypeError):
                            continue  # a foreign producer's: it names no row
                        gone.append((place_number(place.offset, place.row), offset))
        return gone


class _Tail:
    """The pieces of a tail, which are asked for more than once; few rows are kept instead of read again."""

    def __init__(self, read: Callable[[], Iterator[Piece]], rows_max: int) -> None:
        self._read, self._rows_max = read, rows_max
        self._kept: list[Piece] | None = None

    def pieces(self) -> Iterator[Piece]:
        """All of them, in order."""
        if self._kept is not None:
            yield from self._kept
            return
        kept: list[Piece] | None = []
        rows = 0
        for piece in self._read():
            rows += len(piece.places)
            if kept is not None and rows <= self._rows_max:
                kept.append(piece)
            else:
                kept = None
            yield piece
        self._kept = kept


def _named(row: object, fields: Mapping[str, FieldType]) -> Row:
    """A row without what is no field."""
    known = row if isinstance(row, dict) else {"value": row}
    return {name: value for name, value in known.items() if name in fields}


def _decoded(rows: list[Any], decode: Callable[[Row], Row]) -> tuple[list[int], list[Row]]:
    """The rows that their types can hold, with their numbers."""
    numbers, own = [], []
    for number, row in enumerate(rows):
        try:
            own.append(decode(row if isinstance(row, dict) else {"value": row}))
            numbers.append(number)
        except ValueCastError:
            continue
    return numbers, own


def _boolean(mask: Any) -> Any:
    import pyarrow as pa

    return pa.array(mask, pa.bool_())
