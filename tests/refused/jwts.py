"""JSON Web Signatures made by hand, so that a test can make every wrong one (RFC 7515); no library of the gateway's."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

Json = dict[str, Any]
Sign = Callable[[bytes], bytes]
_COORDINATE_BYTES = 32


def b64(data: bytes) -> str:
    """Base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass(frozen=True, slots=True)
class Jws:
    """A JWS before it is written: change a part, then write it."""

    header: Json
    claims: Json
    sign: Sign

    def but(self, **claims: Any) -> Jws:
        """With other claims; None leaves one out."""
        changed = {name: value for name, value in (self.claims | claims).items() if value is not None}
        return replace(self, claims=changed)

    def headed(self, **header: Any) -> Jws:
        """With other header members; None leaves one out."""
        changed = {name: value for name, value in (self.header | header).items() if value is not None}
        return replace(self, header=changed)

    def signed_by(self, sign: Sign) -> Jws:
        return replace(self, sign=sign)

    def __str__(self) -> str:
        return written(json.dumps(self.header), json.dumps(self.claims), self.sign)


def written(header: str, claims: str, sign: Sign) -> str:
    """The compact form of these very texts."""
    signed = f"{b64(header.encode())}.{b64(claims.encode())}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def read(text: str) -> tuple[Json, Json]:
    """Header and claims of a compact JWS, unchecked."""
    header, claims, _ = text.split(".")
    return json.loads(unb64(header)), json.loads(unb64(claims))


def nothing(_signed: bytes) -> bytes:
    """The signature of `alg: none`."""
    return b""


def hs256(key: bytes) -> Sign:
    """HMAC with SHA-256 (RFC 7518, section 3.2)."""
    return lambda signed: hmac.digest(key, signed, "sha256")


def eddsa(key: ed25519.Ed25519PrivateKey) -> Sign:
    """Ed25519 (RFC 8037)."""
    return key.sign


def es256(key: ec.EllipticCurvePrivateKey) -> Sign:
    """ECDSA on P-256 with SHA-256, r and s side by side (RFC 7518, section 3.4)."""

    def sign(signed: bytes) -> bytes:
        pair = decode_dss_signature(key.sign(signed, ec.ECDSA(SHA256())))
        return b"".join(number.to_bytes(_COORDINATE_BYTES, "big") for number in pair)

    return sign


def jwk_of(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, kid: str) -> Json:
    """The public half as a JWK (RFC 7518, section 6.2; RFC 8037)."""
    public = key.public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes_raw()), "kid": kid}
    numbers = public.public_numbers()
    x, y = (b64(number.to_bytes(_COORDINATE_BYTES, "big")) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid}
