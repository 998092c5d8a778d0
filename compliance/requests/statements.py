"""Answers about people whom only their silo knows: a signed statement instead of data (Art. 11).

A silo files the request under its own opaque reference. The gateway cannot tell which part of an update is one
person's; it states so, and in which rounds and models the silo's people had a part. The statement names nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from audit.events import EventType
from audit.reading import reading
from compliance.errors import BadReceipt, CaseChanged
from compliance.journal import DESK
from compliance.jws import BadJws, sign_compact, verify_compact
from compliance.keyring.keys import SigningUse
from compliance.parts import DeskParts, TakenPart
from compliance.requests.cases import Case, RequestType, Status, change_case, move_details, read_case

TYPE = "fl-statement+jwt"
_CANNOT = (
    "The controller of this gateway cannot identify the person (Art. 11(2)): it holds updates that a silo computed "
    "from the records of many people, and nothing that singles one of them out."
)
_REST = "Only the silo can tell whether the person's records were among those it computed with."
_DUTIES: Mapping[RequestType, tuple[str, ...]] = {
    RequestType.ACCESS: (
        "give the person access to the records that the silo itself holds (Art. 15)",
        "say in which of these rounds their records were used, if the silo's own notes tell",
    ),
    RequestType.PORTABILITY: (
        "hand over the records that the person gave to the silo, in a common format (Art. 20)",
    ),
    RequestType.ERASURE: (
        "erase the person's records at the silo, and leave them out of every later round (Art. 17)",
        "ask for the erasure of the silo's own updates, if those are to go: they are the silo's, not one person's",
    ),
    RequestType.RESTRICTION: (
        "leave the person's records out of every later round while it lasts (Art. 18)",
    ),
    RequestType.OBJECTION: (
        "leave the person's records out of every later round, unless the silo shows compelling grounds (Art. 21)",
    ),
    RequestType.RECTIFICATION: (
        "put the person's records right at the silo, before the next round (Art. 16)",
    ),
}


class Statements:
    """Signs and files statements."""

    def __init__(self, parts: DeskParts) -> None:
        self._parts = parts

    def run(self, case: Case) -> Case:
        """Complete an approved request by reference."""
        if case.status is not Status.APPROVED:
            return case
        parts = self._parts
        taken = list(parts.participation(case.subject_id))
        signed = sign_compact(
            TYPE, self._payload(case, taken), parts.keystore.signing_key(SigningUse.RECEIPT)
        )
        digest = sha256(signed.encode()).hexdigest()
        facts = {
            "case_id": case.id,
            "type": case.type.value,
            "rounds": len(taken),
            "statement_digest": digest,
        }
        drafts = (
            parts.worker_journal.draft(EventType.PRIVACY_STATED, details=facts, actor=DESK),
            parts.worker_journal.draft(
                EventType.PRIVACY_MOVED, details=move_details(case, Status.COMPLETED), actor=DESK
            ),
        )
        done = {"status": Status.COMPLETED.value, "finished_at": parts.now(), "last_error": None}
        try:
            with parts.engine.begin() as conn:
                change_case(conn, case, statement=signed, attempts=case.attempts + 1, **done)
                parts.worker_journal.write(conn, *drafts)
        except CaseChanged:  # another worker was first
            pass
        with reading(parts.engine) as conn:
            return read_case(conn, case.id)

    def _payload(self, case: Case, taken: Sequence[TakenPart]) -> dict[str, Any]:
        return {
            "request_id": case.id,
            "request_type": case.type.value,
            "received": _text(case.received_at),
            "stated": _text(self._parts.now()),
            "silo": self._parts.keystore.index(case.subject_id),
            "cannot_identify": _CANNOT,
            "rounds": [_round(part) for part in taken],
            "model_versions": sorted({part.model_version for part in taken if part.model_version}),
            "only_the_silo_knows": _REST,
            "the_silo_must": list(_DUTIES[case.type]),
        }


def verify_statement(text: str, public_keys: Mapping[str, bytes]) -> dict[str, Any]:
    """The payload of a statement that one of the public keys (raw, by kid) signed.

    Raises:
        BadReceipt: it is not signed by any of them, or it is no statement.
    """
    try:
        return verify_compact(text, TYPE, public_keys)
    except BadJws as error:
        raise BadReceipt("this is no statement that this gateway signed") from error


def _round(part: TakenPart) -> dict[str, Any]:
    return {
        "round_number": part.round_number,
        "submitted": _text(part.submitted_at),
        "model_version": part.model_version,
    }


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
