"""The messages of a Table's topic: one JSON document each, readable by any consumer.

    {"kind": K, "ts": ms, "node": "...", "run": "...", "n": rows, ..., "rows": [...]}

`rows` comes last, so that the head can be read without parsing what may be megabytes of rows. Kinds:

    rows      rows as JSON objects; `fields` gives their types as the writer saw them
    webhook   posted JSON values, as the bytes that came in; each is a row {timestamp, record}
    arrow     a small columnar batch: `ipc`, base64 of an Arrow IPC stream
    file      one row group of a Parquet file in the staging area: `path`, `row_group`
    version   begins a version, whatever was before; `fields` and `settings`
    activate  makes an earlier version, `name`, the active one again; `begun_ms` and `settings` tell those partitions of it
              that never had a row of it
    drop      versions, `names`, are gone: their files are deleted. The active one is not meant. Where there are several
              partitions a first one hides them, and only the one with `gone` is the last word (see `TableFold.dropped`)
    reset     no version is active any more
    truncate  the active version has no rows any more
    delete    `ids` of rows of the active version that are gone
    signal    nothing changed in the log, readers are to look again

`run` is the run that wrote it, "" where Tailrace wrote it without one. Rows of messages without it, which other programs
wrote, may fit no type of theirs, so that only a read can count them.

Any message may carry `quiet` (fires nobody), `key` (the unique key of the rows from here on) and `settings` (used
when no version is active at its place, so that it begins one). One with rows may carry `id`, the name that a post's sender
gave it: another message of that id shortly after it is a repeat, whose rows nobody sees.
"""

from __future__ import annotations

import base64
import json
import re
from bisect import bisect_left
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import orjson

if TYPE_CHECKING:
    import pyarrow as pa

    from tailrace.log import Record

__all__ = [
    "DATA_KINDS",
    "Head",
    "Messages",
    "arrow_message",
    "decode_messages",
    "decode_rows",
    "file_message",
    "message",
    "read_arrow",
    "rows_as_written",
    "rows_message",
    "split_head",
    "webhook_message",
]

Head: TypeAlias = dict[str, Any]
"""A message without its rows; `Any` because it has just come in as JSON."""

DATA_KINDS = frozenset({"rows", "webhook", "arrow", "file"})
"""Kinds that carry rows."""

_ROWS = b',"rows":['
_ROWS_FIRST = b'{"kind":"rows",'
_BETWEEN = re.compile(r"[\s,]*")
_SCANNER = json.JSONDecoder()
"""Tells where a value ends, which the faster parser does not."""
_UNREADABLE: Head = {"kind": "unreadable", "n": 0}


class Messages(NamedTuple):
    """A batch of messages in offset order, their values in one piece of memory.

    `joined` is the values with a comma between them, so that one call parses them all; `sizes` tells them apart.
    """

    offsets: Sequence[int]
    ts_ms: Sequence[int]
    sizes: Sequence[int]
    joined: bytes

    @staticmethod
    def of(records: Sequence[Record]) -> Messages:
        """Records of a log in one batch, without tombstones (no reader shows them)."""
        if not records:
            return Messages([], [], [], b"")
        offsets: list[int]
        ts_ms: list[int]
        values: list[bytes | None]
        # A busy log's records all come through here: by column, which takes half as long as by record.
        offsets, ts_ms, _, values = map(list, zip(*records, strict=True))
        whole = [value for value in values if value is not None]
        if len(whole) < len(values):
            offsets = [offset for offset, value in zip(offsets, values, strict=True) if value is not None]
            ts_ms = [at_ms for at_ms, value in zip(ts_ms, values, strict=True) if value is not None]
        return Messages(offsets, ts_ms, list(map(len, whole)), b",".join(whole))

    def between(self, start: int, stop: int) -> Messages:
        """Those with `start <= offset < stop`."""
        low = bisect_left(self.offsets, start)
        high = bisect_left(self.offsets, stop, lo=low)
        if high - low == len(self.offsets):
            return self
        if low == high:
            return Messages([], [], [], b"")
        sizes = self.sizes[low:high]
        begin = sum(self.sizes[:low]) + low
        end = begin + sum(sizes) + high - low - 1
        return Messages(self.offsets[low:high], self.ts_ms[low:high], sizes, self.joined[begin:end])

    def then(self, other: Messages) -> Messages:
        """These, and `other`, which lie after them."""
        if not (self.offsets and other.offsets):
            return self if self.offsets else other
        return Messages(
            [*self.offsets, *other.offsets],
            [*self.ts_ms, *other.ts_ms],
            [*self.sizes, *other.sizes],
            b",".join((self.joined, other.joined)),
        )

    def values(self) -> Iterator[bytes]:
        """The messages one by one."""
        start = 0
        for size in self.sizes:
            yield self.joined[start : start + size]
            start += size + 1

    def without(self, offsets: Container[int]) -> Messages:
        """The same messages save those at `offsets`."""
        kept = [at not in offsets for at in self.offsets]
        if all(kept):
            return self
        values = list(compress(self.values(), kept))
        return Messages(
            list(compress(self.offsets, kept)),
            list(compress(self.ts_ms, kept)),
            [len(value) for value in values],
            b",".join(values),
        )

    def parts(self, bytes_max: int) -> Iterator[Messages]:
        """The same messages in batches of about `bytes_max`: what is parsed at once is in memory at once."""
        if len(self.joined) <= bytes_max:
            yield self
            return
        first = begin = end = 0
        for at, size in enumerate(self.sizes, 1):
            end += size + 1
            if end - begin >= bytes_max or at == len(self.sizes):
                rows = slice(first, at)
                yield Messages(self.offsets[rows], self.ts_ms[rows], self.sizes[rows], self.joined[begin : end - 1])
                first, begin = at, end


def message(head: Mapping[str, object]) -> bytes:
    """A message that carries no rows inline."""
    assert "rows" not in head
    return orjson.dumps(head)


def rows_message(head: Mapping[str, object], rows: bytes) -> bytes:
    """A `rows` message: `rows` is a JSON array of objects, brackets included; `head["n"]` says how many."""
    assert rows[:1] == b"[" and "rows" not in head
    return orjson.dumps(head)[:-1] + b',"rows":' + rows + b"}"


def webhook_message(head: Mapping[str, object], values: bytes, rows: int) -> bytes:
    """A `webhook` message of `rows` posted values: JSON as it came in, without the brackets of a posted array."""
    return orjson.dumps({"kind": "webhook", **head, "n": rows})[:-1] + _ROWS + values + b"]}"


def arrow_message(head: Mapping[str, object], table: pa.Table) -> bytes:
    """An `arrow` message that carries `table` itself."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    ipc = base64.b64encode(sink.getvalue()).decode()
    return orjson.dumps({"kind": "arrow", **head, "n": table.num_rows, "ipc": ipc})


def file_message(head: Mapping[str, object], path: str, row_group: int, rows: int) -> bytes:
    """A `file` message: `rows` rows are row group `row_group` of the staged Parquet file `path`."""
    return orjson.dumps({"kind": "file", **head, "n": rows, "path": path, "row_group": row_group})


def read_arrow(head: Head) -> pa.Table:
    """The columnar batch of an `arrow` message."""
    import pyarrow as pa

    with pa.ipc.open_stream(base64.b64decode(head["ipc"])) as reader:
        return reader.read_all()


def split_head(value: bytes | None) -> Head:
    """A message's head, without parsing its rows.

    The first `,"rows":[` is the document's own: inside a string its quotes would be escaped, and no other part of
    a head holds an array under that name.
    """
    if value is None:
        return _UNREADABLE
    at = value.find(_ROWS)
    try:
        head = orjson.loads(value if at < 0 else value[:at] + b"}")
    except orjson.JSONDecodeError:
        return _UNREADABLE
    if not isinstance(head, dict) or type(head.get("kind")) is not str:
        return _UNREADABLE
    if at >= 0 and type(head.get("n")) is not int:  # a foreign producer's: count its rows
        head["n"] = _count_rows(value)
    return head


def _count_rows(value: bytes) -> int:
    try:
        return len(orjson.loads(value)["rows"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return 0


def decode_messages(batch: Messages) -> list[Head]:
    """The whole documents, `rows` included; what is no JSON object comes as kind `unreadable`, without rows."""
    try:
        docs: list[Any] = orjson.loads(b"[" + batch.joined + b"]") if batch.sizes else []
        if len(docs) != len(batch.sizes):
            raise ValueError
    except ValueError:  # a foreign producer wrote something odd: find out which
        docs = [_decode_one(value) for value in batch.values()]
    return [doc if type(doc) is dict and type(doc.get("kind")) is str else _UNREADABLE for doc in docs]


def decode_rows(batch: Messages) -> list[Head]:
    """As `decode_messages`, but heads of `rows` messages may be left out, save their kind: parsing them takes as long
    as parsing a row."""
    lists: list[Any] = []
    for value in batch.values():
        at = value.find(_ROWS)
        if at < 0 or not value.startswith(_ROWS_FIRST):
            return decode_messages(batch)
        lists.append(value[at + 8 : -1])
    try:
        lists = orjson.loads(b"[" + b",".join(lists) + b"]")
    except orjson.JSONDecodeError:  # in one of them something comes after the rows
        return decode_messages(batch)
    if len(lists) != len(batch.sizes):
        return decode_messages(batch)
    return [{"kind": "rows", "rows": rows} for rows in lists]


def rows_alone(batch: Messages) -> list[bytes] | None:
    """The messages one by one, without their heads (`{"rows":[...]}`), if all of them are of kind `rows` as we write them."""
    lines = []
    for value in batch.values():
        at = value.find(_ROWS)
        if at < 0 or not value.startswith(_ROWS_FIRST):
            return None
        lines.append(b"{" + value[at + 1 :])
    return lines


def rows_as_written(value: bytes, rows: Sequence[object]) -> list[bytes] | None:
    """The JSON of each of a message's rows as it came in; None where something comes after them."""
    at = value.find(_ROWS)
    if at < 0 or value[-2:] != b"]}":
        return None
    whole = value[at + len(_ROWS) : -2]
    if len(rows) == 1:
        return [whole.strip()]
    texts = [orjson.dumps(row) for row in rows]
    return texts if b",".join(texts) == whole else _split(whole.decode(), len(rows))


def _split(whole: str, count: int) -> list[bytes] | None:
    """JSON values with commas between them, one by one."""
    texts = []
    at = _skip(whole, 0)
    try:
        for _ in range(count):
            _, end = _SCANNER.raw_decode(whole, at)
            texts.append(whole[at:end].encode())
            at = _skip(whole, end)
    except (ValueError, RecursionError):
        return None
    return texts if at == len(whole) else None


def _skip(text: str, at: int) -> int:
    found = _BETWEEN.match(text, at)
    assert found is not None, "it matches the empty text"
    return found.end()


def _decode_one(value: bytes) -> object:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
