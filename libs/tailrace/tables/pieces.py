"""The rows of messages as Arrow tables, each row with its place: what every read of the log begins with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tailrace.errors import RejectedError
from tailrace.tables.fold import message_fields
from tailrace.tables.ids import ROWS_PER_MESSAGE_MAX
from tailrace.tables.messages import (
    DATA_KINDS,
    Head,
    Messages,
    decode_rows,
    read_arrow,
    rows_alone,
    rows_as_written,
)
from tailrace.tables.schema import (
    DATETIME,
    JSON,
    FieldType,
    arrow_type,
    cast_arrow,
    columns_to_arrow,
    conform_arrow,
    json_bytes,
    lines_to_arrow,
    rows_to_columns,
)
from tailrace.tables.streamed import Moments, moment_of

if TYPE_CHECKING:
    import pyarrow as pa

    from tailrace.tables.ids import Places

__all__ = ["BadMessageError", "BadRow", "FileSource", "Piece", "pieces_of"]

_PARSED_BYTES = 1 << 20
_PIECE_ROWS = 4_096
"""What is parsed at once, and the rows that are Python objects at a time: few enough that their memory is used again and
again, which makes the work several times as fast."""
_AT_ONCE_BYTES_MIN = 32 << 10
"""Less is parsed by the message: Arrow's parser takes a while to begin."""
_AT_ONCE_BYTES_MAX = 4 << 20
"""What Arrow's parser gets at once. Of a quarter of it the parser makes no use of a second thread."""


class FileSource(Protocol):
    """Where staged files are."""

    def row_group(self, path: str, row_group: int) -> pa.Table:
        """One row group of the staged Parquet file `path`."""
        ...


class BadMessageError(RejectedError):
    """A message carries rows that nobody can read."""

    def __init__(self, offset: int, reason: str) -> None:
        self.offset, self.reason = offset, reason
        super().__init__(f"the message at offset {offset} carries rows that cannot be read: {reason}")


class BadRow(NamedTuple):
    """A row that no reader gets: a producer other than ours wrote it, and its types cannot hold it."""

    offset: int
    row: int
    """Its number in its message; the first of those meant, where it is the message that cannot be read."""
    value: object
    """The row as it was written; None where it is columnar."""
    error: RejectedError


class Piece(NamedTuple):
    """Some rows, in the order of the log."""

    table: pa.Table
    """In the types of the schema in force at their place."""
    places: Places
    step: int
    """How many of the version's schemas were in force there."""
    bad: Sequence[BadRow] = ()
    """Rows that are left out: they stood among these."""


class _Waiting:
    """Rows of messages of one encoding and schema, until there are enough for a piece."""

    def __init__(self, posts: bool, step: int) -> None:
        self.posts, self.step = posts, step
        self.rows: list[Any] = []
        self.texts: list[bytes | None] = []
        """Of posts, the JSON as it was posted; None where it is not known."""
        self.offsets: list[int] = []
        self.counts: list[int] = []
        self.received_ms: list[float] = []
        self.request_keys: list[object] = []

    def piece(self, fields: Mapping[str, FieldType]) -> Piece:
        columns = self._posted(fields) if self.posts else self._columns(fields)
        table, misfits = columns_to_arrow(columns, len(self.rows), fields)
        places = _places(self.offsets, self.counts)
        if not misfits:
            return Piece(table, places, self.step)
        import numpy as np

        bad = [
            BadRow(int(places[at]) >> 16, int(places[at]) & 0xFFFF, self.rows[at], error)
            for at, error in sorted(misfits.items())
        ]
        return Piece(table, np.delete(places, list(misfits)), self.step, bad)

    def _columns(self, fields: Mapping[str, FieldType]) -> Mapping[str, list[Any]]:
        if set(map(type, self.rows)) - {dict}:
            self.rows = [row if type(row) is dict else {"value": row} for row in self.rows]
        return rows_to_columns(self.rows, list(fields))

    def _posted(self, fields: Mapping[str, FieldType]) -> Mapping[str, Any]:
        import numpy as np
        import pyarrow as pa

        columns: dict[str, Any] = {"record": self._records(fields)}
        if fields.get("timestamp") == DATETIME and set(map(type, self.received_ms)) <= {int}:
            received = np.repeat(np.array(self.received_ms, np.int64) * 1_000, self.counts)
            columns["timestamp"] = pa.array(received, pa.timestamp("us"))
        else:
            moment = Moments().moment
            columns["timestamp"] = self._each([moment(ms) for ms in self.received_ms])
        if any(key is not None for key in self.request_keys):
            columns["patterns_request_key"] = self._each(self.request_keys)
        return columns

    def _records(self, fields: Mapping[str, FieldType]) -> list[Any] | pa.Array[Any]:
        """Documents as they were posted, byte for byte."""
        import pyarrow as pa

        if fields.get("record") != JSON or set(map(type, self.rows)) - {dict, list}:
            return self.rows
        pairs = zip(self.rows, self.texts, strict=True)
        texts: Any = pa.array([json_bytes(row) if text is None else text for row, text in pairs], pa.binary())
        return texts.cast(pa.string())  # type: ignore[no-any-return]

    def _each(self, values: Iterable[object]) -> list[object]:
        return [value for value, count in zip(values, self.counts, strict=True) for _ in range(count)]


def _places(offsets: Sequence[int], counts: Sequence[int]) -> Places:
    """The places of the rows of messages, which have so many each."""
    import numpy as np

    first, each = np.array(offsets, np.int64) << 16, np.array(counts, np.int64)
    before = np.cumsum(each) - each
    return np.repeat(first - before, each) + np.arange(int(each.sum()))


def pieces_of(
    batches: Iterable[Messages],
    schemas: Sequence[tuple[int, Mapping[str, FieldType]]],
    files: FileSource,
    rows_max: int,
) -> Iterator[Piece]:
    """The rows of `batches` in pieces of at most about `rows_max`.

    `schemas` are the fields that rows show from an offset on; the first ones from the beginning.

    Raises:
        StagedFileMissingError: rejected; rows that were written in bulk are gone.
    """
    rows_max = min(rows_max, _PIECE_ROWS)
    step, until = 0, -1
    fields: Mapping[str, FieldType] = {}
    waiting = _Waiting(False, 0)
    for batch, pieces in chain.from_iterable(_parsed(each, schemas, rows_max) for each in batches):
        if pieces is not None:
            if waiting.rows:
                yield waiting.piece(schemas[waiting.step - 1][1] if waiting.step else {})
                waiting = _Waiting(False, 0)
            yield from pieces
            continue
        documents = zip(batch.offsets, batch.ts_ms, decode_rows(batch), batch.values(), strict=True)
        for offset, ts_ms, doc, value in documents:
            kind = doc.get("kind")
            if kind not in DATA_KINDS:
                continue
            if offset >= until:
                step = sum(first <= offset for first, _ in schemas)
                fields = schemas[step - 1][1] if step else {}
                until = schemas[step][0] if step < len(schemas) else 1 << 62
            posts = kind == "webhook"
            columnar = kind in ("arrow", "file")
            if columnar or posts is not waiting.posts or step != waiting.step or len(waiting.rows) >= rows_max:
                if waiting.rows:
                    yield waiting.piece(schemas[waiting.step - 1][1] if waiting.step else {})
                waiting = _Waiting(posts, step)
            if columnar:
                yield from _columnar(offset, doc, fields, step, files, rows_max)
                continue
            own = doc.get("rows")
            if type(own) is not list or not own:
                continue
            if len(own) > ROWS_PER_MESSAGE_MAX:
                yield _too_many(offset, step, fields, own[ROWS_PER_MESSAGE_MAX])
                own = own[:ROWS_PER_MESSAGE_MAX]
            waiting.rows += own
            waiting.offsets.append(offset)
            waiting.counts.append(len(own))
            if posts:
                written = rows_as_written(value, own) if next(reversed(doc)) == "rows" else None
                waiting.texts += written or [None] * len(own)
                waiting.received_ms.append(moment_of(doc.get("ts"), ts_ms))
                waiting.request_keys.append(doc.get("request_key"))
    if waiting.rows:
        yield waiting.piece(schemas[waiting.step - 1][1] if waiting.step else {})


def _parsed(
    batch: Messages, schemas: Sequence[tuple[int, Mapping[str, FieldType]]], rows_max: int
) -> Iterator[tuple[Messages, Iterator[Piece] | None]]:
    """The messages in parts, each with its rows where Arrow's parser has read them: the larger parts first, because few
    messages that are not for it are no reason to have it read none."""
    for part in batch.parts(_AT_ONCE_BYTES_MAX):
        pieces = _at_once(part, schemas, rows_max)
        if pieces is not None or len(part.joined) <= _PARSED_BYTES:
            yield part, pieces
        else:
            yield from ((each, _at_once(each, schemas, rows_max)) for each in part.parts(_PARSED_BYTES))


def _at_once(
    batch: Messages, schemas: Sequence[tuple[int, Mapping[str, FieldType]]], rows_max: int
) -> Iterator[Piece] | None:
    """The rows of a batch as Arrow's parser reads them; None where it is not for that: then nothing was done."""
    if len(batch.joined) < _AT_ONCE_BYTES_MIN:
        return None
    lines = rows_alone(batch)
    step = sum(first <= batch.offsets[0] for first, _ in schemas)
    if lines is None or not step or (step < len(schemas) and schemas[step][0] <= batch.offsets[-1]):
        return None
    made = lines_to_arrow(lines, schemas[step - 1][1])
    if made is None or max(made[1]) > ROWS_PER_MESSAGE_MAX:
        return None
    table, counts = made
    places = _places(batch.offsets, counts)
    return (
        Piece(table.slice(start, rows_max), places[start : start + rows_max], step)
        for start in range(0, table.num_rows, rows_max)
    )


def columnar_table(
    offset: int, doc: Head, known: Mapping[str, FieldType], files: FileSource
) -> tuple[pa.Table, Mapping[str, FieldType]]:
    """The table of a columnar message as it is, and its fields, which are `known` ones.

    Raises:
        BadMessageError: rejected; it holds no table.
        StagedFileMissingError: rejected.
    """
    import pyarrow as pa

    try:
        table = read_arrow(doc) if doc["kind"] == "arrow" else files.row_group(doc["path"], doc["row_group"])
        said = message_fields(doc) or known
        fields = {name: kind for name, kind in said.items() if name in known and name in table.column_names}
        table = table.select(list(fields))
        if any(column.type != arrow_type(kind) for column, kind in zip(table.columns, fields.values(), strict=True)):
            table = conform_arrow(table, fields)
    except (RejectedError, pa.ArrowException, ValueError, TypeError, KeyError, LookupError) as error:
        if isinstance(error, RejectedError) and doc["kind"] == "file":
            raise
        raise BadMessageError(offset, str(error)) from error
    return table.slice(0, ROWS_PER_MESSAGE_MAX), fields


def _columnar(
    offset: int, doc: Head, fields: Mapping[str, FieldType], step: int, files: FileSource, rows_max: int
) -> Iterator[Piece]:
    import numpy as np

    try:
        table, types = columnar_table(offset, doc, fields, files)
    except BadMessageError as error:
        yield _without_rows(offset, step, fields, BadRow(offset, 0, None, error))
        return
    # As JSON rows are: first what the schema at the place says, then the widening to the cut.
    table = cast_arrow(table, types, fields)
    for start in range(0, table.num_rows, rows_max):
        part = table.slice(start, rows_max)
        yield Piece(part, (offset << 16) + np.arange(start, start + part.num_rows, dtype=np.int64), step)


def _too_many(offset: int, step: int, fields: Mapping[str, FieldType], value: object) -> Piece:
    error = BadMessageError(offset, f"rows after the first {ROWS_PER_MESSAGE_MAX} of a message have no place")
    return _without_rows(offset, step, fields, BadRow(offset, ROWS_PER_MESSAGE_MAX, value, error))


def _without_rows(offset: int, step: int, fields: Mapping[str, FieldType], bad: BadRow) -> Piece:
    import numpy as np

    table, _ = columns_to_arrow({}, 0, fields)
    return Piece(table, np.empty(0, np.int64), step, [bad])
