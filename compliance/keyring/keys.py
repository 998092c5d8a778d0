"""What a subject key is: 256 random bits for one subject, one retention class, one quarter (RULES 15)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.draft import UNPROVEN
from audit.events import Retention


class KeyState(Protocol):
    """The facts about keys that only grow and are never restored (RULES 1)."""

    def erased_keys(self) -> frozenset[str]:
        """The ids of every erased key, and the tombstones of erased subjects."""

    def add_erased_keys(self, key_ids: Iterable[str]) -> None:
        """Remember ids durably; returns after they cannot be lost."""

    def epoch(self) -> int:
        """The number whose change empties key caches in every process; cheap."""

    def bump_epoch(self) -> int:
        """Move the epoch on, and return it."""


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """A key and the id that ciphertexts name it by."""

    key_id: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyRow:
    """What the key store says about a key, without the key."""

    key_id: str
    subject: str
    retention: Retention
    period: str
    created_at: datetime


class SigningUse(StrEnum):
    """What a signing key signs; no key signs two kinds of things."""

    LOG = "log"
    RECEIPT = "receipt"
    PACKAGE = "package"
    TOKEN = "token"  # noqa: S105 - a use's name


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The key that signs now for one use."""

    kid: str
    private: Ed25519PrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class SigningKeyRow:
    """What the key store says about a signing key, without the private key."""

    kid: str
    use: SigningUse
    generation: int
    public: bytes
    created_at: datetime
    held_at: str | None
    """Where the private key is, such as `aws-kms:…`; None: here."""
    awaits: str | None
    """The id of the entry that announces it; until that is in the log, the key does not sign."""
    retires_at: datetime | None
    """Until when it signs beside a newer key."""


@dataclass(frozen=True, slots=True)
class PublicKeyRow:
    """A public key of any generation, as `jwks.json` shows it."""

    kid: str
    use: SigningUse
    public: bytes


class SeedState(StrEnum):
    """Where a round's noise seed stands."""

    ABSENT = "absent"
    SEALED = "sealed"
    OPENED = "opened"


def key_id_of(secret: bytes) -> str:
    """The id that commits a ciphertext to its key."""
    return sha256(b"flg-key" + secret).hexdigest()


def tombstone_of(subject: str) -> str:
    """The mark of an erased subject among the erased key ids: it forbids new keys, also after a restore."""
    return sha256(b"flg-erased-subject" + subject.encode()).hexdigest()


def period_of(subject: str, at: datetime) -> str:
    """The quarter a key serves, such as `2026Q4`; for unproven callers the day, such as `2026-11-24`."""
    day = at.astimezone(UTC)
    if subject == UNPROVEN:
        return day.date().isoformat()
    return f"{day.year}Q{(day.month + 2) // 3}"
