"""From the bytes of a post to JSON values: content types, content codings and limits. Pure.

The values are kept as the bytes that came in (RFC 8259); what JSON leaves open is settled here:

- A byte order mark is passed over, and so is a `charset`: JSON is UTF-8, whatever the header says.
- Keys that stand twice are kept, as all bytes are; readers see the last one.
- `NaN`, `Infinity` and numbers past the range of a double are no JSON that every reader takes: refused. Long ones
  are kept with all their digits.
- Half of a surrogate pair (`"\\ud800"`) is no text: refused.
- A form that begins with a bracket is JSON: no form does, and `curl -d` calls everything a form.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias
from urllib.parse import parse_qsl

import orjson

from tailrace.errors import SettingError
from tailrace.gateway.refusals import RefusedError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["CODINGS", "BodyLimits", "Posted", "decode", "inflate"]

CODINGS = "gzip, deflate, zstd"
"""Values of `Content-Encoding` that are understood, as `Accept-Encoding` of an answer names them."""

_MEMBERS_MAX = 100
"""Most parts that one compressed body is put together from: no tool makes so many, and each costs a start."""

_ZSTD_WINDOW_LOG_MAX = 23
"""A zstd body may ask for a window of 8 MB, as RFC 9659 has it; the format allows terabytes."""

_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1", "windows-1252", "cp1252"})
"""Encodings of forms that are still about."""

_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)

_BOM = b"\xef\xbb\xbf"

_Kind: TypeAlias = Literal["json", "lines", "form"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """Bounds of one body."""

    body_bytes_max: int = 4 << 20
    """Largest body, inflated; past it 413. It must fit in one record of the log with room for its head."""

    compressed_bytes_max: int = 1 << 20
    """Largest body as it is sent, where it is compressed; past it 413. Inflating costs time by what comes out."""

    form_bytes_max: int = 1 << 20
    """Largest form; past it 413. Its fields are decoded one by one, about 50 ms for so much."""

    rows_max: int = 10_000
    """Most elements of an array and lines of NDJSON; past it 413. They are one message: all or nothing."""

    fields_max: int = 1_000
    """Most fields of a form; past it 413."""

    containers_max: int = 200_000
    """Most objects and arrays in a body; past it 413. Each of them takes 64 bytes and more while it is looked at, so
    that a body of brackets would take a hundred times its size."""

    depth_max: int = 500
    """Deepest nesting of a body; past it 400. Readers parse it inside our own message, and parsers stop at 1,024."""

    def __post_init__(self) -> None:
        for name in ("body_bytes_max", "compressed_bytes_max", "form_bytes_max", "rows_max", "fields_max", "depth_max"):
            if getattr(self, name) < 1:
                raise SettingError(name, getattr(self, name), "at least 1")


class Posted(NamedTuple):
    """What came in one body."""

    values: bytes
    """The JSON values as they came, with a comma between them: what stands between a message's brackets."""
    rows: list[Any]
    """The same, parsed; `Any` because it has just come in as JSON."""


class _Inflater(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def decode(body: bytes, content_type: str | None, limits: BodyLimits) -> Posted:
    """The values of an inflated body; without a content type it is JSON.

    Raises:
        RefusedError: it cannot be taken; nothing of it is.
    """
    if len(body) > limits.body_bytes_max:
        raise RefusedError(413, "too_large", f"the body is over {limits.body_bytes_max} bytes: send it in parts")
    kind, charset = _kind(content_type) if content_type else ("json", None)
    if kind == "form" and not body.lstrip().startswith((b"{", b"[")):
        return _form(body, charset or "utf-8", limits)
    if body.startswith(_BOM):
        body = body[3:]
    openers = body.count(b"[") + body.count(b"{")
    if openers > limits.containers_max and _containers(body) > limits.containers_max:
        raise RefusedError(
            413, "too_large", f"the body has more than {limits.containers_max} objects and arrays: send it in parts"
        )
    posted = _lines(body, limits) if kind == "lines" else _json(body, limits)
    if openers > limits.depth_max and _depth(posted.rows, limits.depth_max) > limits.depth_max:
        raise RefusedError(400, "body", f"the body is nested deeper than {limits.depth_max} levels")
    return posted


def inflate(raw: bytes, coding: str, limits: BodyLimits) -> bytes:
    """The body inside the bytes that were sent, by their `Content-Encoding`. Never more than it may be in memory.

    Raises:
        RefusedError: it cannot be taken.
    """
    coding = coding.strip().lower()
    if coding in ("", "identity"):
        return raw
    start = _inflater(raw, coding)
    if len(raw) > limits.compressed_bytes_max:
        raise RefusedError(
            413, "too_large", f"the compressed body is over {limits.compressed_bytes_max} bytes: send it in parts"
        )
    parts: list[bytes] = []
    room = limits.body_bytes_max
    for _ in range(_MEMBERS_MAX):
        inflater = start()
        try:
            part = inflater.decompress(raw, room + 1)
        except (zlib.error, zstd.ZstdError) as error:
            raise RefusedError(400, "body", f"the body is no {coding}: {error}") from None
        room -= len(part)
        if room < 0:
            raise RefusedError(
                413, "too_large", f"the body inflates to over {limits.body_bytes_max} bytes: send it in parts"
            )
        if not inflater.eof:
            raise RefusedError(400, "body", f"the body is no {coding}: it ends too early")
        parts.append(part)
        raw = inflater.unused_data
        if not raw:
            return b"".join(parts)
    raise RefusedError(400, "body", f"the body is put together from more than {_MEMBERS_MAX} parts of {coding}")


def _inflater(raw: bytes, coding: str) -> Callable[[], _Inflater]:
    if coding in ("gzip", "x-gzip"):
        return lambda: zlib.decompressobj(31)
    if coding == "deflate":  # zlib's format by the book, the bare stream from many a sender
        bare = not (len(raw) > 1 and raw[0] & 0x0F == 8 and (raw[0] << 8 | raw[1]) % 31 == 0)
        return lambda: zlib.decompressobj(-15 if bare else 15)
    if coding == "zstd":
        options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG_MAX}
        return lambda: zstd.ZstdDecompressor(options=options)
    reason = f"the body's Content-Encoding is {coding[:40]!r}: send it as it is, or as one of {CODINGS}"
    raise RefusedError(415, "content_type", reason, {"Accept-Encoding": CODINGS})


@lru_cache(maxsize=256)
def _kind(content_type: str) -> tuple[_Kind, str | None]:
    """How a body is read, and in which encoding a form is."""
    mime, _, parameters = content_type.partition(";")
    mime = mime.strip().lower()
    if mime in ("application/json", "text/json") or (mime.startswith("application/") and mime.endswith("+json")):
        return "json", None
    if mime in ("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"):
        return "lines", None
    if mime == "application/x-www-form-urlencoded":
        return "form", _charset(parameters)
    raise RefusedError(
        415,
        "content_type",
        f"the body is {mime[:60]}: post JSON as application/json, lines of it as application/x-ndjson, or a form as "
        "application/x-www-form-urlencoded",
    )


def _charset(parameters: str) -> str | None:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
            if charset not in _CHARSETS:
                raise RefusedError(415, "content_type", f"the form is in {charset[:40]!r}: send it in UTF-8")
            return charset
    return None


def _json(body: bytes, limits: BodyLimits) -> Posted:
    value = _parsed(body, "")
    if type(value) is not list:
        return Posted(body, [value])
    if len(value) > limits.rows_max:
        raise RefusedError(413, "too_large", f"the array has more than {limits.rows_max} elements: send it in parts")
    return Posted(body.strip()[1:-1], value)


def _lines(body: bytes, limits: BodyLimits) -> Posted:
    rows: list[Any] = []
    lines: list[bytes] = []
    for number, line in enumerate(body.split(b"\n"), 1):
        if text := line.strip(b" \t\r"):
            if len(rows) == limits.rows_max:
                raise RefusedError(
                    413, "too_large", f"the body has more than {limits.rows_max} lines: send it in parts"
                )
            rows.append(_parsed(text, f" in line {number}"))
            lines.append(text)
    return Posted(b",".join(lines), rows)


def _parsed(text: bytes, where: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if not text.strip():
            reason = "it is empty"
        elif text[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in text[:2]:
            reason = "it looks like UTF-16; JSON is UTF-8"
        else:
            reason = str(error)
        raise RefusedError(400, "body", f"the body is no JSON{where}: {reason}") from None


def _form(body: bytes, charset: str, limits: BodyLimits) -> Posted:
    """A form is one object of texts; a field that stands more than once becomes an array."""
    if len(body) > limits.form_bytes_max:
        raise RefusedError(413, "too_large", f"the form is over {limits.form_bytes_max} bytes")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            encoding=charset,
            errors="strict",
            max_num_fields=limits.fields_max,
        )
    except UnicodeError:
        raise RefusedError(400, "body", f"the form is no {charset} in percent-encoding") from None
    except ValueError as error:
        if body.count(b"&") >= limits.fields_max:
            raise RefusedError(413, "too_large", f"the form has more than {limits.fields_max} fields") from None
        raise RefusedError(400, "body", f"the body is no form: {error}") from None
    record: dict[str, Any] = {}
    for name, value in pairs:
        if name not in record:
            record[name] = value
        elif isinstance(record[name], list):
            record[name].append(value)
        else:
            record[name] = [record[name], value]
    return Posted(orjson.dumps(record), [record])


def _containers(body: bytes) -> int:
    """Objects and arrays of what is JSON if it parses: brackets outside of texts."""
    bare = _STRINGS.sub(b"", body)
    return bare.count(b"[") + bare.count(b"{")


def _depth(rows: list[Any], limit: int) -> int:
    """Levels of nesting of the deepest row, or more than `limit`; level by level: recursion could run out of stack."""
    level: list[Any] = [row for row in rows if type(row) in (list, dict)]
    depth = 0
    while level and depth <= limit:
        level = [
            child
            for node in level
            for child in (node.values() if type(node) is dict else node)
            if type(child) in (list, dict)
        ]
        depth += 1
    return depth
