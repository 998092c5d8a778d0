"""Receipts: the gateway's signed promise that an entry is, or soon will be, in the log (RULES 21)."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from audit.errors import AuditError, BadKey, BadReceipt

TYPE = "fl-receipt+jwt"
ERASURE_TYPE = "fl-erasure+jwt"
"""An erasure's receipt, which tells of its entry in its member `log`."""
_ALGORITHMS = ("EdDSA", "Ed25519")  # two names of one algorithm: RFC 8037, RFC 9864
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_CHARACTERS = {TYPE: 10_000, ERASURE_TYPE: 1_000_000}


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was promised: this entry, with this content, in this log, within this time."""

    entry_id: str
    entry_digest: bytes
    body_hash: str
    received_at: datetime
    origin: str
    max_delay: timedelta
    kid: str

    def is_due(self, now: datetime) -> bool:
        """Whether the entry must be in the log by now."""
        return now - self.received_at > self.max_delay


@dataclass(frozen=True, slots=True)
class ReceiptKeys:
    """The public keys that receipts may be signed with, by key id; a key without an id fits any."""

    keys: Mapping[str | None, Ed25519PublicKey]

    @classmethod
    def parse(cls, text: str) -> ReceiptKeys:
        """Read a JWKS (RFC 7517; the gateway's /.well-known/jwks.json) or one public key in PEM."""
        if text.lstrip().startswith("-----BEGIN"):
            return cls({None: _pem_key(text)})
        listed = _object(text.encode(), BadKey("the receipt keys are neither a JWKS nor PEM")).get("keys")
        found = [_jwk(member) for member in listed] if isinstance(listed, list) else []
        keys: dict[str | None, Ed25519PublicKey] = dict(filter(None, found))
        if not keys:
            raise BadKey("the JWKS holds no Ed25519 key (kty OKP, crv Ed25519)")
        return cls(keys)

    def verify(self, kid: str, signature: bytes, signed: bytes) -> None:
        """Raise BadReceipt unless the key of this id signed it."""
        key = self.keys.get(kid) or self.keys.get(None)
        if key is None:
            raise BadReceipt("the receipt is signed by a key that is not among those given")
        try:
            key.verify(signature, signed)
        except InvalidSignature:
            raise BadReceipt("the receipt's signature does not verify") from None


def parse_receipt(text: str, keys: ReceiptKeys | None) -> Receipt:
    """Read a receipt (compact JWS), and verify its signature where keys are given; raises BadReceipt."""
    parts = text.strip().split(".")
    if len(parts) != 3 or len(parts[0]) > _MAX_CHARACTERS[TYPE] or len(text) > max(_MAX_CHARACTERS.values()):
        raise BadReceipt("a receipt is a compact JWS: three parts with dots between")
    header = _object(_decode(parts[0]), BadReceipt("the receipt's header is not JSON"))
    typ = header.get("typ")
    if typ not in (TYPE, ERASURE_TYPE) or header.get("alg") not in _ALGORITHMS or "crit" in header:
        raise BadReceipt(f"a receipt is of typ {TYPE} or {ERASURE_TYPE} and alg EdDSA")
    if len(text) > _MAX_CHARACTERS[str(typ)]:
        raise BadReceipt("the receipt is longer than one can be")
    kid, signature = header.get("kid"), _decode(parts[2])
    if not isinstance(kid, str):
        raise BadReceipt("the receipt names no key")
    if keys:
        keys.verify(kid, signature, f"{parts[0]}.{parts[1]}".encode())
    payload = _object(_decode(parts[1]), BadReceipt("the receipt's payload is not JSON"))
    return _receipt(_promise_of(payload) if typ == ERASURE_TYPE else payload, kid)


def _promise_of(payload: Mapping[str, object]) -> Mapping[str, object]:
    log = payload.get("log")
    if not isinstance(log, dict):
        raise BadReceipt("the erasure receipt's log is missing")
    return log


def _receipt(payload: Mapping[str, object], kid: str) -> Receipt:
    texts = {name: payload.get(name) for name in ("entry_id", "entry_digest", "body_hash", "origin")}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise BadReceipt(f"the receipt's {name} is missing")
    digest = str(texts["entry_digest"])
    if not _DIGEST.fullmatch(digest):
        raise BadReceipt("the receipt's entry_digest is not a SHA-256 hash in hex")
    return Receipt(
        entry_id=str(texts["entry_id"]),
        entry_digest=bytes.fromhex(digest),
        body_hash=str(texts["body_hash"]),
        received_at=_time(payload.get("received_at")),
        origin=str(texts["origin"]),
        max_delay=_delay(payload.get("max_delay")),
        kid=kid,
    )


def _time(value: object) -> datetime:
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise BadReceipt("the receipt's received_at is not an RFC 3339 time")
    return time


def _delay(value: object) -> timedelta:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10**9:
        raise BadReceipt("the receipt's max_delay is not a number of seconds")
    return timedelta(seconds=value)


def _pem_key(text: str) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey("the PEM file holds no public key") from None
    if not isinstance(key, Ed25519PublicKey):
        raise BadKey("the PEM file holds no Ed25519 key")
    return key


def _jwk(member: object) -> tuple[str | None, Ed25519PublicKey] | None:
    if not isinstance(member, dict) or (member.get("kty"), member.get("crv")) != ("OKP", "Ed25519"):
        return None
    kid, x = member.get("kid"), member.get("x")
    if not isinstance(x, str) or not isinstance(kid, str):
        return None
    try:
        return kid, Ed25519PublicKey.from_public_bytes(_decode(x))
    except (ValueError, BadReceipt):
        return None


def _object(data: bytes, refusal: AuditError) -> Mapping[str, object]:
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise refusal from None
    if not isinstance(value, dict):
        raise refusal
    return value


def _decode(text: str) -> bytes:
    """Strict base64url without padding (RFC 7515)."""
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (Base64Error, ValueError):
        raise BadReceipt("a part of the receipt is not base64url") from None
    if urlsafe_b64encode(data).rstrip(b"=").decode() != text:
        raise BadReceipt("a part of the receipt is not base64url")
    return data
