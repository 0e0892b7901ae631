"""The rows of one table version as of a cut: as Arrow tables, and one by one in log order for streams.

Each row is cast by the schema in force at its place, then widened to the schema at the cut, so that every way of
reading gives the same values. With a unique key the last row of each key is the one that counts; deleted rows are
left out. Memory is bounded by the chunk, not by the table (with a key: by the number of keys).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import orjson

from tailrace.tables.fold import VersionView
from tailrace.tables.ids import IdMaker, parse_id
from tailrace.tables.messages import DATA_KINDS, Head, Messages, decode_messages, read_arrow
from tailrace.tables.schema import (
    FieldType,
    arrow_schema,
    arrow_to_records,
    cast_arrow,
    compile_decoder,
    rows_to_arrow,
    widen_value,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FileSource", "MessageSource", "StreamBatch", "VersionReader", "WebhookRow"]

Row: TypeAlias = dict[str, Any]

_EPOCH = datetime(1970, 1, 1)
_FIRST = (-1, -1)
_SLICE_ROWS = 4_096
"""Rows of a columnar message that are Python objects at a time."""


class MessageSource(Protocol):
    """Where the messages of one topic come from."""

    def scan(self, start: int, stop: int) -> Iterator[Messages]:
        """The messages with `start <= offset < stop`, in batches of bounded size."""
        ...


class FileSource(Protocol):
    """Where staged files are."""

    def row_group(self, path: str, row_group: int) -> pa.Table:
        """One row group of the staged Parquet file `path`."""
        ...


class StreamBatch(NamedTuple):
    """Rows as a stream hands them over, and for each the place (offset, row) where the stream goes on after it.

    That is one row further in the same message, also after its last row: so a place tells which row was the last one.
    """

    rows: list[Row]
    places: list[tuple[int, int]]


class WebhookRow(dict[str, Any]):
    """A webhook's row {timestamp, record}, which falls back to the keys of `record`: `row["email"]`."""

    __slots__ = ()

    def __missing__(self, key: str) -> object:
        record = dict.get(self, "record")
        if isinstance(record, dict):
            return record[key]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        if dict.__contains__(self, key):
            return True
        record = dict.get(self, "record")
        return isinstance(record, dict) and key in record

    def get(self, key: str, default: Any = None) -> Any:
        """As `dict.get`, with the same fallback."""
        try:
            return self[key]
        except KeyError:
            return default


class _Moments:
    """Milliseconds since 1970 as datetimes, where most lie in the same second as the last one."""

    def __init__(self) -> None:
        self._second = 0
        self._parts = (1970, 1, 1, 0, 0, 0)

    def moment(self, ms: int) -> datetime:
        if type(ms) is not int:  # a foreign producer's
            return _EPOCH + timedelta(milliseconds=ms)
        second, rest_ms = divmod(ms, 1000)
        if second != self._second:
            moment = _EPOCH + timedelta(seconds=second)
            self._parts = (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
            self._second = second
        return datetime(*self._parts, rest_ms * 1000)


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
    ) -> None:
        """Messages at or after offset `unwritten_from` are not in the log yet: their rows have no id."""
        self.view = view
        self._unwritten_from = unwritten_from if unwritten_from is not None else 1 << 62
        self._ids = ids
        self._source = source
        self._files = files
        self._decoders: dict[tuple[int, bool], Callable[[Row], Row]] = {}

    @property
    def fields(self) -> Mapping[str, FieldType]:
        """The fields that a read shows, without the id."""
        id_name = self.view.settings.monotonic_id
        return {name: kind for name, kind in self.view.fields.items() if name != id_name}

    @property
    def id_name(self) -> str | None:
        """Under which name rows show their id."""
        return self.view.settings.monotonic_id

    def schema(self, id_column: str | None) -> pa.Schema:
        """Arrow schema of `tables`."""
        import pyarrow as pa

        schema = arrow_schema(self.fields)
        return schema.append(pa.field(id_column, pa.string())) if id_column else schema

    # -- whole tables ---------------------------------------------------------------------------------------------

    def tables(self, rows_max: int = 65_536, *, id_column: str | None = None) -> Iterator[pa.Table]:
        """The rows in log order, at most about `rows_max` at a time, with ids under `id_column` (None: without)."""
        wanted = self._wanted(_FIRST)
        rows: list[Row] = []
        places: list[tuple[int, int]] = []  # (offset, rows of that message)
        fields: Mapping[str, FieldType] = {}

        for offset, ts_ms, doc in self._docs(_FIRST):
            kind = doc["kind"]
            here = self.view.fields_at(offset)
            if rows and (here is not fields or kind in ("arrow", "file") or len(rows) >= rows_max):
                yield self._chunk(rows, places, fields, wanted, id_column)
                rows, places = [], []
            fields = here
            if kind in ("arrow", "file"):
                yield from self._columnar(offset, doc, here, wanted, id_column, rows_max)
            else:
                decode = self._decoder(here, for_stream=False)
                own = self._json_rows(kind, ts_ms, doc)
                rows += [decode(row) for row in own]
                places.append((offset, len(own)))
        if rows:
            yield self._chunk(rows, places, fields, wanted, id_column)

    def table(self, *, id_column: str | None = None) -> pa.Table:
        """All rows in one Arrow table."""
        import pyarrow as pa

        chunks = list(self.tables(id_column=id_column))
        return pa.concat_tables(chunks) if chunks else self.schema(id_column).empty_table()

    def count(self) -> int:
        """The number of rows that a read gives."""
        exact = self.view.exact_count
        return exact if exact is not None else sum(chunk.num_rows for chunk in self.tables())

    # -- streams --------------------------------------------------------------------------------------------------

    def stream(self, offset: int, row: int) -> Iterator[StreamBatch]:
        """The rows at or after a place, in log order, as streams give them (JSON parsed), each with its next place.

        A batch for each batch of the source, and several for columnar messages; lists, because this is the path of
        every streamed record.
        """
        start = (offset, row)
        id_name = self.id_name
        wanted = self._wanted(start)
        prefix_of, tails = self._ids.prefix, self._ids.tails(1)
        moment = _Moments().moment
        decode, fields_until = self._stream_decoder(self.view.fields_at(-1)), -1
        for docs in self._doc_batches(start):
            rows: list[Row] = []
            places: list[tuple[int, int]] = []
            for at, ts_ms, doc in docs:
                kind = doc["kind"]
                if kind in ("arrow", "file"):
                    if rows:
                        yield StreamBatch(rows, places)
                        rows, places = [], []
                    yield from self._columnar_batches(at, doc, start, wanted)
                    continue
                if at >= fields_until:
                    decode, fields_until = self._stream_decoder(self.view.fields_at(at)), self._fields_until(at)
                if kind == "webhook" and "request_key" not in doc:
                    received = moment(doc.get("ts") or ts_ms)
                    own: list[Row] = []
                    for record in doc.get("rows", ()):
                        post = WebhookRow()  # filling it is three times as fast as calling it with its fields
                        post["timestamp"], post["record"] = received, record
                        own.append(post)
                else:
                    own = self._json_rows(kind, ts_ms, doc)
                count = len(own)
                if count == 1 and wanted is None and at != offset:  # most messages of webhooks and small writes
                    one = decode(own[0])
                    if id_name is not None:
                        one[id_name] = prefix_of(at) + tails[0]
                    rows.append(one)
                    places.append((at, 1))
                    continue
                own = [decode(one) for one in own]
                if id_name is not None:
                    prefix = prefix_of(at)
                    if count > len(tails):
                        tails = self._ids.tails(count)
                    for one, tail in zip(own, tails, strict=False):
                        one[id_name] = prefix + tail
                first = row if at == offset else 0
                if wanted is None and first == 0:
                    rows += own
                    places += [(at, number) for number in range(1, count + 1)]
                    continue
                for number in range(first, count):
                    if wanted is None or wanted(at, number):
                        rows.append(own[number])
                        places.append((at, number + 1))
            if rows:
                yield StreamBatch(rows, places)

    def _columnar_batches(
        self, at: int, doc: Head, start: tuple[int, int], wanted: Callable[[int, int], bool] | None
    ) -> Iterator[StreamBatch]:
        """The rows of one columnar message, a slice at a time: as Python objects they take many times the memory."""
        types = self._types_of(doc, at)
        table = cast_arrow(self._columnar_source(doc), types, self.fields)
        tails = self._ids.tails(table.num_rows)
        prefix, id_name = self._ids.prefix(at), self.id_name
        for first in range(start[1] if at == start[0] else 0, table.num_rows, _SLICE_ROWS):
            own = arrow_to_records(table.slice(first, _SLICE_ROWS), self.fields, for_stream=True)
            if id_name is not None:
                for one, tail in zip(own, tails[first : first + len(own)], strict=True):
                    one[id_name] = prefix + tail
            places = [(at, number) for number in range(first + 1, first + 1 + len(own))]
            if wanted is not None:
                kept = [number for number in range(len(own)) if wanted(at, first + number)]
                own, places = [own[number] for number in kept], [places[number] for number in kept]
            if own:
                yield StreamBatch(own, places)

    def _fields_until(self, offset: int) -> int:
        """The offset at which other fields than those at `offset` come into force."""
        later = [first for first, _ in self.view.schemas if first > offset]
        return later[0] if later else 1 << 62

    # -- parts ----------------------------------------------------------------------------------------------------

    def _doc_batches(self, start: tuple[int, int]) -> Iterator[list[tuple[int, int, Head]]]:
        for segment_start, stop in self.view.segments:
            if stop <= max(start[0], 0):
                continue
            for batch in self._source.scan(max(segment_start, start[0], 0), stop):
                yield [
                    entry
                    for entry in zip(batch.offsets, batch.ts_ms, decode_messages(batch), strict=True)
                    if entry[2].get("kind") in DATA_KINDS
                ]

    def _docs(self, start: tuple[int, int]) -> Iterator[tuple[int, int, Head]]:
        for batch in self._doc_batches(start):
            yield from batch

    @staticmethod
    def _json_rows(kind: str, ts_ms: int, doc: Head) -> list[Row]:
        if kind == "webhook":
            received = _EPOCH + timedelta(milliseconds=doc.get("ts") or ts_ms)
            if "request_key" in doc:
                key = doc["request_key"]
                return [WebhookRow(timestamp=received, record=r, patterns_request_key=key) for r in doc.get("rows", ())]
            return [WebhookRow(timestamp=received, record=record) for record in doc.get("rows", ())]
        return [row if type(row) is dict else {"value": row} for row in doc.get("rows", ())]

    def _decoder(self, fields: Mapping[str, FieldType], *, for_stream: bool) -> Callable[[Row], Row]:
        key = (id(fields), for_stream)  # the view keeps the mappings alive
        decoder = self._decoders.get(key)
        if decoder is None:
            id_name = self.id_name
            own = {name: kind for name, kind in fields.items() if name != id_name}
            decoder = self._decoders[key] = compile_decoder(own, for_stream=for_stream)
        return decoder

    def _stream_decoder(self, here: Mapping[str, FieldType]) -> Callable[[Row], Row]:
        if set(here) == {"timestamp", "record"} and here == self.view.fields and str(here["record"]) == "Json":
            return lambda row: row if type(row) is WebhookRow else plain(row)
        final = self.fields
        plain = self._decoder(here, for_stream=True)
        changed = [(name, here.get(name), kind) for name, kind in final.items() if here.get(name) != kind]
        if not changed:
            return plain

        def widened(row: Row) -> Row:
            values = plain(row)
            out = {name: values.get(name) for name in final}
            for name, old, new in changed:
                if old is not None and out[name] is not None:
                    out[name] = widen_value(out[name], old, new)
            return out

        return widened

    def _columnar_source(self, doc: Head) -> pa.Table:
        return read_arrow(doc) if doc["kind"] == "arrow" else self._files.row_group(doc["path"], doc["row_group"])

    def _types_of(self, doc: Head, offset: int) -> Mapping[str, FieldType]:
        from tailrace.tables.fold import parse_fields

        fields = parse_fields(doc["fields"]) if "fields" in doc else self.view.fields_at(offset)
        return {name: kind for name, kind in fields.items() if name != self.id_name}

    def _columnar(
        self,
        offset: int,
        doc: Head,
        fields: Mapping[str, FieldType],
        wanted: Callable[[int, int], bool] | None,
        id_column: str | None,
        rows_max: int,
    ) -> Iterator[pa.Table]:
        import pyarrow as pa

        # As JSON rows are: first what the schema at the place says, then the widening to the cut.
        table = cast_arrow(self._columnar_source(doc), self._types_of(doc, offset), self._without_id(fields))
        table = cast_arrow(table, self._without_id(fields), self.fields)
        if id_column:
            written = offset < self._unwritten_from
            ids = self._ids.array(offset, table.num_rows) if written else pa.nulls(table.num_rows, pa.string())
            table = table.append_column(pa.field(id_column, pa.string()), ids)
        if wanted is not None:
            table = table.filter(pa.array([wanted(offset, row) for row in range(table.num_rows)], pa.bool_()))
        for start in range(0, table.num_rows, rows_max):
            yield table.slice(start, rows_max)

    def _without_id(self, fields: Mapping[str, FieldType]) -> Mapping[str, FieldType]:
        return {name: kind for name, kind in fields.items() if name != self.id_name}

    def _chunk(
        self,
        rows: list[Row],
        places: Sequence[tuple[int, int]],
        fields: Mapping[str, FieldType],
        wanted: Callable[[int, int], bool] | None,
        id_column: str | None,
    ) -> pa.Table:
        import pyarrow as pa

        own = self._without_id(fields)
        table = cast_arrow(rows_to_arrow(rows, own), own, self.fields)
        if id_column:
            ids: list[str | None] = []
            for offset, count in places:
                if offset >= self._unwritten_from:
                    ids += [None] * count
                    continue
                prefix = self._ids.prefix(offset)
                ids += [prefix + tail for tail in self._ids.tails(count)[:count]]
            table = table.append_column(pa.field(id_column, pa.string()), pa.array(ids, pa.string()))
        if wanted is not None:
            mask = [wanted(offset, row) for offset, count in places for row in range(count)]
            table = table.filter(pa.array(mask, pa.bool_()))
        return table

    def _wanted(self, start: tuple[int, int]) -> Callable[[int, int], bool] | None:
        """Which rows at or after `start` count: neither superseded by a later row of their key nor deleted."""
        key = self.view.settings.unique_on
        deleted = self._deleted()
        if not key:
            return (lambda offset, row: (offset, row) not in deleted) if deleted else None
        last: dict[object, tuple[int, int]] = {}
        superseded: set[tuple[int, int]] = set()
        for offset, ts_ms, doc in self._docs(start):
            for number, values in enumerate(self._keys(offset, ts_ms, doc, key)):
                if values is not None:
                    earlier = last.get(values)
                    if earlier is not None:
                        superseded.add(earlier)
                    last[values] = (offset, number)
        last.clear()
        return lambda offset, row: (offset, row) not in superseded and (offset, row) not in deleted

    def _deleted(self) -> frozenset[tuple[int, int]]:
        gone: set[tuple[int, int]] = set()
        for offset in self.view.deletes:
            for batch in self._source.scan(offset, offset + 1):
                for doc in decode_messages(batch):
                    gone.update((place.offset, place.row) for place in map(parse_id, doc.get("ids", ())))
        return frozenset(gone)

    def _keys(self, offset: int, ts_ms: int, doc: Head, key: Sequence[str]) -> Iterator[object]:
        """For each row its key's values as the cut's schema shows them; None where a part is NULL (never equal)."""
        final = self.fields
        if doc["kind"] in ("arrow", "file"):
            table = self._columnar_source(doc)
            types = self._types_of(doc, offset)
            table = cast_arrow(table.select([name for name in key if name in types]), types, final)
            rows: list[Row] = table.to_pylist()
        else:
            decode = self._stream_decoder(self.view.fields_at(offset))
            rows = [decode(row) for row in self._json_rows(doc["kind"], ts_ms, doc)]
        for row in rows:
            values = tuple(_hashable(row.get(name)) for name in key)
            yield None if None in values else values


def _hashable(value: object) -> object:
    if isinstance(value, dict | list):
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=str)
    return value
