"""Keys and certificates of clients, made once: they cost more than most tests."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from functools import cache
from ssl import DER_cert_to_PEM_cert
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from refused.jwts import Json, Jws, Sign, b64, eddsa, es256, jwk_of

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@cache
def key(kind: str, number: int = 0) -> Private:
    """A private key: `Ed25519`, `P-256`, `P-384`, `RSA` (2048 bits), `RSA-1024`; another one for another number."""
    match kind:
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "RSA" | "RSA-1024":
            return rsa.generate_private_key(65537, 1024 if kind == "RSA-1024" else 2048)
        case _:
            return ec.generate_private_key(ec.SECP256R1() if kind == "P-256" else ec.SECP384R1())


def jwk(kind: str, number: int = 0, **more: Any) -> Json:
    """The public half as a JWK."""
    private = key(kind, number)
    if isinstance(private, rsa.RSAPrivateKey):
        numbers = private.public_key().public_numbers()
        n = b64(numbers.n.to_bytes(private.key_size // 8, "big"))
        return {"kty": "RSA", "n": n, "e": "AQAB"} | more
    if kind == "P-384":
        point = private.public_key().public_numbers()  # type: ignore[union-attr]
        x, y = (b64(number.to_bytes(48, "big")) for number in (point.x, point.y))
        return {"kty": "EC", "crv": "P-384", "x": x, "y": y} | more
    return {name: value for name, value in jwk_of(private, "").items() if name != "kid"} | more  # type: ignore[arg-type]


def sign(kind: str, number: int = 0) -> Sign:
    """What signs with the key by the only algorithm that fits it."""
    private = key(kind, number)
    if isinstance(private, rsa.RSAPrivateKey):
        pss = padding.PSS(padding.MGF1(SHA256()), 32)
        return lambda signed: private.sign(signed, pss, SHA256())
    return eddsa(private) if isinstance(private, ed25519.Ed25519PrivateKey) else es256(private)


ALGORITHM = {"Ed25519": "EdDSA", "P-256": "ES256", "RSA": "PS256"}


@cache
def certificate(
    kind: str = "P-256", number: int = 0, dn: str = "CN=silo-a,O=Hospital", days: tuple[int, int] = (-1, 1)
) -> x509.Certificate:
    """A self-signed certificate of the subject, valid between these days from the tests' noon."""
    name, private = x509.Name.from_rfc4514_string(dn), key(kind, number)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOON + timedelta(days=days[0]))
        .not_valid_after(NOON + timedelta(days=days[1]))
    )
    return built.sign(private, None if kind == "Ed25519" else SHA256())


def pem(shown: x509.Certificate) -> bytes:
    """As a file holds it."""
    return shown.public_bytes(Encoding.PEM)


def x5c(shown: x509.Certificate) -> list[str]:
    """As a JWK holds it (RFC 7517, section 4.7)."""
    return [b64encode(shown.public_bytes(Encoding.DER)).decode()]


def of_unknown_version(shown: x509.Certificate) -> bytes:
    """Its DER with a version that no standard knows; OpenSSL, and so nginx, does not look at it."""
    version, unknown = b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05"
    return shown.public_bytes(Encoding.DER).replace(version, unknown, 1)


def with_bits_for_a_name(shown: x509.Certificate) -> bytes:
    """Its DER with a BIT STRING where the subject's and the issuer's name have a text."""
    return shown.public_bytes(Encoding.DER).replace(b"\x0c\x06silo-a", b"\x03\x06\x00ilo-a")


def from_nginx(shown: x509.Certificate | bytes, verdict: str = "SUCCESS") -> dict[str, str]:
    """The headers that nginx sets for a certificate, or for its DER: `$ssl_client_escaped_cert`, `…_verify`."""
    text = DER_cert_to_PEM_cert(shown) if isinstance(shown, bytes) else pem(shown).decode()
    return {"X-SSL-Client-Cert": quote(text, safe=""), "X-SSL-Client-Verify": verdict}


def assertion_form(client_id: str, audience: str, now: datetime) -> dict[str, str]:
    """A token request with a new assertion, signed with the first Ed25519 key, which needs no name."""
    now_s = now.timestamp()
    claims = {"iss": client_id, "sub": client_id, "aud": audience, "jti": str(uuid4())}
    assertion = Jws({"alg": "EdDSA"}, claims | {"iat": now_s, "exp": now_s + 60}, sign("Ed25519"))
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    return {
        "grant_type": "client_credentials",
        "client_assertion_type": kind,
        "client_assertion": str(assertion),
    }


def key_set(*keys: Json) -> Json:
    """A JWK set, as JSON would bring it."""
    return json.loads(json.dumps({"keys": list(keys)}))
