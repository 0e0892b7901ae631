"""How senders show who they are: the vocabulary that the rows of `providers` are written in. Only values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Basic", "Handshake", "Jwt", "Provider", "Scheme", "Signature", "Sns", "Source", "Token"]

Algorithm: TypeAlias = Literal["hmac-sha1", "hmac-sha256", "hmac-sha512", "ed25519", "ecdsa-sha256", "rsa-sha256"]
Encoding: TypeAlias = Literal["hex", "base64", "base64url"]
KeyForm: TypeAlias = Literal["text", "hex", "base64", "whsec"]
TimeUnit: TypeAlias = Literal["s", "ms", "iso"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a value stands in a request: exactly one of the first four."""

    header: str = ""
    query: str = ""
    field: str = ""
    """Of a form body."""
    pointer: str = ""
    """Into a JSON body (RFC 6901); `*` stands for every element of an array."""
    separator: str = ""
    """The value is a list of items, with this between them."""
    prefix: str = ""
    """Only items that begin so count, and this is cut off."""

    @property
    def name(self) -> str:
        """As a person calls it."""
        for kind, value in (("header", self.header), ("query parameter", self.query), ("form field", self.field)):
            if value:
                return f"{kind} {value}"
        return f"member {self.pointer} of the body"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A keyed digest, or an asymmetric signature, of a text made from the request."""

    signature: Source
    signed: str = "{body}"
    """The signed text. In braces: `body`, `timestamp`, `method`, `url`, `url_decoded`, `form` (fields in order of their
    names, names and values run together), `body_sha256`, `header:NAME`, `pointer:/PATH`."""
    algorithm: Algorithm = "hmac-sha256"
    encoding: Encoding = "hex"
    key: KeyForm = "text"
    """How the secret is written; of asymmetric ones the secret is the public key, and how it is written shows."""
    timestamp: Source | None = None
    unit: TimeUnit = "s"
    tolerance_s: int = 300
    """How far the timestamp may lie from our clock, either way. Wider lets a stolen request be sent again for
    longer, narrower refuses senders whose clocks differ or who retry with the first try's signature."""
    body_digest: Source | None = None
    """Where the SHA-256 of a body stands that is no form, for senders that sign forms alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """The secret itself stands in the request."""

    token: Source


@dataclass(frozen=True, slots=True)
class Basic:
    """HTTP basic authentication; the secret is `user:password`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jwt:
    """A JSON Web Token, bound to the request by digests among its claims."""

    token: Source
    algorithms: tuple[str, ...] = ("HS256",)
    body_claim: str = ""
    """Claim with the body's SHA-256 in hex; asked for whenever there is a body."""
    url_claim: str = ""
    """Claim with the URL's SHA-256 in hex."""
    tolerance_s: int = 300
    """Oldest `iat`; and how far clocks may differ where the token says itself when it ends."""
    fetched_key: bool = False
    """The secret is a JSON Web Key, or else what fetches one: `client_id:secret` of Plaid."""


@dataclass(frozen=True, slots=True)
class Sns:
    """Amazon SNS: RSA by a certificate that the message names, taken from Amazon's hosts alone.

    Anybody with an account there can have such messages sent, so the secret is the topic's ARN.
    """


Scheme: TypeAlias = Signature | Token | Basic | Jwt | Sns


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """A request by which a provider finds out whether we are there; it becomes no row."""

    method: Literal["GET", "POST"] = "POST"
    verified: bool = True
    """The request carries what posts carry, and that is checked first."""
    where: tuple[tuple[Source, str], ...] = ()
    """Values that tell it from a post."""
    asks: Source | None = None
    """What is asked: must be there."""
    token: Source | None = None
    """Where the verify token, or else a secret, stands."""
    answer: Mapping[str, object] | None = None
    """JSON answer; in its texts `{asked}`, `{hmac-hex}` and `{hmac-base64}` (HMAC-SHA256 of what is asked) are filled in.
    None: what is asked, as plain text."""
    visit: Source | None = None
    """A URL of the provider's to be fetched instead of an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One sender of webhooks: all that we know of it."""

    name: str
    """As in `provider:` of graph.yml."""
    title: str
    docs: str
    """Address of the page that the row follows."""
    scheme: Scheme
    delivery_id: Source | None = None
    """What names one delivery over its repeats."""
    handshakes: tuple[Handshake, ...] = ()
    json_field: str = ""
    """The post is the JSON in this field, where it comes as a form that has it."""
    json_as_text: bool = False
    """The post is JSON, though it is called `text/plain`."""
    accepted: Mapping[str, object] | None = None
    """Body of the answer to an accepted post; None: empty."""
