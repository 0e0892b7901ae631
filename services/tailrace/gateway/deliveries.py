"""One request as the checks see it: raw, with the places in it that rows of `providers` name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson

from tailrace.gateway.pointers import find
from tailrace.gateway.schemes import Source

__all__ = ["Delivery"]

_FIELDS_MAX = 1_000
"""Most fields of a form or query that are looked at."""
_ITEMS_MAX = 16
"""Most items of a list in a header that are looked at: each may cost a digest."""
_FORM_BYTES_MAX = 1 << 20
"""Largest form that is looked at: some must be read before it is known who sent them, and it takes 50 ms and more."""
_CONTAINERS_MAX = 200_000
"""Most brackets in a document that is looked at: each may take 64 bytes of memory."""
_TEXT_MAX = 16_384
"""Longest value that is looked at."""


@dataclass(kw_only=True)
class Delivery:
    """A request. `headers` must find names in any case; `url` is the one the sender knows, with its query."""

    method: str = "POST"
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    """As it came, before it was decompressed or parsed."""

    def read(self, source: Source) -> list[str]:
        """The values at `source`, as texts; none where there is nothing."""
        if source.header:
            value = self.headers.get(source.header)
            if value is None:
                return []
            values = [value]
        elif source.query:
            values = [value for name, value in self.query if name == source.query][:1]
        elif source.field:
            values = [value for name, value in self.form if name == source.field][:1]
        else:
            values = [_text(value) for value in find(self.document, source.pointer)]
        if not source.field:
            values = [value for value in values if len(value) <= _TEXT_MAX]
        if source.separator:
            values = [item.strip() for value in values for item in value.split(source.separator, _ITEMS_MAX)]
        if source.prefix:
            values = [value[len(source.prefix) :] for value in values if value.startswith(source.prefix)]
        return values[: _ITEMS_MAX if source.separator else None]

    @property
    def content_type(self) -> str:
        """Media type, without its parameters."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def is_form(self) -> bool:
        return self.content_type in ("application/x-www-form-urlencoded", "multipart/form-data")

    @cached_property
    def query(self) -> list[tuple[str, str]]:
        """Parameters of the URL, decoded."""
        return _pairs(urlsplit(self.url).query)

    @cached_property
    def form(self) -> list[tuple[str, str]]:
        """Fields of a form body, decoded; none where the body is no form."""
        if len(self.body) > _FORM_BYTES_MAX:
            return []
        if self.content_type == "application/x-www-form-urlencoded":
            return _pairs(self.body.decode("utf-8", "replace"))
        if self.content_type == "multipart/form-data":
            return _parts(self.headers.get("Content-Type", ""), self.body)
        return []

    @cached_property
    def document(self) -> Any:
        """The body as JSON; of a form, what its field `json` or `payload` holds. None where it is none."""
        text = self.body
        if self.is_form:
            text = next((value for name, value in self.form if name in ("json", "payload")), "").encode(
                errors="replace"
            )
        if text.count(b"[") + text.count(b"{") > _CONTAINERS_MAX:
            return None
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode()


def _pairs(text: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=_FIELDS_MAX)
    except ValueError:
        return []


def _parts(content_type: str, body: bytes) -> list[tuple[str, str]]:
    head = f"Content-Type: {content_type[:1000]}\r\n\r\n".encode("utf-8", "replace")
    message = message_from_bytes(head + body, policy=policy.HTTP)
    found = []
    for part in list(message.iter_parts())[:_FIELDS_MAX]:
        name = part.get_param("name", header="content-disposition")
        data = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(data, bytes):
            found.append((name, data.decode("utf-8", "replace")))
    return found
