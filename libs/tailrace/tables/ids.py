"""`patterns_id`: the place of a row in its topic, written as text whose order is the order of the log.

26 characters of lower-case Crockford base32, as long as the ULIDs of the original:

    10  the topic's birth, milliseconds since 1970-01-01 UTC (48 bits)
     8  offset of the row's message (40 bits)
     8  row inside the message (16 bits), partition (8 bits), a hash of the topic (16 bits)

So ids are unique over the platform, are never stored by a writer, can be turned back into a place, and those of a
topic born later (a restored or migrated table) are greater than all older ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from tailrace.errors import RejectedError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Places: TypeAlias = NDArray[np.int64]
    """For each row `offset << 16 | row`: one number for its place in the topic, which grows along the log."""

__all__ = ["ROWS_PER_MESSAGE_MAX", "BadIdError", "IdMaker", "RowPlace", "parse_id", "place_number", "places_of"]

ROWS_PER_MESSAGE_MAX = 1 << 16
"""Most rows in one message: the row's number has 16 bits in an id."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]  # 10 bits at a time


class BadIdError(RejectedError):
    """A text is not a `patterns_id`."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f"{text[:40]!r} is not a patterns_id (26 characters of lower-case Crockford base32)")


class RowPlace(NamedTuple):
    """What an id says: which topic (birth and hash), partition, message and row."""

    born_ms: int
    topic_hash: int
    partition: int
    offset: int
    row: int


def _base32(value: int, length: int) -> str:
    return "".join(_ALPHABET[(value >> (5 * i)) & 31] for i in range(length - 1, -1, -1))


def topic_hash(topic: str) -> int:
    """16 bits that tell topics born in the same millisecond apart."""
    return int.from_bytes(blake2b(topic.encode(), digest_size=2).digest(), "big")


@lru_cache(maxsize=256)
def _tails(partition: int, hashed: int, rows: int) -> list[str]:
    low = partition << 16 | hashed
    return [_base32(row << 24 | low, 8) for row in range(rows)]


class IdMaker:
    """Makes the ids of one partition of a topic."""

    def __init__(self, topic: str, born_ms: int, partition: int = 0) -> None:
        assert 0 <= born_ms < 1 << 50 and 0 <= partition < 1 << 8
        self.partition = partition
        self._birth = _base32(born_ms, 10)
        self._key = (partition, topic_hash(topic))
        self._first = _tails(*self._key, 1)[0]
        self._first_ends: list[str] | None = None
        """By the last ten bits of a message's offset, the end of its first row's id."""
        self._stem = (-1, "")
        """The first 16 characters of an id, which 1,024 messages in a row share."""

    def prefix(self, offset: int) -> str:
        """The 18 characters that all ids of one message begin with."""
        high, stem = self._stem
        if high != offset >> 10:
            high = offset >> 10
            stem = self._birth + _PAIRS[high >> 20 & 1023] + _PAIRS[high >> 10 & 1023] + _PAIRS[high & 1023]
            self._stem = high, stem
        return stem + _PAIRS[offset & 1023]

    def of_first_rows(self, offsets: Sequence[int]) -> list[str]:
        """The ids of the first rows of messages."""
        ends = self._first_ends
        if ends is None:
            ends = self._first_ends = [pair + self._first for pair in _PAIRS]
        high, stem = -1, ""
        ids: list[str] = []
        for offset in offsets:
            if offset >> 10 != high:
                high, stem = offset >> 10, self.prefix(offset)[:-2]
            ids.append(stem + ends[offset & 1023])
        return ids

    def tails(self, rows: int) -> list[str]:
        """The 8 characters that end the ids of rows 0, 1, 2...; at least `rows` of them."""
        size = 128
        while size < rows:
            size *= 8
        return _tails(*self._key, min(size, ROWS_PER_MESSAGE_MAX))

    def id_at(self, offset: int, row: int) -> str:
        """The id of one row."""
        return self.prefix(offset) + (self._first if row == 0 else self.tails(row + 1)[row])

    def array(self, places: Places) -> pa.StringArray:
        """The ids of many rows at once: an Arrow string array."""
        import numpy as np
        import pyarrow as pa

        count = len(places)
        pairs = _pair_codes()
        text = np.empty((count, 13), np.uint16)  # two characters each
        sample = np.frombuffer(self.id_at(0, 0).encode(), np.uint16)
        text[:, :5] = sample[:5]
        text[:, 11:] = sample[11:]  # the last 20 bits are the same in all rows
        partition, _ = self._key
        for pair, bits in ((5, places >> 46), (6, places >> 36), (7, places >> 26), (8, places >> 16)):
            text[:, pair] = pairs[bits & 1023]
        rows = (places & 0xFFFF) << 4 | partition >> 4
        text[:, 9] = pairs[rows >> 10]
        text[:, 10] = pairs[rows & 1023]
        starts = np.arange(0, 26 * count + 1, 26, dtype=np.int32)
        buffers = [None, pa.py_buffer(starts.data), pa.py_buffer(text.data)]
        return pa.Array.from_buffers(pa.string(), count, buffers)  # type: ignore[return-value]


def place_number(offset: int, row: int) -> int:
    """A place as one number, see `Places`. A place before the log is before all others."""
    return max(offset, -1) << 16 | min(max(row, 0), ROWS_PER_MESSAGE_MAX - 1)


def places_of(ids: pa.ChunkedArray[pa.StringScalar] | pa.Array[pa.StringScalar]) -> Places:
    """The places that ids name; `BadIdError` (rejected) where one of them is no id."""
    import numpy as np
    import pyarrow as pa

    chunks = ids.chunks if isinstance(ids, pa.ChunkedArray) else [ids]
    values = _character_values()
    found = [np.empty(0, np.int64)]
    for chunk in chunks:
        if len(chunk) == 0:
            continue
        buffers: Any = chunk.cast(pa.string()).buffers()
        _, starts, text = buffers
        bounds = np.frombuffer(starts, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        if chunk.null_count or (np.diff(bounds) != 26).any():
            raise BadIdError(str(next((each for each in chunk.to_pylist() if len(each or "") != 26), None)))
        characters = values[np.frombuffer(text, np.uint8)[bounds[0] : bounds[-1]].reshape(-1, 26)]
        if (characters > 31).any():
            raise BadIdError(chunk[int(np.argmax((characters > 31).any(axis=1)))].as_py())
        place = np.zeros(len(chunk), np.int64)
        for at in range(10, 21):  # 8 characters of the offset, 3 of the row, whose last bit is in the next one
            place = place << 5 | characters[:, at]
        found.append(place << 1 | characters[:, 21] >> 4)
    return np.concatenate(found)


@lru_cache(maxsize=1)
def _pair_codes() -> NDArray[np.uint16]:
    import numpy as np

    return np.frombuffer("".join(_PAIRS).encode(), np.uint16)


@lru_cache(maxsize=1)
def _character_values() -> NDArray[np.uint8]:
    import numpy as np

    values = np.full(256, 255, np.uint8)
    values[np.frombuffer(_ALPHABET.encode(), np.uint8)] = np.arange(32)
    return values


def parse_id(text: str) -> RowPlace:
    """The place that an id names; `BadIdError` (rejected) for any other text."""
    value = 0
    if len(text) != 26:
        raise BadIdError(text)
    for character in text:
        digit = _VALUES.get(character)
        if digit is None:
            raise BadIdError(text)
        value = value << 5 | digit
    low = value & ((1 << 40) - 1)
    return RowPlace(
        born_ms=value >> 80,
        topic_hash=low & 0xFFFF,
        partition=low >> 16 & 0xFF,
        offset=value >> 40 & ((1 << 40) - 1),
        row=low >> 24,
    )
