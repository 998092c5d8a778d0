"""Public keys that check JWTs: from JWK sets (RFC 7517, 7518, 8037), each with the algorithms that it goes with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeGuard

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

ALGORITHMS = ("EdDSA", "Ed25519", "ES256", "PS256")
OUTSIDE_ALGORITHMS = (*ALGORITHMS, "RS256")  # the last one only where an outside issuer is configured so
SHORTEST_RSA_BITS = 2048
LONGEST_KID = 256
PublicKey = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey

_EDDSA = ("EdDSA", "Ed25519")  # two names of the same (RFC 9864)
_P = 2**255 - 19
_Y_OF_ORDER_8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
# The y of each point whose order divides 8, and 0 and 1 as they may be written a second time.
_Y_OF_SMALL_ORDER = frozenset({0, 1, _P - 1, _P, _P + 1, _Y_OF_ORDER_8, _P - _Y_OF_ORDER_8})
_KEY_MEMBERS = ("kty", "crv", "x", "y", "n", "e")


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, and the algorithms that it may be used with."""

    kid: str
    algorithms: tuple[str, ...]
    public: PublicKey = field(repr=False)


def read_keys(jwks: object, algorithms: tuple[str, ...] = ALGORITHMS) -> dict[str, Key]:
    """The usable public keys of a JWK set (RFC 7517), by `kid`, or by thumbprint (RFC 7638) where there is none.

    A key that is of no use to us is passed over (RFC 7517, section 5): of another kind, for another purpose, too short,
    malformed, of small order, or named like one before it; what is no JWK set at all has none.
    """
    members = jwks.get("keys") if isinstance(jwks, Mapping) else None
    if not isinstance(members, list):
        return {}
    keys: dict[str, Key] = {}
    for key in (read_key(member, algorithms) for member in members):
        if key is not None:
            keys.setdefault(key.kid, key)
    return keys


def read_key(jwk: object, algorithms: tuple[str, ...] = ALGORITHMS) -> Key | None:
    """A public key from a JWK, good for those of the algorithms that fit, or None if it is of no use to us."""
    from joserfc.errors import JoseError
    from joserfc.jwk import import_key  # its loading takes a tenth of a second

    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig" or _is_short(jwk):
        return None
    try:
        found = import_key({name: jwk[name] for name in _KEY_MEMBERS if name in jwk})
        public, kid = found.public_key, jwk.get("kid") or found.thumbprint()
    except (JoseError, LookupError, ValueError, TypeError, OverflowError):
        return None
    if not isinstance(kid, str) or len(kid) > LONGEST_KID or not _is_usable(public):
        return None
    fitting = tuple(name for name in _fitting(public, jwk.get("alg")) if name in algorithms)
    return Key(kid, fitting, public) if fitting else None


def proves_nothing(public: bytes) -> bool:
    """Whether a raw Ed25519 key (RFC 8032, section 5.1.2) is of small order: one signature of it fits any message."""
    return int.from_bytes(public, "little") & (2**255 - 1) in _Y_OF_SMALL_ORDER


def ed25519_key(kid: str, public: bytes) -> Key:
    """One of our own public keys."""
    return Key(kid, _EDDSA, Ed25519PublicKey.from_public_bytes(public))


def _is_short(jwk: Mapping[str, object]) -> bool:
    """Whether it is an RSA key that joserfc would warn of."""
    modulus = jwk.get("n", "")
    return jwk.get("kty") == "RSA" and isinstance(modulus, str) and len(modulus) * 6 < SHORTEST_RSA_BITS


def _is_usable(public: object) -> TypeGuard[PublicKey]:
    if isinstance(public, EllipticCurvePublicKey):
        return isinstance(public.curve, SECP256R1)
    if isinstance(public, RSAPublicKey):
        return public.key_size >= SHORTEST_RSA_BITS
    return isinstance(public, Ed25519PublicKey) and not proves_nothing(public.public_bytes_raw())


def _fitting(public: PublicKey, told: object) -> tuple[str, ...]:
    """The algorithms that a key may be used with: those of its kind, and only the one that it names."""
    if isinstance(public, Ed25519PublicKey):
        return _EDDSA if told in (None, *_EDDSA) else ()
    fitting = ("ES256",) if isinstance(public, EllipticCurvePublicKey) else ("PS256", "RS256")
    return tuple(name for name in fitting if told in (None, name))
