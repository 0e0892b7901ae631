"""Whether a request comes from whom it says: (row, secrets, request, time) to a refusal, or none.

Pure: what must be fetched first (Amazon's certificates, Plaid's keys) is asked for by a `KeyNeeded`, and the caller
calls again. Digests are taken of raw bytes before anything is parsed, save where the provider put the signature into
the body itself, and are compared in constant time. Each live secret is tried against each signature of the request.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from tailrace.gateway.deliveries import Delivery
from tailrace.gateway.refusals import UnusableSecretError
from tailrace.gateway.schemes import Basic, Jwt, Scheme, Signature, Sns, Source, Token

__all__ = [
    "KeyNeeded",
    "Refusal",
    "address_refusal",
    "hmac_key",
    "is_amazon_sns",
    "same",
    "signed_text",
    "verify",
]

Code = Literal[
    "address_forbidden",
    "secret_missing",
    "secret_unusable",
    "signature_missing",
    "signature_wrong",
    "timestamp_missing",
    "timestamp_off",
]

_STATUS: Mapping[Code, int] = {"address_forbidden": 403, "secret_missing": 503, "secret_unusable": 503}
"""The owner's mistakes are 503, so that senders keep what they have until it is put right; all else is 401."""

_PARTS = re.compile(r"\{([^{}]*)\}")
_SNS_HOST = re.compile(r"sns\.[a-z0-9-]{1,40}\.amazonaws\.com(\.cn)?")
_HUBSPOT_DECODED = {f"%{ord(char):02X}": char for char in ":/?@!$'()*,;"}
"""Those that HubSpot decodes before it signs; a `?` that begins the query is one already."""


class Refusal(NamedTuple):
    """Why a request is not taken."""

    code: Code
    reason: str
    """For the sender: what to do; holds no secret and nothing of the body."""

    @property
    def status(self) -> int:
        """The answer's HTTP status."""
        return _STATUS.get(self.code, 401)


class KeyNeeded(NamedTuple):
    """What is to be fetched first: a certificate by its URL, or Plaid's key by its id."""

    kind: Literal["certificate", "plaid"]
    name: str


def verify(
    scheme: Scheme,
    secrets: Sequence[str],
    delivery: Delivery,
    now_ms: int,
    keys: Mapping[str, bytes] | None = None,
) -> Refusal | KeyNeeded | None:
    """None where the request is genuine.

    Args:
        secrets: the live ones; several while one takes over from another.
        keys: what was fetched, by its name in `KeyNeeded`.
    """
    live = [secret for secret in secrets if secret]
    if not live:
        return Refusal("secret_missing", "this webhook has no secret yet, so it takes nothing: its owner must set one")
    try:
        match scheme:
            case Signature():
                return _signature(scheme, live, delivery, now_ms)
            case Token():
                return _token(scheme.token, live, delivery)
            case Basic():
                return _basic(live, delivery)
            case Jwt():
                return _jwt(scheme, live, delivery, now_ms, keys or {})
            case Sns():
                return _sns(live, delivery, now_ms, keys or {})
    except UnusableSecretError as error:
        return Refusal("secret_unusable", f"the secret of this webhook cannot be used: {error.reason}")


def address_refusal(allowed: Sequence[str], address: str) -> Refusal | None:
    """Refuses an address outside `allowed`, a list of addresses and networks; an empty list allows all."""
    if not allowed:
        return None
    try:
        ip = ip_address(address)
    except ValueError:
        return Refusal("address_forbidden", "the sender's address is not known")
    mapped = getattr(ip, "ipv4_mapped", None)
    ip = mapped or ip
    if any(ip in ip_network(network, strict=False) for network in allowed):
        return None
    return Refusal("address_forbidden", f"this webhook takes no posts from {ip}")


def signed_text(scheme: Signature, delivery: Delivery, timestamp: str) -> bytes:
    """The text that the provider signs."""
    if scheme.signed == "{body}":
        return delivery.body
    parts = _parts(scheme.signed)
    return b"".join(
        _part(part, delivery, timestamp) if index % 2 else part.encode() for index, part in enumerate(parts)
    )


@lru_cache(maxsize=256)
def _parts(signed: str) -> list[str]:
    """Literal text and names of parts by turns."""
    return _PARTS.split(signed)


def _part(name: str, delivery: Delivery, timestamp: str) -> bytes:
    kind, _, rest = name.partition(":")
    match kind:
        case "body":
            return delivery.body
        case "timestamp":
            return timestamp.encode()
        case "method":
            return delivery.method.encode()
        case "url":
            return delivery.url.encode()
        case "url_decoded":
            return re.sub("%[0-9A-Fa-f]{2}", lambda m: _HUBSPOT_DECODED.get(m[0].upper(), m[0]), delivery.url).encode()
        case "form":
            pairs = sorted(set(delivery.form))
            return "".join(name + value for name, value in pairs).encode()
        case "body_sha256":
            return hashlib.sha256(delivery.body).hexdigest().encode()
        case "header":
            return "".join(delivery.read(Source(header=rest))).encode()
        case "pointer":
            return "".join(delivery.read(Source(pointer=rest))).encode()
    raise AssertionError(f"no part of a signed text: {name}")


def _signature(scheme: Signature, secrets: Sequence[str], delivery: Delivery, now_ms: int) -> Refusal | None:
    given = delivery.read(scheme.signature)
    if not given:
        return Refusal("signature_missing", f"no signature: {scheme.signature.name} is missing")
    timestamp = ""
    if scheme.timestamp is not None and "{timestamp}" in scheme.signed:
        timestamp = next(iter(delivery.read(scheme.timestamp)), "")
    if scheme.body_digest is not None and not delivery.is_form:
        digest = hashlib.sha256(delivery.body).hexdigest()
        if not same([digest], [value.lower() for value in delivery.read(scheme.body_digest)]):
            return Refusal("signature_wrong", f"{scheme.body_digest.name} is not the SHA-256 of the body")
    text = signed_text(scheme, delivery, timestamp)
    signatures = [raw for value in given if (raw := decoded(value, scheme.encoding)) is not None]
    kind, _, digest_name = scheme.algorithm.partition("-")
    if kind == "hmac":
        expected = [_digest(secret, scheme.key, digest_name, text) for secret in secrets]
        good = same(expected, signatures)
    else:
        from tailrace.gateway import publickeys

        good = any(
            publickeys.signed_by(publickeys.public_key(secret), kind, raw, text)
            for secret in secrets
            for raw in signatures
        )
    if not good:
        reason = f"{scheme.signature.name} does not fit the request and this webhook's secret"
        return Refusal("signature_wrong", reason)
    return None if scheme.timestamp is None else _stale(scheme, scheme.timestamp, delivery, now_ms)


def _digest(secret: str, form: str, digest_name: str, text: bytes) -> bytes:
    keyed = _keyed(secret, form, digest_name).copy()
    keyed.update(text)
    return keyed.digest()


@lru_cache(maxsize=1_000)
def _keyed(secret: str, form: str, digest_name: str) -> hmac.HMAC:
    """A digest that has taken in the key: OpenSSL needs three times as long for it as for a post of 280 bytes."""
    return hmac.new(hmac_key(secret, form), digestmod=digest_name)


def _stale(scheme: Signature, timestamp: Source, delivery: Delivery, now_ms: int) -> Refusal | None:
    """Refuses what was signed too long ago, or in the future. Asked last: only who can sign learns of our clock."""
    found = delivery.read(timestamp)
    moment_ms = _moment_ms(found[0], scheme.unit) if len(found) == 1 else None
    if moment_ms is None:
        return Refusal("timestamp_missing", f"{timestamp.name} holds no time, or several")
    off_s = abs(now_ms - moment_ms) / 1000
    if off_s <= scheme.tolerance_s:
        return None
    return Refusal("timestamp_off", f"signed {off_s:.0f} s from this clock, and {scheme.tolerance_s} s are allowed")


def _token(source: Source, secrets: Sequence[str], delivery: Delivery) -> Refusal | None:
    given = delivery.read(source)
    if not given:
        return Refusal("signature_missing", f"no token: {source.name} is missing")
    if all([same(list(secrets), [value]) for value in given]):  # noqa: C419 - all of them, always
        return None
    return Refusal("signature_wrong", f"{source.name} is not this webhook's token")


def _basic(secrets: Sequence[str], delivery: Delivery) -> Refusal | None:
    given = delivery.read(Source(header="Authorization"))
    if not given or given[0][:6].lower() != "basic ":
        return Refusal("signature_missing", "no credentials: this webhook asks for HTTP basic authentication")
    raw = decoded(given[0][6:].strip(), "base64")
    if raw is not None and same([secret.encode() for secret in secrets], [raw]):
        return None
    return Refusal("signature_wrong", "user or password is not this webhook's")


def _jwt(
    scheme: Jwt, secrets: Sequence[str], delivery: Delivery, now_ms: int, keys: Mapping[str, bytes]
) -> Refusal | KeyNeeded | None:
    from tailrace.gateway import publickeys

    given = delivery.read(scheme.token)
    if not given:
        return Refusal("signature_missing", f"no token: {scheme.token.name} is missing")
    wrong = Refusal("signature_wrong", f"the token in {scheme.token.name} does not fit the request and the secret")
    candidates: list[Any] = []
    for secret in secrets:
        if secret.lstrip().startswith("{"):
            candidates.append(publickeys.jwk(secret))
        elif scheme.fetched_key:
            kid = publickeys.key_id(given[0])
            if kid is None:
                return wrong
            if kid not in keys:
                return KeyNeeded("plaid", kid)
            if keys[kid]:
                candidates.append(publickeys.jwk(keys[kid].decode()))
        else:
            candidates.append(secret)
    claims = next((found for key in candidates if (found := publickeys.claims(given[0], key, scheme.algorithms))), None)
    if claims is None:
        return wrong
    late = _outside(claims, now_ms / 1000, scheme.tolerance_s)
    if late:
        return Refusal("timestamp_off", late)
    for claim, data in ((scheme.body_claim, delivery.body), (scheme.url_claim, delivery.url.encode())):
        digest = hashlib.sha256(data).hexdigest()
        if claim and data and not same([digest], [str(claims.get(claim, "")).lower()]):
            return Refusal("signature_wrong", f"the token's claim {claim} is not the SHA-256 of what came")
    return None


def _outside(claims: Mapping[str, Any], now_s: float, tolerance_s: int) -> str | None:
    """Why the token is too old or too young, if it is."""
    times = {name: value for name in ("exp", "nbf", "iat") if isinstance(value := claims.get(name), int | float)}
    if "exp" not in times and "iat" not in times:
        return "the token says neither when it was made nor when it ends"
    if "exp" in times:
        leeway_s = min(tolerance_s, 60)
        if now_s > times["exp"] + leeway_s:
            return "the token has ended"
    elif abs(now_s - times["iat"]) > tolerance_s:
        return f"the token was made {abs(now_s - times['iat']):.0f} s from this clock; {tolerance_s} s are allowed"
    if "nbf" in times and now_s < times["nbf"] - min(tolerance_s, 60):
        return "the token does not count yet"
    return None


def _sns(
    topics: Sequence[str], delivery: Delivery, now_ms: int, keys: Mapping[str, bytes]
) -> Refusal | KeyNeeded | None:
    message = delivery.document
    if not isinstance(message, dict) or not isinstance(message.get("Signature"), str):
        return Refusal("signature_missing", "no message of Amazon SNS: Signature is missing")
    if not same(list(topics), [str(message.get("TopicArn", ""))]):
        return Refusal("signature_wrong", "the message is of a topic that this webhook does not take")
    url = str(message.get("SigningCertURL", ""))
    if not is_amazon_sns(url) or not urlsplit(url).path.endswith(".pem"):
        return Refusal("signature_wrong", "SigningCertURL does not lead to a certificate of Amazon SNS")
    if url not in keys:
        return KeyNeeded("certificate", url)
    names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    left_out = {"SubscribeURL", "Token"} if message.get("Type") == "Notification" else {"Subject"}
    text = "".join(f"{name}\n{message[name]}\n" for name in names if name not in left_out and message.get(name))
    wrong = Refusal("signature_wrong", "Signature does not fit the message")
    from tailrace.gateway import publickeys

    raw = decoded(message["Signature"], "base64")
    digest = "sha1" if str(message.get("SignatureVersion")) == "1" else "sha256"
    if raw is None or not publickeys.certified(keys[url], raw, text.encode(), digest):
        return wrong
    if not publickeys.in_force(keys[url], datetime.fromtimestamp(now_ms / 1000, UTC)):
        return Refusal("signature_wrong", "the certificate of the message has ended")
    return None


def is_amazon_sns(url: str) -> bool:
    """Whether `url` is https on a host of Amazon SNS, on the usual port, without credentials."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(_SNS_HOST.fullmatch(parts.netloc))
    except ValueError:
        return False


def same(expected: Sequence[str] | Sequence[bytes], given: Sequence[str] | Sequence[bytes]) -> bool:
    """Whether any of the one is any of the other; takes as long whichever it is."""
    found = False
    for want in expected:
        for have in given:
            found |= hmac.compare_digest(_raw(want), _raw(have))
    return found


def _raw(value: str | bytes) -> bytes:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def decoded(text: str, encoding: str) -> bytes | None:
    try:
        if encoding == "hex":
            return binascii.unhexlify(text)
        if encoding == "base64url":
            return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None


def hmac_key(secret: str, form: str) -> bytes:
    try:
        if form == "hex":
            return bytes.fromhex(secret)
        if form in ("base64", "whsec"):
            text = secret.removeprefix("whsec_") if form == "whsec" else secret
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise UnusableSecretError(f"it is not {'base64' if form == 'whsec' else form}") from None
    return secret.encode()


def _moment_ms(text: str, unit: str) -> int | None:
    """Milliseconds since 1970; None where `text` says no time."""
    if unit == "iso":
        try:
            moment = datetime.fromisoformat(text[:40])
        except ValueError:
            return None
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
        return None
    return int(text) * (1000 if unit == "s" else 1)
