"""The sender's side of `verify`: a request, signed as its provider would. For `tailrace webhook send`, and for tests."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from multidict import CIMultiDict

from tailrace.errors import RejectedError
from tailrace.gateway.deliveries import Delivery
from tailrace.gateway.schemes import Basic, Jwt, Provider, Signature, Sns, Source, Token
from tailrace.gateway.verify import hmac_key, signed_text

__all__ = ["CannotSignError", "sign"]


class CannotSignError(RejectedError):
    """A request cannot be signed as its provider would."""

    def __init__(self, provider: str, reason: str) -> None:
        self.provider, self.reason = provider, reason
        super().__init__(f"cannot sign as {provider} does: {reason}")


def sign(provider: Provider, secret: str, delivery: Delivery, *, now_ms: int, delivery_id: str) -> Delivery:
    """`delivery` with what the provider adds to prove itself.

    Args:
        secret: of an asymmetric scheme, the private key in PEM.

    Raises:
        CannotSignError: rejected; the proof stands in the body, or only the provider has its key.
    """
    scheme = provider.scheme
    headers = CIMultiDict(delivery.headers)
    if provider.delivery_id is not None and provider.delivery_id.header:
        headers.setdefault(provider.delivery_id.header, delivery_id)
    delivery = replace(delivery, headers=headers)
    match scheme:
        case Signature():
            return _sign(provider.name, scheme, secret, delivery, now_ms, delivery_id)
        case Token():
            headers[_header(provider.name, scheme.token)] = scheme.token.prefix + secret
        case Basic():
            headers["Authorization"] = "Basic " + base64.b64encode(secret.encode()).decode()
        case Jwt():
            claims: dict[str, Any] = {"iat": now_ms // 1000, "exp": now_ms // 1000 + 60, "jti": delivery_id}
            for claim, data in ((scheme.body_claim, delivery.body), (scheme.url_claim, delivery.url.encode())):
                if claim and data:
                    claims[claim] = hashlib.sha256(data).hexdigest()
            token = jwt.encode(claims, secret, algorithm=scheme.algorithms[0])
            headers[_header(provider.name, scheme.token)] = scheme.token.prefix + token
        case Sns():
            raise CannotSignError(provider.name, "only Amazon has the key")
    return replace(delivery, headers=headers)


def _sign(name: str, scheme: Signature, secret: str, delivery: Delivery, now_ms: int, delivery_id: str) -> Delivery:
    headers = CIMultiDict(delivery.headers)
    for header in re.findall(r"\{header:([^{}]+)\}", scheme.signed):
        headers.setdefault(header, delivery_id)
    timestamp = ""
    if scheme.timestamp is not None and scheme.timestamp.header:
        timestamp = _moment(now_ms, scheme.unit)
        headers[scheme.timestamp.header] = scheme.timestamp.prefix + timestamp
    url = delivery.url
    if scheme.body_digest is not None and not delivery.is_form:
        assert scheme.body_digest.query, "the only such place so far"
        digest = hashlib.sha256(delivery.body).hexdigest()
        url += f"{'&' if '?' in url else '?'}{scheme.body_digest.query}={digest}"
    delivery = replace(delivery, headers=headers, url=url)
    header = _header(name, scheme.signature)
    raw = _raw(name, scheme, secret, signed_text(scheme, delivery, timestamp))
    text = raw.hex() if scheme.encoding == "hex" else base64.b64encode(raw).decode()
    before = headers.get(header, "")
    headers[header] = f"{before}{scheme.signature.separator if before else ''}{scheme.signature.prefix}{text}"
    return replace(delivery, headers=headers)


def _header(name: str, source: Source) -> str:
    if not source.header:
        raise CannotSignError(name, f"the proof stands in {source.name}: write it there yourself")
    return source.header


def _raw(name: str, scheme: Signature, secret: str, text: bytes) -> bytes:
    kind, _, digest = scheme.algorithm.partition("-")
    if kind == "hmac":
        return hmac.digest(hmac_key(secret, scheme.key), text, digest)
    try:
        key = serialization.load_pem_private_key(secret.encode(), password=None)
    except (ValueError, TypeError):
        raise CannotSignError(name, "that takes its private key, in PEM") from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(text)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(text, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    raise CannotSignError(name, "the private key is of another kind")


def _moment(now_ms: int, unit: str) -> str:
    if unit == "iso":
        return datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(now_ms if unit == "ms" else now_ms // 1000)
