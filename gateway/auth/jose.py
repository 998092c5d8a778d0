"""Signed JWTs of anybody, read strictly: compact JWS (RFC 7515, 7519), pinned algorithms (RFC 8725), no surprises.

Reading costs no signature and no key; nothing that a stranger can send raises anything but `BadJwt`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from gateway.auth.jwk import (
    ALGORITHMS,
    LONGEST_KID,
    OUTSIDE_ALGORITHMS,
    Key,
    ed25519_key,
    read_key,
    read_keys,
)

__all__ = [
    "ALGORITHMS",
    "OUTSIDE_ALGORITHMS",
    "BadJwt",
    "Fault",
    "Key",
    "ReadJwt",
    "certificate_binding",
    "check_audience",
    "check_issuer",
    "check_times",
    "check_type",
    "ed25519_key",
    "looks_signed",
    "read_jwt",
    "read_key",
    "read_keys",
    "scope_words",
    "text_claim",
    "time_claim",
    "verify_jwt",
]

LONGEST_JWT = 8192

_FORBIDDEN = ("crit", "jku", "x5u", "jwk", "x5c", "zip", "b64")
_PART = re.compile(r"[A-Za-z0-9_-]+")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")
_ES256_HALF = 32


class Fault(StrEnum):
    """Why a JWT is not taken; a stable word, for the log and for tests."""

    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    HEADER = "header"
    TYPE = "type"
    KEY = "key"
    SIGNATURE = "signature"
    EXPIRED = "expired"
    EARLY = "early"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    CLAIM = "claim"
    BINDING = "binding"


class BadJwt(Exception):
    """A text that is no JWT we take; it carries a `Fault`, and nothing of the text."""

    def __init__(self, reason: Fault) -> None:
        super().__init__(f"the JWT is not taken: {reason.value}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ReadJwt:
    """A JWT that is well-formed; whether anybody signed it is not known yet."""

    header: Mapping[str, Any] = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)
    text: str = field(repr=False)

    @property
    def algorithm(self) -> str:
        """The `alg`, one of `ALGORITHMS`."""
        return str(self.header["alg"])

    @property
    def kid(self) -> str | None:
        """The name of the key that is said to have signed it."""
        return self.header.get("kid")

    @property
    def typ(self) -> str:
        """The `typ` in lower case, without `application/` (RFC 7515, section 4.1.9); empty if there is none."""
        return str(self.header.get("typ", "")).lower().removeprefix("application/")


def read_jwt(text: str, algorithms: tuple[str, ...] = ALGORITHMS) -> ReadJwt:
    """Take a compact JWS with a JSON object in it apart.

    Raises:
        BadJwt: it is too long, not three parts of canonical base64url, not JSON objects, names a member twice,
            has another algorithm than these, or brings its own key, or an extension.
    """
    parts = text.split(".", 3) if len(text) <= LONGEST_JWT else []
    if len(parts) != 3:
        raise BadJwt(Fault.MALFORMED)
    header = _header(parts[0], algorithms)
    _decoded(parts[2])
    return ReadJwt(header, _object(parts[1]), text)


def verify_jwt(jwt: ReadJwt, keys: Mapping[str, Key]) -> None:
    """Check the signature with the key that the header names; without a name, with the only key there is.

    Raises:
        BadJwt: there is no such key, its kind does not go with the algorithm, or it did not sign this.
    """
    only = next(iter(keys)) if len(keys) == 1 else ""
    key = keys.get(jwt.kid if jwt.kid is not None else only)
    if key is None or jwt.algorithm not in key.algorithms:
        raise BadJwt(Fault.KEY)
    signed, _, signature = jwt.text.rpartition(".")
    try:
        _CHECKS[jwt.algorithm](key.public, _decoded(signature), signed.encode())
    except InvalidSignature:
        raise BadJwt(Fault.SIGNATURE) from None


def check_type(jwt: ReadJwt, *wanted: str) -> None:
    """Demand one of these `typ`; no other kind of JWT can be taken for this one (RFC 8725, section 3.11).

    Raises:
        BadJwt: there is none, or another.
    """
    if jwt.typ not in wanted:
        raise BadJwt(Fault.TYPE)


def check_times(claims: Mapping[str, Any], now: datetime, leeway_s: float = 0.0) -> None:
    """Demand `exp` in the future, and `nbf` and `iat`, if there, in the past.

    Raises:
        BadJwt: it is over, not valid yet, or a time is no number.
    """
    now_s = now.timestamp()
    if time_claim(claims, "exp") <= now_s - leeway_s:
        raise BadJwt(Fault.EXPIRED)
    if any(time_claim(claims, name) > now_s + leeway_s for name in ("nbf", "iat") if name in claims):
        raise BadJwt(Fault.EARLY)


def check_audience(claims: Mapping[str, Any], wanted: str) -> None:
    """Demand that it is meant for exactly this receiver, perhaps among others.

    Raises:
        BadJwt: `aud` is missing, no string or list of strings, or names others.
    """
    told = claims.get("aud")
    audiences = told if isinstance(told, list) else [told]
    if not all(isinstance(audience, str) for audience in audiences):
        raise BadJwt(Fault.CLAIM)
    if wanted not in audiences:
        raise BadJwt(Fault.AUDIENCE)


def check_issuer(claims: Mapping[str, Any], wanted: str) -> None:
    """Demand exactly this `iss`, character by character.

    Raises:
        BadJwt: it is missing or another.
    """
    if claims.get("iss") != wanted:
        raise BadJwt(Fault.ISSUER)


def text_claim(claims: Mapping[str, Any], name: str) -> str:
    """A claim that must be there and a string with something in it.

    Raises:
        BadJwt: it is not.
    """
    told = claims.get(name)
    if not isinstance(told, str) or not told:
        raise BadJwt(Fault.CLAIM)
    return told


def time_claim(claims: Mapping[str, Any], name: str) -> float:
    """A claim that must be there and a NumericDate (RFC 7519, section 2), in epoch seconds.

    Raises:
        BadJwt: it is not.
    """
    told = claims.get(name)
    if isinstance(told, bool) or not isinstance(told, int | float) or not 0 <= told < _LAST_S:
        raise BadJwt(Fault.CLAIM)
    return float(told)


def scope_words(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """The words of `scope`, a string with blanks between them (RFC 8693, section 4.2): no list, no number.

    Raises:
        BadJwt: it is not.
    """
    told = claims.get("scope")
    if not isinstance(told, str):
        raise BadJwt(Fault.CLAIM)
    return tuple(word for word in told.split(" ") if word)


def certificate_binding(claims: Mapping[str, Any]) -> str | None:
    """The `x5t#S256` of the certificate that must come with the token (RFC 8705, section 3.1); None if it is not bound.

    Raises:
        BadJwt: `cnf` is malformed, or binds it to something that we cannot check, such as a DPoP key.
    """
    if "cnf" not in claims:
        return None
    bound = claims["cnf"]
    thumbprint = bound.get("x5t#S256") if isinstance(bound, dict) and len(bound) == 1 else None
    if not isinstance(thumbprint, str) or not _THUMBPRINT.fullmatch(thumbprint):
        raise BadJwt(Fault.BINDING)
    return thumbprint


def looks_signed(text: str) -> bool:
    """Whether a text has the outer form of a compact JWS; says nothing of its content."""
    return text.count(".") == 2


@lru_cache(maxsize=256)
def _header(part: str, algorithms: tuple[str, ...]) -> Mapping[str, Any]:
    """The header; all tokens of one key have the same, so it is read once."""
    header = _object(part)
    if not isinstance(header.get("alg"), str) or header["alg"] not in algorithms:
        raise BadJwt(Fault.ALGORITHM)
    if any(name in header for name in _FORBIDDEN):
        raise BadJwt(Fault.HEADER)
    kid, typ = header.get("kid", ""), header.get("typ", "")
    if not isinstance(kid, str) or len(kid) > LONGEST_KID or not isinstance(typ, str):
        raise BadJwt(Fault.HEADER)
    return header


def _decoded(part: str) -> bytes:
    """Base64url without padding, and in the one form that encoding gives (RFC 7515, section 2)."""
    if not _PART.fullmatch(part):
        raise BadJwt(Fault.MALFORMED)
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        raise BadJwt(Fault.MALFORMED) from None
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        raise BadJwt(Fault.MALFORMED)
    return data


def _object(part: str) -> dict[str, Any]:
    """A JSON object with each member once, real numbers, and strings that every store takes."""
    try:
        text = _decoded(part).decode()
        told = json.loads(text, object_pairs_hook=_each_once, parse_constant=_no_number)
        if "\\u" in text:
            _check_strings(told)
    except (ValueError, RecursionError):
        raise BadJwt(Fault.MALFORMED) from None
    if not isinstance(told, dict):
        raise BadJwt(Fault.MALFORMED)
    return told


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise BadJwt(Fault.MALFORMED)
    return members


def _no_number(_word: str) -> float:
    raise BadJwt(Fault.MALFORMED)


def _check_strings(told: object) -> None:
    """Refuse half a surrogate pair, which is no text, and NUL, which PostgreSQL does not store."""
    written = json.dumps(told, ensure_ascii=False)
    written.encode()
    if "\\u0000" in written:
        raise BadJwt(Fault.MALFORMED)


def _check_ed25519(public: Any, signature: bytes, signed: bytes) -> None:
    public.verify(signature, signed)


def _check_es256(public: Any, signature: bytes, signed: bytes) -> None:
    if len(signature) != 2 * _ES256_HALF:
        raise InvalidSignature
    r, s = (int.from_bytes(half) for half in (signature[:_ES256_HALF], signature[_ES256_HALF:]))
    public.verify(encode_dss_signature(r, s), signed, ECDSA(SHA256()))


def _check_rs256(public: Any, signature: bytes, signed: bytes) -> None:
    public.verify(signature, signed, PKCS1v15(), SHA256())


def _check_ps256(public: Any, signature: bytes, signed: bytes) -> None:
    public.verify(signature, signed, PSS(MGF1(SHA256()), SHA256.digest_size), SHA256())


_CHECKS: Mapping[str, Callable[[Any, bytes, bytes], None]] = {
    "EdDSA": _check_ed25519,
    "Ed25519": _check_ed25519,
    "ES256": _check_es256,
    "PS256": _check_ps256,
    "RS256": _check_rs256,
}
_LAST_S = 253_402_300_800.0  # the year 10000: beyond it, no datetime
