"""Tables with several partitions: a *lane* is one partition of a Table, and most of us know nothing but lanes.

A lane has its own fold, cut and places, as a Table of one partition has. Its key is the topic's name for partition 0
and `topic/number` for the others, so a Table of one partition is its own only lane. What ties the lanes of a Table
together stands here: which rows go where, and which version is active when some lanes have a marker and others do not
have it yet.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import orjson

from tailrace.tables.fold import VersionView
from tailrace.tables.schema import FieldType, join_schemas

__all__ = [
    "RowKey",
    "alike",
    "joined_view",
    "lane_of",
    "lanes_of",
    "partition_of_key",
    "shown_begun_ms",
    "split_lane",
    "topic_of",
]


def lane_of(topic: str, number: int) -> str:
    """The key of one partition of a Table."""
    return topic if number == 0 else f"{topic}/{number}"


def lanes_of(topic: str, partitions: int) -> list[str]:
    """The keys of all partitions of a Table."""
    return [lane_of(topic, number) for number in range(partitions)]


def split_lane(lane: str) -> tuple[str, int]:
    """The topic and the number of the partition that a lane is."""
    topic, _, number = lane.partition("/")
    return topic, int(number or 0)


def topic_of(lane: str) -> str:
    """The topic that a lane is a partition of."""
    return lane.partition("/")[0]


def partition_of_key(value: object, partitions: int) -> int:
    """The partition of the rows whose key is `value`: the same in every process and version, for ever.

    It is the first 8 bytes of the BLAKE2b digest (of that length) of the key as text, as a big-endian number, modulo
    the number of partitions. Text stands for itself, whole numbers for their digits, datetimes for ISO 8601 (UTC where
    they have a zone), anything else for its compact JSON with sorted keys. No key (None) is partition 0.
    """
    if value is None:
        return 0
    text = value if isinstance(value, str) else _text(value)
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % partitions


def _text(value: object) -> str:
    """Values that are equal once their column has become wider have one text."""
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        return str(int(value))
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, datetime):
        return (value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value).isoformat()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day).isoformat()
    return orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()


class RowKey:
    """Which value of a row is its partition key: a column, or a JSON pointer into the row (`/record/customer/id`)."""

    def __init__(self, text: str) -> None:
        self.text = text
        parts = text.split("/")[1:] if text.startswith("/") else [text]
        names = [part.replace("~1", "/").replace("~0", "~") for part in parts] if text.startswith("/") else parts
        self.column = names[0]
        self._inside = names[1:]

    @property
    def is_column(self) -> bool:
        """Whether it is a column as a whole."""
        return not self._inside

    def of(self, row: Mapping[Any, Any]) -> object:
        """The key of a row; None where it has none."""
        return self.inside(row.get(self.column))

    def inside(self, value: object) -> object:
        """The key within the value of the column."""
        for name in self._inside:
            if isinstance(value, Mapping):
                value = value.get(name)
            elif isinstance(value, list) and name.isascii() and name.isdecimal() and int(name) < len(value):
                value = value[int(name)]
            else:
                return None
        return value


def shown_begun_ms(begun_ms: Iterable[int | None]) -> int | None:
    """When the version began that the lanes of a Table show together, given `TableFold.begun_ms` of each.

    A marker counts once it is in every lane. So of the versions that lanes are in, it is the one that began first: lanes
    that are ahead know it, too. Where no lane has rows of it, the Table has no active version.
    """
    return min((each for each in begun_ms if each is not None), default=None)


def alike(views: Sequence[VersionView | None], ats: Sequence[int]) -> list[VersionView | None]:
    """The lanes of one version, each with the fields and the unique key of all of them from its offset in `ats` on."""
    fields = joined_fields(views)
    key = next((view.settings.unique_on for view in views if view is not None and view.settings.unique_on), ())
    return [None if view is None else _with(view, at, fields, key) for view, at in zip(views, ats, strict=True)]


def joined_fields(views: Sequence[VersionView | None]) -> Mapping[str, FieldType]:
    """The fields of all lanes, in the order of the lanes."""
    fields: Mapping[str, FieldType] = {}
    for view in views:
        if view is not None:
            fields = join_schemas(fields, view.fields)
    return fields


def _with(view: VersionView, at: int, fields: Mapping[str, FieldType], key: tuple[str, ...]) -> VersionView:
    if list(fields.items()) != list(view.fields.items()):
        view = replace(view, schemas=(*view.schemas, (at, fields)))
    if key != view.settings.unique_on:
        keys = (*view.keys, (at, key))
        view = replace(view, settings=replace(view.settings, unique_on=key), keys=keys)
    return view


def joined_view(views: Sequence[VersionView | None]) -> VersionView | None:
    """One version over all lanes, for what is asked of it as a whole: its name, fields, settings and count. Offsets of
    different lanes are not comparable, so its segments say nothing."""
    known = [view for view in views if view is not None]
    if not known:
        return None
    plain = all(view.exact_count is not None for view in known)
    first = next((view for view in known if view.settings.to_json()), known[0])
    return replace(
        known[0],
        schemas=((0, joined_fields(views)),),
        settings=first.settings,
        segments=((0, 0),),
        deletes=(),
        repeats=(),
        appended=sum(view.appended for view in known) if plain else -1,
    )
