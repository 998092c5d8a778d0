"""The public keys that a client proves itself with (RFC 7517): judged when they are registered, compared later."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from ssl import DER_cert_to_PEM_cert
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.auth.client_certificate import ClientCertificate, read_certificate
from gateway.auth.jose import read_key
from gateway.auth.roster import AuthMethod
from gateway.errors import BadRequest

if TYPE_CHECKING:
    from joserfc.jwk import Key

MOST_KEYS = 10
LONGEST_KID = 256
SHORTEST_RSA_BITS, LONGEST_RSA_BITS = 2048, 8192
_CURVES = ("P-256", "P-384", "P-521", "Ed25519")
_KINDS = ("EC", "OKP", "RSA")
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_KEPT = ("kty", "crv", "x", "y", "n", "e", "kid", "alg", "use", "x5c")


class KeySetRefused(BadRequest):
    """The keys of a client cannot be taken."""

    code, title = "KEY_SET_INVALID", "The client's keys cannot be taken"


def checked_key_set(told: object, method: AuthMethod) -> dict[str, Any]:
    """The JWK set as it is kept: public members that somebody reads, and nothing else.

    Args:
        told: the JSON value that the operator gave.
        method: what the keys are to prove: an assertion's signature, or a certificate.

    Raises:
        KeySetRefused: it is no set of 1 to 10 public keys that are good for that.
    """
    keys = told.get("keys") if isinstance(told, dict) else None
    if not isinstance(keys, list) or not 1 <= len(keys) <= MOST_KEYS:
        raise KeySetRefused(f'A JWK set is wanted: {{"keys": […]}} with 1 to {MOST_KEYS} public keys')
    kept = [_checked(key, number, method) for number, key in enumerate(keys, 1)]
    kids = [key["kid"] for key in kept if "kid" in key]
    if len(kids) != len(set(kids)):
        raise KeySetRefused("Two keys have the same kid: each needs one of its own")
    if len(kept) > 1 and len(kids) < len(kept):
        raise KeySetRefused("With several keys, each needs a kid")
    if len({_public_der(_imported(key)) for key in kept}) < len(kept):
        raise KeySetRefused("A key is given twice")
    return {"keys": kept}


def has_certificate(jwks: Mapping[str, Any], certificate: ClientCertificate) -> bool:
    """Whether a certificate is one of a set's: it is the key's `x5c`, or where that is missing, has the key."""
    for key in jwks["keys"]:
        if "x5c" in key:
            if base64.b64decode(key["x5c"][0]) == certificate.der:
                return True
        elif _public_der(_imported(key)) == certificate.public_key:
            return True
    return False


def _checked(key: object, number: int, method: AuthMethod) -> dict[str, Any]:
    """One key, judged; it is spoken of by its place, for it may be a secret."""
    if not isinstance(key, dict):
        raise KeySetRefused(f"Key {number} is no JSON object")
    if key.get("kty") == "oct" or not _PRIVATE.isdisjoint(key):
        raise KeySetRefused(
            f"Key {number} is secret, and now known to whoever read it: make a new one, and give its public part"
        )
    if key.get("kty") not in _KINDS or ("crv" in key and key["crv"] not in _CURVES):
        raise KeySetRefused(f"Key {number} is of a kind that is not taken: Ed25519, P-256 or RSA is")
    _check_words(key, number)
    if key["kty"] == "RSA" and not SHORTEST_RSA_BITS <= _rsa_bits(key.get("n")) <= LONGEST_RSA_BITS:
        raise KeySetRefused(f"The n of key {number} must have {SHORTEST_RSA_BITS} to {LONGEST_RSA_BITS} bits")
    kept = {name: key[name] for name in _KEPT if name in key}
    imported = _imported(kept)
    if imported is None:
        raise KeySetRefused(f"Key {number} cannot be read (RFC 7517, RFC 7518, section 6)")
    if method is AuthMethod.PRIVATE_KEY_JWT and read_key(kept) is None:
        raise KeySetRefused(
            f"Key {number} cannot sign assertions here: Ed25519 (EdDSA), P-256 (ES256) or RSA (PS256) can"
        )
    if "x5c" in kept:
        _check_chain(kept, number, _public_der(imported))
    return kept


def _check_words(key: Mapping[str, Any], number: int) -> None:
    kid = key.get("kid", "a")
    if not isinstance(kid, str) or not 0 < len(kid) <= LONGEST_KID:
        raise KeySetRefused(f"The kid of key {number} must be a text of 1 to {LONGEST_KID} characters")
    if key.get("use", "sig") != "sig" or key.get("key_ops", ["verify"]) != ["verify"]:
        raise KeySetRefused(f"Key {number} is not for signatures: its use must be sig, its key_ops verify")


def _check_chain(key: Mapping[str, Any], number: int, public_der: bytes) -> None:
    """The first certificate of `x5c` holds the very key (RFC 7517, section 4.7)."""
    try:
        held = read_certificate(_pem(key["x5c"][0])).public_key
    except (ValueError, TypeError, LookupError):
        raise KeySetRefused(f"The x5c of key {number} is no list of certificates (base64 of DER)") from None
    if held != public_der:
        raise KeySetRefused(f"The certificate of key {number} holds another key")


def _pem(der: str) -> bytes:
    return DER_cert_to_PEM_cert(base64.b64decode(der, validate=True)).encode()


def _rsa_bits(modulus: object) -> int:
    """How long a modulus is; 0 if it is none."""
    if not isinstance(modulus, str):
        return 0
    try:
        number = base64.urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4))
    except (binascii.Error, ValueError):
        return 0
    return int.from_bytes(number).bit_length()


def _imported(key: Mapping[str, Any]) -> Key | None:
    from joserfc.errors import JoseError
    from joserfc.jwk import import_key  # its loading takes a tenth of a second

    try:
        return import_key({name: key[name] for name in _KEPT[:6] if name in key})
    except (JoseError, ValueError, TypeError, OverflowError):
        return None


def _public_der(key: Key | None) -> bytes:
    public = key.public_key if key else b""
    if isinstance(public, bytes):
        return b""
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
