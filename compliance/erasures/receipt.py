"""The erasure receipt: a JWS (EdDSA, `typ: fl-erasure+jwt`) of what was erased, what stays and why.

It names nobody: the subject stands as a keyed hash that only the gateway can compute again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from compliance.errors import BadReceipt
from compliance.jws import BadJws, sign_compact, verify_compact
from compliance.keyring.keys import SigningKey

TYPE = "fl-erasure+jwt"


@dataclass(frozen=True, slots=True)
class PlaceLine:
    """One place: how much of the person it held when the erasure began, and what a second look found."""

    name: str
    found: int
    left: int


@dataclass(frozen=True, slots=True)
class KeptLine:
    """Something that stays after the erasure, and the reason."""

    what: str
    count: int
    why: str


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """What the gateway signs at the end of an erasure."""

    request_id: str
    subject: str
    places: tuple[PlaceLine, ...]
    kept: tuple[KeptLine, ...]
    models_released: tuple[str, ...]
    siem_copies: tuple[str, ...]
    received: datetime
    finished: datetime

    @property
    def left(self) -> int:
        """How much could not be erased; zero in every receipt of a completed request."""
        return sum(place.left for place in self.places)

    def payload(self) -> dict[str, Any]:
        """The signed JSON."""
        facts = asdict(self)
        return {
            **facts,
            "received": _text(self.received),
            "finished": _text(self.finished),
            "left": self.left,
        }


def sign(receipt: ErasureReceipt, key: SigningKey) -> str:
    """The receipt as a compact JWS."""
    return sign_compact(TYPE, receipt.payload(), key)


def verify(text: str, public_keys: Mapping[str, bytes]) -> dict[str, Any]:
    """The payload of a receipt that one of the public keys (raw, by kid) signed.

    Raises:
        BadReceipt: it is not signed by any of them, or it is not an erasure receipt.
    """
    try:
        return verify_compact(text, TYPE, public_keys)
    except BadJws as error:
        raise BadReceipt("this is no erasure receipt that this gateway signed") from error


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
