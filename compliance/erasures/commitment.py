"""How a person shows that a receipt is about them, and nobody else can: HMAC under a key that only they are given."""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from audit.draft import Personal
from audit.errors import KeyDestroyed
from audit.events import EventType, Retention
from audit.reading import reading
from compliance.errors import NoCommitmentKey
from compliance.keyring.keystore import KeyStore
from compliance.keyring.sealing import SubjectSealer, column_context
from compliance.parts import DeskParts
from compliance.requests.cases import Case, change_case, read_case

_TABLE, _COLUMN = "privacy_requests", "commitment_key"


def commit(key: bytes, subject_id: str) -> str:
    """What stands in the receipt for the subject: hex HMAC-SHA256 (RFC 2104)."""
    return hmac.new(key, subject_id.encode(), sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class Commitment:
    """A new key, sealed until it is handed over, and the commitment that it opens."""

    value: str
    sealed: dict[str, str] = field(repr=False)


def new_commitment(keystore: KeyStore, sealer: SubjectSealer, case: Case, now: datetime) -> Commitment:
    """Draw a key for a case, sealed under what the person has since the request came in.

    No key is made where there is one: after a restore, the state may know already that the person is erased.
    """
    key, subject, kept = os.urandom(32), case.subject_id, Retention.ACCOUNTABILITY
    here = keystore.keys_of(subject, kept)
    if here:
        context = column_context(_TABLE, _COLUMN, case.id)
        sealed = sealer.seal_under(here[-1].key_id, context, key.hex()).public()
    else:
        sealed = sealer.seal_column(subject, kept, _TABLE, _COLUMN, case.id, key.hex(), now)
    return Commitment(commit(key, subject), sealed)


@dataclass(frozen=True, slots=True)
class HandedKey:
    """What the person needs to open the commitment."""

    key: str = field(repr=False)
    subject_id: str


def hand_over(parts: DeskParts, case_id: str, *, by: Personal) -> HandedKey:
    """The key, once: the gateway keeps none of it, so that nobody else can open the commitment.

    Raises:
        UnknownRequest: there is no such request.
        NoCommitmentKey: it is no erasure that has begun, or the key was handed over before.
        CaseChanged: somebody else was faster.
    """
    with reading(parts.engine) as conn:
        case = read_case(conn, case_id)
    if case.receipt is None or case.commitment_key is None:
        raise NoCommitmentKey(case_id)
    try:
        key = parts.sealer.open_column(case.commitment_key, _TABLE, _COLUMN, case.id)
    except KeyDestroyed:
        raise NoCommitmentKey(case_id) from None
    entry = parts.journal.draft(EventType.PRIVACY_KEY_GIVEN, details={"case_id": case.id}, actor=by)
    with parts.engine.begin() as conn:
        change_case(conn, case, commitment_key=None)
        parts.journal.write(conn, entry)
    return HandedKey(str(key), case.subject_id)
