"""What rows a post becomes, and where they go: filters, columns and partitions, as its webhook's options say. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from tailrace.gateway.bodies import Posted
from tailrace.gateway.pointers import find
from tailrace.gateway.refusals import RefusedError
from tailrace.gateway.route import Rule, WebhookRoute
from tailrace.log import Partition
from tailrace.tables import partition_of_key, rows_message, webhook_message
from tailrace.tables.schema import fields_to_json, infer_fields, parse_type

__all__ = ["Shaped", "message_of", "shape"]

_TOKENS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[{}\],]', re.DOTALL)
_HEADER_VALUE_MAX = 4_096
_HEADERS_FIELD = {"headers": parse_type("Json")}


class Shaped(NamedTuple):
    """One message: which partition it goes to, and what of the post is in it."""

    partition: Partition
    posted: Posted


def shape(route: WebhookRoute, headers: Mapping[str, str], posted: Posted) -> Shaped | None:
    """Where a post goes; None where no row of it is wanted.

    Raises:
        RefusedError: rows of one post would go to several places, and so could not come all or not at all.
    """
    topic, partition = route.topic, 0
    if route.rules:
        targets = [_target(route, headers, row) for row in posted.rows]
        wanted = {target for target in targets if target is not None}
        if not wanted:
            return None
        if len(wanted) > 1:
            raise _apart("tables")
        topic = wanted.pop()
        if None in targets:
            raw = [value for value, target in zip(_split(posted.values), targets, strict=True) if target is not None]
            rows = [row for row, target in zip(posted.rows, targets, strict=True) if target is not None]
            posted = Posted(b",".join(raw), rows)
    if route.partitions > 1 and topic == route.topic:
        partition = _partition(route, posted)
    if route.flatten and not all(isinstance(row, dict) for row in posted.rows):
        raise RefusedError(422, "shape", "this webhook makes columns of the keys of objects: post objects")
    return Shaped(_partition_of(topic, partition), posted)


_partition_of = lru_cache(maxsize=10_000)(Partition)
"""The same for each post: making one takes longer than finding it."""


def message_of(route: WebhookRoute, head: Mapping[str, Any], headers: Mapping[str, str], posted: Posted) -> bytes:
    """The message of a post. Its bytes stand in it as they came; columns of our own are put before them."""
    if not route.flatten and not route.headers:
        return webhook_message(head, posted.values, len(posted.rows))
    at = datetime.fromtimestamp(head["ts"] / 1000, UTC).replace(tzinfo=None)
    columns: dict[str, Any] = {"timestamp": at.isoformat(timespec="milliseconds")}
    fields = {"timestamp": parse_type("DateTime")}
    if "request_key" in head:
        columns["patterns_request_key"] = head["request_key"]
        fields["patterns_request_key"] = parse_type("Text")
    if route.headers:
        columns["headers"] = _kept(route.headers, headers)
        fields |= _HEADERS_FIELD
    raw = _split(posted.values) if len(posted.rows) > 1 else [posted.values]
    if route.flatten:
        rows = [_flat(columns, value, row) for value, row in zip(raw, posted.rows, strict=True)]
        fields = {**fields, **infer_fields(posted.rows, None)}
    else:
        front = orjson.dumps(columns)[:-1] + b',"record":'
        rows = [front + value + b"}" for value in raw]
        fields["record"] = parse_type("Json")
    own = {key: value for key, value in head.items() if key != "request_key"}
    head = {"kind": "rows", **own, "run": "", "n": len(rows), "fields": fields_to_json(fields)}
    return rows_message(head, b"[" + b",".join(rows) + b"]")


def _kept(names: Sequence[str], headers: Mapping[str, str]) -> dict[str, str]:
    """The chosen headers, by their names in lower case; those that are not there are left out."""
    return {name: headers[name][:_HEADER_VALUE_MAX] for name in names if name in headers}


def _flat(columns: Mapping[str, Any], raw: bytes, row: Mapping[str, Any]) -> bytes:
    """The posted object with our columns in front; of two with one name the posted one counts."""
    own = orjson.dumps({name: value for name, value in columns.items() if name not in row})
    inner = raw.strip()[1:-1]
    return own[:-1] + (b"," if inner.strip() and own != b"{}" else b"") + inner + b"}"


def _target(route: WebhookRoute, headers: Mapping[str, str], row: Any) -> str | None:
    for rule in route.rules:
        if _fits(rule, headers, row):
            return rule.topic
    return route.topic


def _fits(rule: Rule, headers: Mapping[str, str], row: Any) -> bool:
    for place, wanted in rule.where.items():
        name = place.removeprefix("header:")
        found = find(row, place) if name == place else [headers[name]] if name in headers else []
        found = found or [None]
        if not any(_equal(value, want) for value in found for want in wanted):
            return False
    return True


def _equal(value: Any, want: Any) -> bool:
    """As JSON has it: true is not 1, and 1 is 1.0."""
    return isinstance(value, bool) == isinstance(want, bool) and bool(value == want)


def _partition(route: WebhookRoute, posted: Posted) -> int:
    """Where the key of the rows says, see `partition_of_key`; without one, by the digest of what was posted."""
    if route.partition_key is None:
        return int.from_bytes(hashlib.blake2b(posted.values, digest_size=8).digest(), "big") % route.partitions
    found = [find(row, route.partition_key) for row in posted.rows]
    places = {partition_of_key(values[0] if values else None, route.partitions) for values in found}
    if len(places) > 1:
        raise _apart("partitions")
    return places.pop()


def _split(values: bytes) -> list[bytes]:
    """The bytes of each of the values, which stand with a comma between them."""
    found, depth, start = [], 0, 0
    for match in _TOKENS.finditer(values):
        token = match[0]
        if token in b"[{":
            depth += 1
        elif token in b"]}":
            depth -= 1
        elif token == b"," and depth == 0:
            found.append(values[start : match.start()])
            start = match.end()
    found.append(values[start:])
    return found


def _apart(places: str) -> RefusedError:
    reason = f"elements of this array belong to different {places}, and an array is taken whole: post them apart"
    return RefusedError(422, "shape", reason)
