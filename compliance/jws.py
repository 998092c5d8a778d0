"""Compact JWS with EdDSA over Ed25519 (RFC 7515, RFC 8037): the form of every receipt.

The wire fixes the name `EdDSA`; joserfc warns against it since RFC 9864, so these ten lines are our own.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from compliance.keyring.keys import SigningKey

ALGORITHM = "EdDSA"


class BadJws(ValueError):
    """A text that is no compact JWS of the wanted `typ`, or that none of the known keys signed."""


def sign_compact(typ: str, payload: Mapping[str, Any], key: SigningKey) -> str:
    """The payload as a signed compact JWS; `typ` keeps the kinds of signed things apart."""
    header = {"alg": ALGORITHM, "typ": typ, "kid": key.kid}
    signed = f"{_part(header)}.{_part(payload)}"
    return f"{signed}.{_base64url(key.private.sign(signed.encode()))}"


def verify_compact(text: str, typ: str, public_keys: Mapping[str, bytes]) -> dict[str, Any]:
    """The payload of a compact JWS of that `typ`, signed by one of the raw public keys (by kid).

    Raises:
        BadJws: it is malformed, of another kind, or not signed by any of them.
    """
    signed, _, signature = text.strip().rpartition(".")
    header, _, payload = signed.partition(".")
    try:
        told = json.loads(_from_base64url(header))
        if (told["alg"], told["typ"]) != (ALGORITHM, typ):
            raise BadJws(f"not a {typ} signed with {ALGORITHM}")
        public = Ed25519PublicKey.from_public_bytes(public_keys[told["kid"]])
        public.verify(_from_base64url(signature), signed.encode())
        members = json.loads(_from_base64url(payload))
    except (InvalidSignature, KeyError, TypeError, ValueError) as error:
        raise BadJws("no known key signed this") from error
    if not isinstance(members, dict):
        raise BadJws("its payload is no JSON object")
    return members


def type_of(text: str) -> str:
    """What a compact JWS says that it is, before anything is verified; empty if it says nothing that can be read."""
    try:
        told = json.loads(_from_base64url(text.strip().partition(".")[0])).get("typ")
    except (ValueError, AttributeError, RecursionError):
        return ""
    return told if isinstance(told, str) else ""


def _part(members: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(members, sort_keys=True, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from_base64url(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
