"""Signatures by key pairs, certificates and tokens. Apart, because loading the libraries takes a tenth of a second and
few webhooks need them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import jwt
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509 import Certificate, load_pem_x509_certificate

from tailrace.gateway.refusals import UnusableSecretError

__all__ = ["certified", "claims", "in_force", "jwk", "key_id", "public_key", "signed_by"]


@lru_cache(maxsize=256)
def public_key(text: str) -> Any:
    """The key: PEM, DER in base64, or the 32 bytes of an Ed25519 one in hex or base64."""
    text = text.strip()
    try:
        if "-----BEGIN" in text:
            return serialization.load_pem_public_key(text.encode())
        raw = bytes.fromhex(text) if re.fullmatch("[0-9a-fA-F]{64}", text) else base64.b64decode(text, validate=True)
        if len(raw) == 32:
            return ed25519.Ed25519PublicKey.from_public_bytes(raw)
        return serialization.load_der_public_key(raw)
    except (ValueError, binascii.Error, UnsupportedAlgorithm):
        raise UnusableSecretError("it is no public key") from None


def signed_by(key: Any, kind: str, signature: bytes, text: bytes) -> bool:
    """Whether `signature` of `text` was made with the other half of `key`."""
    try:
        if kind == "ed25519" and isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, text)
        elif kind == "ecdsa" and isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
        elif kind == "rsa" and isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, text, padding.PKCS1v15(), hashes.SHA256())
        else:
            raise UnusableSecretError(f"it is no key for {kind}")
    except InvalidSignature:
        return False
    return True


def certified(pem: bytes, signature: bytes, text: bytes, digest: str) -> bool:
    """Whether the owner of a certificate with an RSA key signed `text`."""
    certificate = _certificate(pem)
    key = None if certificate is None else certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    try:
        key.verify(signature, text, padding.PKCS1v15(), hashes.SHA1() if digest == "sha1" else hashes.SHA256())  # noqa: S303 - as SNS version 1 asks
    except InvalidSignature:
        return False
    return True


def in_force(pem: bytes, now: datetime) -> bool:
    """Whether `now` lies in the time of the certificate."""
    certificate = _certificate(pem)
    return certificate is not None and certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


@lru_cache(maxsize=64)
def _certificate(pem: bytes) -> Certificate | None:
    try:
        return load_pem_x509_certificate(pem)
    except ValueError:
        return None


def key_id(token: str) -> str | None:
    """The id of the key that a token says it was signed with; None for what is no token."""
    try:
        return str(jwt.get_unverified_header(token).get("kid", ""))
    except jwt.PyJWTError:
        return None


@lru_cache(maxsize=256)
def jwk(text: str) -> Any:
    """A JSON Web Key."""
    try:
        return jwt.PyJWK.from_json(text)
    except (jwt.PyJWTError, ValueError):
        raise UnusableSecretError("it is no JSON Web Key") from None


def claims(token: str, key: Any, algorithms: Sequence[str]) -> dict[str, Any] | None:
    """What a token says whose signature fits; its times are for the caller to look at."""
    unchecked = ("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub", "verify_jti")
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=list(algorithms),
            options=dict.fromkeys(unchecked, False),  # type: ignore[arg-type]
        )
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return claims
