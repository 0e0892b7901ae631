"""`patterns_id`: the place of a row in its topic, written as text whose order is the order of the log.

26 characters of lower-case Crockford base32, as long as the ULIDs of the original:

    10  the topic's birth, milliseconds since 1970-01-01 UTC (48 bits)
     8  offset of the row's message (40 bits)
     8  row inside the message (16 bits), partition (8 bits), a hash of the topic (16 bits)

So ids are unique over the platform, are never stored by a writer, can be turned back into a place, and those of a
topic born later (a restored or migrated table) are greater than all older ones.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from tailrace.errors import RejectedError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ROWS_PER_MESSAGE_MAX", "BadIdError", "IdMaker", "RowPlace", "parse_id"]

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
        self._birth = _base32(born_ms, 10)
        self._key = (partition, topic_hash(topic))
        self._first = _tails(*self._key, 1)[0]
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

    def tails(self, rows: int) -> list[str]:
        """The 8 characters that end the ids of rows 0, 1, 2...; at least `rows` of them."""
        size = 128
        while size < rows:
            size *= 8
        return _tails(*self._key, min(size, ROWS_PER_MESSAGE_MAX))

    def id_at(self, offset: int, row: int) -> str:
        """The id of one row."""
        return self.prefix(offset) + (self._first if row == 0 else self.tails(row + 1)[row])

    def array(self, offset: int, rows: int, start: int = 0) -> pa.StringArray:
        """The ids of rows `start <= row < rows` of one message: an Arrow string array."""
        import pyarrow as pa

        prefix = self.prefix(offset)
        return pa.array([prefix + tail for tail in self.tails(rows)[start:rows]], pa.string())


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
