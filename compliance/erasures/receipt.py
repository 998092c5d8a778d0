"""The erasure receipt: a JWS (EdDSA, `typ: fl-erasure+jwt`) of what was erased, how, what stays, and why.

It names nobody: the subject stands as a commitment that only the person's own key opens. It promises its entry's place
in the log, as the receipt of an update does, so that the log's verifier takes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any

from audit.canonical import canonical
from audit.entry import Draft
from audit.errors import NotCanonical
from compliance.errors import BadReceipt
from compliance.jws import BadJws, sign_compact, verify_compact
from compliance.keyring.keys import SigningKey

TYPE = "fl-erasure+jwt"


class Method(StrEnum):
    """How a place lost what it held of the person."""

    DELETED = "deleted"
    KEY_DESTROYED = "key_destroyed"
    EXPIRES = "expires"


@dataclass(frozen=True, slots=True)
class PlaceLine:
    """One place: how much of the person it held when the erasure began, and what a second look found.

    `found` and `left` are None where nothing in the place bears anybody's name, so that nobody can count it.
    """

    name: str
    found: int | None
    method: Method
    left: int | None
    at: datetime


@dataclass(frozen=True, slots=True)
class KeptLine:
    """Something that stays after the erasure, on what ground, and until which day; None: no day is set."""

    what: str
    count: int
    basis: str
    until: date | None = None


@dataclass(frozen=True, slots=True)
class ModelLine:
    """Versions of a model that came after the person's first contribution, and what bounds its influence on them.

    Args:
        model_id: the lineage.
        first_version: the first of these versions.
        last_version: the last; with many versions, a line stands for several that follow each other.
        versions: how many.
        epsilon: with `delta`, what bounds the influence on each of them; None where no bound holds.
        delta: see there.
        statement: the same in words.
        version_before: the last version without the contribution, to which one can roll back.
    """

    model_id: str
    first_version: str
    last_version: str
    versions: int
    epsilon: str | None
    delta: str | None
    statement: str
    version_before: str | None


@dataclass(frozen=True, slots=True)
class RecipientLine:
    """Somebody who got copies, and when they were told of the erasure (Art. 19); None: they were not."""

    name: str
    told: datetime | None


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """What the gateway signs at the end of an erasure."""

    request_id: str
    subject: str
    """Hex HMAC-SHA256 of the subject id, under the key that is handed to the person."""
    data_map: str
    places: tuple[PlaceLine, ...]
    exceptions: tuple[KeptLine, ...]
    recipients: tuple[RecipientLine, ...]
    models: tuple[ModelLine, ...]
    backups_until: date
    received: datetime
    finished: datetime

    @property
    def left(self) -> int:
        """How much was counted that could not be erased; zero in every receipt of a completed request."""
        return sum(place.left or 0 for place in self.places)

    def facts(self) -> dict[str, Any]:
        """The signed JSON, but for its place in the log."""
        told: dict[str, Any] = _plain(asdict(self))
        return {**told, "left": self.left}

    def digest(self) -> str:
        """What the entry of the erasure keeps of it."""
        return _digest(self.facts())


@dataclass(frozen=True, slots=True)
class LogPromise:
    """The entry of the erasure, and within which time it must be in which log (RULES 21)."""

    entry: Draft
    origin: str
    max_delay_s: int


def sign(receipt: ErasureReceipt, promise: LogPromise, key: SigningKey) -> str:
    """The receipt as a compact JWS."""
    log = {
        "entry_id": promise.entry.id,
        "entry_digest": promise.entry.digest().hex(),
        "body_hash": receipt.digest(),
        "received_at": _text(receipt.finished),
        "origin": promise.origin,
        "max_delay": promise.max_delay_s,
    }
    return sign_compact(TYPE, {**receipt.facts(), "log": log}, key)


def verify(text: str, public_keys: Mapping[str, bytes]) -> dict[str, Any]:
    """The payload of a receipt that one of the public keys (raw, by kid) signed.

    Raises:
        BadReceipt: it is not signed by any of them, it is not an erasure receipt, or its parts do not fit together.
    """
    try:
        payload = verify_compact(text, TYPE, public_keys)
    except BadJws as error:
        raise BadReceipt("this is no erasure receipt that this gateway signed") from error
    facts = {name: value for name, value in payload.items() if name != "log"}
    log = payload.get("log")
    try:
        fits = isinstance(log, dict) and log.get("body_hash") == _digest(facts)
    except NotCanonical:
        fits = False
    if not fits:
        raise BadReceipt("the receipt's facts are not those that its entry in the log stands for")
    return payload


def _digest(facts: Mapping[str, Any]) -> str:
    return sha256(canonical(dict(facts))).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, datetime):
        return _text(value)
    if isinstance(value, date):
        return value.isoformat()
    return value.value if isinstance(value, StrEnum) else value


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
