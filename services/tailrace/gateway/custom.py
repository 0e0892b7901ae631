"""A provider by its name, or one of the generic rows with some of its values changed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from tailrace.errors import RejectedError
from tailrace.gateway.pointers import is_pointer
from tailrace.gateway.providers import PROVIDERS
from tailrace.gateway.schemes import Algorithm, Encoding, Jwt, KeyForm, Provider, Signature, Source, TimeUnit, Token

__all__ = ["BadProviderError", "ProviderSettings", "provider_of", "source_of"]

ProviderSettings = Mapping[str, str | int]

_SIGNED = re.compile(r"body|timestamp|method|url|url_decoded|form|body_sha256|header:[!-z|~]+|pointer:/[^{}]*")
_WORDS = {
    "algorithm": get_args(Algorithm),
    "encoding": get_args(Encoding),
    "key": get_args(KeyForm),
    "unit": get_args(TimeUnit),
}
_SETTINGS: Mapping[type, frozenset[str]] = {
    Signature: frozenset(
        {*_WORDS, "header", "prefix", "separator", "signed", "timestamp", "timestamp_prefix", "tolerance"}
    ),
    Token: frozenset({"header", "prefix"}),
    Jwt: frozenset({"header", "prefix", "algorithms", "body_claim", "url_claim", "tolerance"}),
}
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")


class BadProviderError(RejectedError):
    """A `provider` of graph.yml that cannot be."""

    def __init__(self, reason: str, hint: str = "") -> None:
        self.reason, self.hint = reason, hint
        super().__init__(f"{reason}; {hint}" if hint else reason)


def source_of(text: str) -> Source | None:
    """`/event/id` is a place in the body, `X-Event-Id` a header; None for what can be neither."""
    if is_pointer(text):
        return Source(pointer=text)
    return Source(header=text) if _HEADER.fullmatch(text) else None


def provider_of(name: str, settings: ProviderSettings) -> Provider:
    """The row `name` of `PROVIDERS`, with `settings` instead of its own.

    Raises:
        BadProviderError: rejected.
    """
    row = PROVIDERS.get(name)
    if row is None:
        near = ", ".join(sorted(PROVIDERS))
        raise BadProviderError(f'there is no provider "{name}"', f"one of {near}")
    settings = dict(settings)
    delivery_id = settings.pop("delivery_id", None)
    if delivery_id is not None:
        source = source_of(str(delivery_id))
        if source is None:
            raise BadProviderError(f'delivery_id "{delivery_id}" is neither a header nor a pointer such as /event/id')
        row = replace(row, delivery_id=source)
    known = _SETTINGS.get(type(row.scheme), frozenset())
    for key, value in settings.items():
        if key not in known:
            raise BadProviderError(f'provider "{name}" has no setting "{key}"', f"it has {_listed(known)}")
        if key in _WORDS and value not in _WORDS[key]:
            raise BadProviderError(f'{key} of a provider is "{value}"', f"one of {_listed(_WORDS[key])}")
        if key in ("header", "timestamp") and not _HEADER.fullmatch(str(value)):
            raise BadProviderError(f'{key} "{value}" of a provider is no name of a header')
        if key == "tolerance" and not (isinstance(value, int) and 0 < value <= 86_400):
            raise BadProviderError(f'tolerance "{value}" of a provider is not 1 to 86400 seconds')
    return replace(row, scheme=_changed(row.scheme, settings)) if settings else row


def _changed(scheme: Any, settings: Mapping[str, Any]) -> Any:
    texts = {key: str(value) for key, value in settings.items()}
    place = {key: texts[key] for key in ("header", "prefix", "separator") if key in texts}
    if isinstance(scheme, Token | Jwt):
        changes: dict[str, Any] = {"token": replace(scheme.token, **place)}
        changes |= {key: texts[key] for key in ("body_claim", "url_claim") if key in texts}
        if "algorithms" in texts:
            changes["algorithms"] = _algorithms(texts["algorithms"])
    else:
        changes = {"signature": replace(scheme.signature, **place)}
        changes |= {key: texts[key] for key in (*_WORDS, "signed") if key in texts}
        for part in re.findall(r"\{([^{}]*)\}", texts.get("signed", "")):
            if not _SIGNED.fullmatch(part):
                raise BadProviderError(f'signed text has no part "{{{part}}}"', "see docs/reference/webhooks.md")
        if "timestamp" in texts or "timestamp_prefix" in texts:
            header = texts.get("timestamp") or texts.get("header") or scheme.signature.header
            prefix = texts.get("timestamp_prefix", "")
            separator = texts.get("separator", "") if prefix else ""
            changes["timestamp"] = Source(header=header, prefix=prefix, separator=separator)
        if "{timestamp}" in texts.get("signed", "") and not (scheme.timestamp or "timestamp" in changes):
            raise BadProviderError("the signed text has a timestamp, and no header is named for it", "add `timestamp:`")
    if "tolerance" in settings:
        changes["tolerance_s"] = settings["tolerance"]
    return replace(scheme, **changes)


def _algorithms(text: str) -> tuple[str, ...]:
    found = tuple(word.strip() for word in text.split(",") if word.strip())
    known = {f"{family}{bits}" for family in ("HS", "RS", "ES", "PS") for bits in (256, 384, 512)} | {"EdDSA"}
    if not found or not known.issuperset(found) or len({word[:1] == "H" for word in found}) > 1:
        raise BadProviderError(
            f'algorithms "{text}" of a token', "such as HS256, or RS256,ES256; not both kinds at once"
        )
    return found


def _listed(words: Any) -> str:
    return ", ".join(sorted(words)) or "none"
