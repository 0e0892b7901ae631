"""Who may post: each provider's vectors, and what makes a request of theirs be refused."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import standardwebhooks
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from tailrace.gateway.deliveries import Delivery
from tailrace.gateway.handshakes import Reply, Visit, handshake
from tailrace.gateway.pointers import find, is_pointer
from tailrace.gateway.providers import PROVIDERS
from tailrace.gateway.schemes import Basic, Jwt, Signature, Sns, Source, Token
from tailrace.gateway.sign import CannotSignError, sign
from tailrace.gateway.verify import KeyNeeded, Refusal, address_refusal, verify

NOW_MS = 1_750_000_000_000
SIGNED_IN_PART = {"dropbox-sign", "mailgun"}
"""Their signatures cover an event's id and time, not the body."""


@dataclass(frozen=True)
class Vector:
    """A genuine request of a provider, as its own documentation, its SDK or plain arithmetic has it."""

    provider: str
    source: str
    secret: str
    delivery: Delivery
    now_ms: int

    def __str__(self) -> str:
        return self.provider

    def verdict(self, *, secrets: list[str] | None = None, now_ms: int | None = None, **changes: Any) -> object:
        return verify(
            PROVIDERS[self.provider].scheme,
            [self.secret] if secrets is None else secrets,
            replace(self.delivery, **changes),
            self.now_ms if now_ms is None else now_ms,
        )


def _vectors() -> list[Vector]:
    """The file says of each whether it is the provider's own, and where that stands."""
    rows = json.loads((Path(__file__).parent / "data" / "provider_vectors.json").read_text())
    return [
        Vector(
            provider=row["provider"],
            source=row["source"] if row["official"] else "",
            secret=row["secret"],
            delivery=Delivery(
                method=row["method"], url=row["url"], headers=CIMultiDict(row["headers"]), body=row["body"].encode()
            ),
            now_ms=row["now_ms"],
        )
        for row in rows
    ]


VECTORS = _vectors()


def code(verdict: object) -> str | None:
    return verdict.code if isinstance(verdict, Refusal) else None


def test_there_are_vectors_enough() -> None:
    """Every provider has one, at least 25 have one of their own, with its address."""
    assert len(PROVIDERS) >= 40
    assert set(PROVIDERS) - {vector.provider for vector in VECTORS} == {"sns"}  # below, with a certificate
    official = {vector.provider: vector.source for vector in VECTORS if vector.source}
    assert len(official) >= 25
    assert all(source.startswith("https://") for source in official.values())
    assert all(row.docs.startswith(("https://", "docs/")) for row in PROVIDERS.values())


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_a_genuine_request_is_taken(vector: Vector) -> None:
    assert vector.verdict() is None


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_a_forged_one_is_refused(vector: Vector) -> None:
    """Another body under the same proof; where the proof does not cover the body, another secret."""
    scheme = PROVIDERS[vector.provider].scheme
    if isinstance(scheme, Signature | Jwt) and vector.provider not in SIGNED_IN_PART | {"jwt", "linear"}:
        assert code(vector.verdict(body=vector.delivery.body + b" ")) == "signature_wrong" or (
            vector.delivery.is_form and code(vector.verdict(body=vector.delivery.body + b"&a=b")) == "signature_wrong"
        )
    if isinstance(scheme, Signature) and scheme.algorithm == "ed25519":
        key = ed25519.Ed25519PrivateKey.generate().public_key()
        other = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw).hex()
    elif isinstance(scheme, Signature) and scheme.algorithm == "hmac-sha256" and scheme.key != "text":
        other = "00" * 24
    elif "BEGIN" in vector.secret or vector.secret.startswith(("{", "MFk")):
        return
    else:
        other = "quite another secret of at least thirty-two bytes"
    assert code(vector.verdict(secrets=[other])) == "signature_wrong"


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_one_without_a_proof_is_refused(vector: Vector) -> None:
    body = b"{}" if vector.delivery.is_form or vector.delivery.document else vector.delivery.body
    verdict = vector.verdict(headers=CIMultiDict({"Content-Type": "application/json"}), body=body)
    assert code(verdict) == "signature_missing"
    assert isinstance(verdict, Refusal) and verdict.status == 401 and vector.secret not in verdict.reason


@pytest.mark.parametrize("vector", VECTORS, ids=str)
def test_several_secrets_live_while_one_takes_over(vector: Vector) -> None:
    """The order does not matter, and an empty one among them opens nothing."""
    if PROVIDERS[vector.provider].scheme in (PROVIDERS["plaid"].scheme,):
        return
    stale = vector.secret[:-1] + ("A" if vector.secret[-1] != "A" else "B")
    if not isinstance(PROVIDERS[vector.provider].scheme, Signature) or "hmac" in str(PROVIDERS[vector.provider].scheme):
        stale = {"adyen": "00"}.get(vector.provider, "whsec_AAAA" if "whsec" in vector.secret else stale)
        assert vector.verdict(secrets=[stale, vector.secret, ""]) is None
    assert code(vector.verdict(secrets=[])) == code(vector.verdict(secrets=["", ""])) == "secret_missing"


@pytest.mark.parametrize(
    "vector",
    [v for v in VECTORS if getattr(PROVIDERS[v.provider].scheme, "timestamp", None)],
    ids=str,
)
def test_a_stolen_request_cannot_be_sent_later(vector: Vector) -> None:
    """The window is closed on both sides, and told only to those who can sign."""
    scheme = PROVIDERS[vector.provider].scheme
    assert isinstance(scheme, Signature)
    for side in (-1, 1):
        late = vector.verdict(now_ms=vector.now_ms + side * (scheme.tolerance_s * 1000 + 101_000))
        assert code(late) == "timestamp_off"
    forged = vector.verdict(now_ms=vector.now_ms + 10**9, secrets=["00" * 32 if scheme.key == "hex" else "AAAA"])
    assert code(forged) in ("signature_wrong", "secret_unusable")


def test_twitch_repeats_of_one_second_are_within_the_window() -> None:
    """Fractions of a second in nine digits are read."""
    (vector,) = (v for v in VECTORS if v.provider == "twitch")
    assert vector.verdict(now_ms=vector.now_ms + 1000) is None


def test_standard_webhooks_agree_with_their_library() -> None:
    secret = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
    at = datetime.now(UTC)
    delivery = sign(
        PROVIDERS["standard-webhooks"],
        secret,
        Delivery(body=b'{"a": "\xc3\xa9"}'),
        now_ms=int(at.timestamp() * 1000),
        delivery_id="msg_1",
    )
    assert standardwebhooks.Webhook(secret).verify(delivery.body.decode(), dict(delivery.headers)) == {"a": "é"}
    ours = {
        "webhook-id": "msg_2",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": standardwebhooks.Webhook(secret).sign("msg_2", at, "[]"),
    }
    scheme = PROVIDERS["standard-webhooks"].scheme
    delivery = Delivery(headers=CIMultiDict(ours), body=b"[]")
    assert verify(scheme, [secret], delivery, int(at.timestamp() * 1000)) is None


@functools.cache
def _pem(kind: str) -> tuple[str, str]:
    key: Any
    if kind == "ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
    elif kind.startswith("ecdsa"):
        key = ec.generate_private_key(ec.SECP256R1())
    else:
        key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
def test_what_is_signed_as_the_provider_does_is_taken(name: str, form: bool) -> None:
    """`webhook send` and the checks agree, for all that can be signed from outside."""
    provider = PROVIDERS[name]
    secret = shown = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
    if isinstance(provider.scheme, Signature):
        if provider.scheme.algorithm.partition("-")[0] != "hmac":
            secret, shown = _pem(provider.scheme.algorithm)
        elif provider.scheme.key == "hex":
            secret = shown = "ab" * 32
    if name == "plaid":
        return  # signed with Plaid's own key
    body = b"a=1&b=%20&a=2" if form else b'{"webhookTimestamp":%d}' % NOW_MS
    headers = CIMultiDict({"Content-Type": "application/x-www-form-urlencoded" if form else "application/json"})
    delivery = Delivery(url="https://example.com/webhooks/a?b=c", headers=headers, body=body)
    try:
        signed = sign(provider, secret, delivery, now_ms=NOW_MS, delivery_id="id-1")
    except CannotSignError:
        assert isinstance(provider.scheme, Sns) or name in SIGNED_IN_PART | {"figma", "microsoft-graph"}
        return
    if form and name == "linear":
        return
    assert verify(provider.scheme, [shown], signed, NOW_MS) is None
    if provider.delivery_id is not None and provider.delivery_id.header:
        assert signed.read(provider.delivery_id) == ["id-1"]
    assert headers.keys() == {"Content-Type"}, "what was given is left as it was"


@given(st.binary(max_size=60), st.integers(0, 10_000), st.sampled_from(["github", "stripe", "svix", "discord"]))
def test_no_flipped_bit_is_taken(body: bytes, where: int, name: str) -> None:
    """Any bit of body or signature counts."""
    provider = PROVIDERS[name]
    secret = shown = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
    if name == "discord":
        secret, shown = _pem("ed25519")
    signed = sign(provider, secret, Delivery(body=body), now_ms=NOW_MS, delivery_id="id-1")
    if body:
        changed = bytearray(body)
        changed[where % len(body)] ^= 1 << (where % 8)
        assert code(verify(provider.scheme, [shown], replace(signed, body=bytes(changed)), NOW_MS)) is not None
    assert isinstance(provider.scheme, Signature)
    header = provider.scheme.signature.header
    text = signed.headers[header]
    at = text.index(provider.scheme.signature.prefix) + len(provider.scheme.signature.prefix)
    at += where % (len(text) - at - 2)  # the last of base64 may hold bits that mean nothing
    other = "0" if text[at] != "0" else "1"
    forged = CIMultiDict(signed.headers)
    forged[header] = text[:at] + other + text[at + 1 :]
    assert code(verify(provider.scheme, [shown], replace(signed, headers=forged), NOW_MS)) == "signature_wrong"


@given(
    st.sampled_from(list(PROVIDERS)),
    st.dictionaries(st.sampled_from(["Content-Type", "Authorization", "X-Signature", "Stripe-Signature"]), st.text()),
    st.binary(max_size=200),
    st.text(max_size=40),
)
def test_nonsense_is_refused_and_breaks_nothing(name: str, headers: dict[str, str], body: bytes, url: str) -> None:
    """Whatever a stranger sends ends in a refusal, or a key that is asked for; never an exception."""
    scheme = PROVIDERS[name].scheme
    values = dict(headers)
    if isinstance(scheme, Signature | Token | Jwt):
        where = scheme.signature if isinstance(scheme, Signature) else scheme.token
        if where.header:
            values[where.header] = where.prefix + url
    delivery = Delivery(url=url, headers=CIMultiDict(values), body=body)
    assert isinstance(verify(scheme, ["00" * 32], delivery, NOW_MS), Refusal | KeyNeeded)
    handshake(PROVIDERS[name], ["00" * 32], delivery, verified=False)
    handshake(PROVIDERS[name], ["00" * 32], delivery, verified=True)


def test_a_secret_that_is_no_key_is_the_owners_mistake() -> None:
    """503, so that the sender keeps what it has; and no sender learns the secret."""
    for name, secret in (("adyen", "no hex"), ("standard-webhooks", "%%"), ("discord", "no key"), ("plaid", "{}")):
        vector = next(v for v in VECTORS if v.provider == name)
        verdict = vector.verdict(secrets=[secret])
        assert isinstance(verdict, Refusal) and verdict.code == "secret_unusable" and verdict.status == 503
        assert secret not in verdict.reason


def test_twilio_signs_the_digest_of_what_is_no_form() -> None:
    """Without that digest a signed URL would carry any body."""
    scheme = PROVIDERS["twilio"].scheme
    delivery = Delivery(url="https://a.example/x?y=1", body=b'{"a": 1}')
    signed = sign(PROVIDERS["twilio"], "12345", delivery, now_ms=NOW_MS, delivery_id="i")
    assert signed.url.endswith(hashlib.sha256(b'{"a": 1}').hexdigest())
    assert verify(scheme, ["12345"], signed, NOW_MS) is None
    assert code(verify(scheme, ["12345"], replace(signed, body=b'{"a": 2}'), NOW_MS)) == "signature_wrong"
    bare = sign(PROVIDERS["twilio"], "12345", replace(delivery, url="https://a.example/x"), now_ms=0, delivery_id="i")
    stripped = replace(bare, url="https://a.example/x", body=b"{}")
    assert code(verify(scheme, ["12345"], stripped, NOW_MS)) == "signature_wrong"


def test_hubspot_decodes_a_few_characters_of_the_url() -> None:
    secret, url = "app secret", "https://h.example/w?to=%3Aa%2Fb%20c%26"
    signed_url = "https://h.example/w?to=:a/b%20c%26"
    text = f"POST{signed_url}{{}}{NOW_MS}".encode()
    signature = base64.b64encode(hashlib.sha256().digest())
    import hmac

    signature = base64.b64encode(hmac.digest(secret.encode(), text, "sha256"))
    headers = {"X-HubSpot-Signature-v3": signature.decode(), "X-HubSpot-Request-Timestamp": str(NOW_MS)}
    delivery = Delivery(url=url, headers=CIMultiDict(headers), body=b"{}")
    assert verify(PROVIDERS["hubspot"].scheme, [secret], delivery, NOW_MS) is None


def test_plaid_asks_for_its_key_by_the_id_in_the_token() -> None:
    """An id that Plaid does not know has an empty key, and opens nothing."""
    (vector,) = (v for v in VECTORS if v.provider == "plaid")
    scheme = PROVIDERS["plaid"].scheme
    asked = verify(scheme, ["client:secret"], vector.delivery, vector.now_ms)
    assert asked == KeyNeeded("plaid", "k1")
    keys = {"k1": vector.secret.encode()}
    assert verify(scheme, ["client:secret"], vector.delivery, vector.now_ms, keys) is None
    assert code(verify(scheme, ["client:secret"], vector.delivery, vector.now_ms + 301_000, keys)) == "timestamp_off"
    assert code(verify(scheme, ["client:secret"], vector.delivery, vector.now_ms, {"k1": b""})) == "signature_wrong"


def test_a_token_of_another_algorithm_opens_nothing() -> None:
    """`none`, and a public key used as a shared secret."""
    scheme = Jwt(token=Source(header="T"), algorithms=("ES256",))
    _, public = _pem("ecdsa")
    claims = base64.urlsafe_b64encode(orjson.dumps({"iat": NOW_MS // 1000})).decode().rstrip("=")
    for algorithm in ("none", "HS256"):
        head = base64.urlsafe_b64encode(orjson.dumps({"alg": algorithm, "typ": "JWT"})).decode().rstrip("=")
        delivery = Delivery(headers=CIMultiDict({"T": f"{head}.{claims}."}))
        assert code(verify(scheme, [public], delivery, NOW_MS)) == "signature_wrong"


# Amazon SNS.

TOPIC = "arn:aws:sns:eu-west-1:111111111111:orders"
CERTIFICATE_URL = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"


@pytest.fixture(scope="module")
def amazon() -> tuple[rsa.RSAPrivateKey, bytes]:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    start = datetime.fromtimestamp(NOW_MS / 1000, UTC) - timedelta(days=1)
    certificate = (x509.CertificateBuilder(name, name, key.public_key(), 1, start, start + timedelta(days=30))).sign(
        key, hashes.SHA256()
    )
    return key, certificate.public_bytes(serialization.Encoding.PEM)


def notification(key: rsa.RSAPrivateKey, version: str = "2", **changes: str) -> Delivery:
    message = {
        "Type": "Notification",
        "MessageId": "m-1",
        "TopicArn": TOPIC,
        "Subject": "s",
        "Message": "line\nline",
        "Timestamp": "2025-06-15T15:06:40.000Z",
        "SignatureVersion": version,
        "SigningCertURL": CERTIFICATE_URL,
        "UnsubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=Unsubscribe",
    }
    message |= {name: value for name, value in changes.items() if not name.startswith("after_")}
    names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    if message["Type"] != "Notification":
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{message[name]}\n" for name in names if name in message)
    digest = hashes.SHA1() if version == "1" else hashes.SHA256()
    message["Signature"] = base64.b64encode(key.sign(text.encode(), padding.PKCS1v15(), digest)).decode()
    message |= {name.removeprefix("after_"): value for name, value in changes.items() if name.startswith("after_")}
    headers = CIMultiDict({"Content-Type": "text/plain; charset=UTF-8", "x-amz-sns-message-type": message["Type"]})
    return Delivery(headers=headers, body=orjson.dumps(message))


def sns(delivery: Delivery, keys: Mapping[str, bytes], now_ms: int = NOW_MS) -> object:
    return verify(PROVIDERS["sns"].scheme, [TOPIC], delivery, now_ms, keys)


@pytest.mark.parametrize("version", ["1", "2"])
def test_sns_is_checked_by_its_certificate(amazon: tuple[rsa.RSAPrivateKey, bytes], version: str) -> None:
    key, certificate = amazon
    keys = {CERTIFICATE_URL: certificate}
    delivery = notification(key, version)
    assert sns(delivery, {}) == KeyNeeded("certificate", CERTIFICATE_URL)
    assert sns(delivery, keys) is None
    assert delivery.read(PROVIDERS["sns"].delivery_id or Source()) == ["m-1"]
    assert code(sns(notification(key, version, after_Message="other"), keys)) == "signature_wrong"
    assert code(sns(notification(key, version, TopicArn="arn:aws:sns:eu-west-1:2:else"), keys)) == "signature_wrong"
    assert code(sns(delivery, {CERTIFICATE_URL: b""})) == "signature_wrong"
    assert code(sns(delivery, keys, NOW_MS + 60 * 86_400_000)) == "signature_wrong"


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-west-1.amazonaws.com/a.pem",
        "https://sns.eu-west-1.amazonaws.com.evil.example/a.pem",
        "https://evil.example/sns.eu-west-1.amazonaws.com/a.pem",
        "https://sns.eu-west-1.amazonaws.com@evil.example/a.pem",
        "https://sns.eu-west-1.amazonaws.com:8443/a.pem",
        "https://bucket.s3.amazonaws.com/a.pem",
        "https://sns.eu-west-1.amazonaws.com/a.txt",
        "https://[::1/a.pem",
        "",
    ],
)
def test_sns_certificates_come_from_amazon_alone(amazon: tuple[rsa.RSAPrivateKey, bytes], url: str) -> None:
    """A message cannot bring a certificate of its own."""
    delivery = notification(amazon[0], SigningCertURL=url)
    assert code(sns(delivery, {url: amazon[1]})) == "signature_wrong"


# Handshakes.


def shake(name: str, delivery: Delivery, *, verified: bool, secrets: list[str] | None = None, **more: Any) -> object:
    return handshake(PROVIDERS[name], secrets or ["secret"], delivery, verified=verified, **more)


def test_slack_gets_its_challenge_back() -> None:
    delivery = Delivery(body=b'{"type": "url_verification", "challenge": "3eZb \\u00e9"}')
    assert shake("slack", delivery, verified=False) is None, "only who can sign gets an answer"
    reply = shake("slack", delivery, verified=True)
    assert isinstance(reply, Reply) and orjson.loads(reply.body) == {"challenge": "3eZb é"}
    assert shake("slack", Delivery(body=b'{"type": "event_callback", "challenge": "x"}'), verified=True) is None


def test_meta_gets_its_challenge_for_the_right_token() -> None:
    url = "https://a.example/w?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token="
    delivery = Delivery(method="GET", url=url + "agreed")
    assert shake("meta", delivery, verified=False, verify_token="agreed") == Reply(b"1158201444", "text/plain")
    assert shake("meta", delivery, verified=False, secrets=["agreed"]) == Reply(b"1158201444", "text/plain")
    refusal = shake("meta", delivery, verified=False, verify_token="other")
    assert isinstance(refusal, Refusal) and refusal.status == 401


def test_twitter_and_zoom_get_a_digest() -> None:
    """Zoom's plain token is that of its documentation."""
    crc = Delivery(method="GET", url="https://a.example/w?crc_token=challenge_string")
    reply = shake("twitter", crc, verified=False)
    assert isinstance(reply, Reply)
    assert orjson.loads(reply.body) == {
        "response_token": "sha256=" + base64.b64encode(_hmac(b"secret", b"challenge_string")).decode()
    }
    zoom = Delivery(body=b'{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"}}')
    reply = shake("zoom", zoom, verified=True)
    assert isinstance(reply, Reply)
    assert orjson.loads(reply.body) == {
        "plainToken": "qgg8vlvZRS6UYooatFL8Aw",
        "encryptedToken": _hmac(b"secret", b"qgg8vlvZRS6UYooatFL8Aw").hex(),
    }


def _hmac(key: bytes, text: bytes) -> bytes:
    import hmac

    return hmac.digest(key, text, "sha256")


def test_discord_pings_and_commands() -> None:
    """A ping is answered and makes no row; a command is a post whose answer says: later."""
    assert shake("discord", Delivery(body=b'{"type": 1}'), verified=True) == Reply(b'{"type":1}')
    assert shake("discord", Delivery(body=b'{"type": 2}'), verified=True) is None
    assert PROVIDERS["discord"].accepted == {"type": 5}


def test_the_others() -> None:
    microsoft = Delivery(url="https://a.example/w?validationToken=Validation%3a+x")
    assert shake("microsoft-graph", microsoft, verified=False) == Reply(b"Validation: x", "text/plain")
    dropbox = Delivery(method="GET", url="https://a.example/w?challenge=abc")
    assert shake("dropbox", dropbox, verified=False) == Reply(b"abc", "text/plain")
    okta = Delivery(method="GET", headers=CIMultiDict({"x-okta-verification-challenge": "c"}))
    assert shake("okta", okta, verified=False) == Reply(b'{"verification":"c"}')
    assert shake("github", dropbox, verified=False) is None
    assert shake("dropbox", Delivery(method="GET", url="https://a/?challenge=" + "x" * 2000), verified=False) is None


def test_sns_is_subscribed_by_a_visit_to_amazon(amazon: tuple[rsa.RSAPrivateKey, bytes]) -> None:
    url = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=t"
    delivery = notification(amazon[0], Type="SubscriptionConfirmation", SubscribeURL=url, Token="t")
    assert sns(delivery, {CERTIFICATE_URL: amazon[1]}) is None
    assert shake("sns", delivery, verified=True) == Visit(url)
    other = notification(amazon[0], Type="SubscriptionConfirmation", SubscribeURL="http://169.254.169.254/", Token="t")
    assert isinstance(shake("sns", other, verified=True), Refusal)


# Addresses and pointers.


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ("192.0.2.7", True),
        ("192.0.3.7", False),
        ("::ffff:192.0.2.7", True),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("", False),
        ("no address", False),
    ],
)
def test_addresses(address: str, good: bool) -> None:
    """Networks of both kinds; an address inside the other kind counts as what it is."""
    refusal = address_refusal(["192.0.2.0/24", "2001:db8::/32"], address)
    assert (refusal is None) == good
    assert refusal is None or refusal.status == 403
    assert address_refusal([], address) is None


def test_pointers() -> None:
    document = {"a": [{"b": 1}, {"b": 2}, {}], "m/n": {"~": 3}, "": 4}
    assert find(document, "/a/*/b") == [1, 2]
    assert find(document, "/a/1/b") == [2]
    assert find(document, "/m~1n/~0") == [3]
    assert find(document, "/") == [4]
    assert find(document, "/a/9") == find(document, "/a/-1") == find(document, "/x/y") == find(5, "/a") == []
    assert is_pointer("/a~0b") and not is_pointer("a") and not is_pointer("/a~2") and not is_pointer("")


def test_what_is_read_before_the_sender_is_known_is_bounded() -> None:
    """Strangers cannot make us parse megabytes of fields or millions of brackets."""
    form = Delivery(headers=CIMultiDict({"Content-Type": "application/x-www-form-urlencoded"}), body=b"a=b&" * 300_000)
    assert form.form == []
    assert Delivery(body=b"[" + b"[]," * 200_000 + b"0]").document is None
    assert Delivery(url="https://a/?" + "a=b&" * 2_000).query == []


def test_forms_of_both_kinds_are_read() -> None:
    """Dropbox Sign posts its JSON in a field of a multipart form."""
    (vector,) = (v for v in VECTORS if v.provider == "dropbox-sign")
    boundary = "xyz"
    body = b'--xyz\r\nContent-Disposition: form-data; name="json"\r\n\r\n' + vector.delivery.body + b"\r\n--xyz--\r\n"
    headers = CIMultiDict({"Content-Type": f"multipart/form-data; boundary={boundary}"})
    assert vector.verdict(headers=headers, body=body) is None
    assert Basic() == PROVIDERS["basic"].scheme
