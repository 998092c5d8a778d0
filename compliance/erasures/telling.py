"""Tells those who got copies that a person is being erased, under the name by which they know the person (Art. 19).

The entry goes to every SIEM as all entries do. The name is forgotten only once each has taken it, or a day is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from audit.canonical import JsonValue
from audit.draft import NOBODY, Personal
from audit.draft import draft as make_draft
from audit.entry import Draft, Sealed
from audit.events import EventType, Retention
from compliance.erasures.receipt import RecipientLine
from compliance.errors import SubjectErased
from compliance.journal import DESK
from compliance.keyring.keystore import KeyStore
from compliance.keyring.sealing import SubjectSealer
from compliance.parts import DeskParts, Telling
from compliance.requests.cases import Case

LONGEST_WAIT = timedelta(hours=24)


def news_of(parts: DeskParts, case: Case, recipients: Sequence[str]) -> Draft | None:
    """The entry that tells of the erasure; None where no SIEM has a name of the person.

    It is sealed under a key of class accountability that the person has since the request came in, although nothing
    else is written for who is being erased (RULES 18): without the person in it, nobody would know whom to erase.
    """
    if not recipients or parts.keystore.known_pseudonym(case.subject_id) is None:
        return None
    subject = Personal(case.subject_id, case.subject_id)
    try:
        return make_draft(
            EventType.PRIVACY_TOLD,
            sealer=_KeysAtHand(parts.keystore, parts.sealer),
            now=parts.now(),
            actor=DESK,
            action="told",
            details={"case_id": case.id, "recipients": list(recipients), "subject": subject},
        )
    except SubjectErased:  # its keys ran out: no pseudonym can be found by them
        return None


def is_waiting(parts: DeskParts, entry_id: str, at: datetime) -> bool:
    """Whether a recipient has not taken the entry of that time yet, and there is time left for it."""
    if parts.now() - at >= LONGEST_WAIT:
        return False
    return Telling.WAITING in parts.told(entry_id).values()


def recipient_lines(
    parts: DeskParts, recipients: Sequence[str], entry_id: str | None
) -> tuple[RecipientLine, ...]:
    """Who got copies, and whether they know."""
    told = parts.told(entry_id) if entry_id else {}
    now = parts.now()
    return tuple(
        RecipientLine(_shown(name), now if told.get(name) is Telling.TOLD else None) for name in recipients
    )


def _shown(recipient: str) -> str:
    """As the person reads it: where on this machine a file lies tells the person nothing."""
    return "file" if recipient.startswith("file:") else recipient


class _KeysAtHand:
    """Seals under the newest key of class accountability that a person has; no key is made."""

    def __init__(self, keystore: KeyStore, sealer: SubjectSealer) -> None:
        self._keystore = keystore
        self._sealer = sealer

    def seal(
        self, subject: str, retention: Retention, context: str, value: JsonValue, at: datetime
    ) -> Sealed:
        """Encrypt a value. Raises SubjectErased where there is no key."""
        if subject in NOBODY:
            return self._sealer.seal(subject, retention, context, value, at)
        keys = self._keystore.keys_of(subject, Retention.ACCOUNTABILITY)
        if not keys:
            raise SubjectErased(subject)
        return self._sealer.seal_under(keys[-1].key_id, context, value)

    def open(self, sealed: Sealed, context: str) -> JsonValue:
        """Decrypt a value."""
        return self._sealer.open(sealed, context)
