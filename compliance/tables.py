"""The tables of compliance in the main database: subjects, privacy requests, legal holds.

What names a person stands sealed, as `{enc, key}`; a subject id is random and names nobody by itself.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, MetaData, String, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from audit.datamap import UtcDateTime, impersonal, personal

metadata = MetaData()

_JSON = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
_DUTY = "Art. 6(1)(c)"  # the gateway's own duties under Art. 12 to 17 and 30


def _accountable(category: str, purpose: str) -> dict[str, str]:
    return personal(category, purpose, basis=_DUTY, retention="accountability", erase="keep")


subjects = Table(
    "subjects",
    metadata,
    Column(
        "subject_id",
        Uuid(as_uuid=False),
        primary_key=True,
        info=_accountable("identifier", "the random id that a person's data and keys hang on"),
    ),
    Column(
        "state",
        String(8),
        nullable=False,
        info=impersonal("active, erasing or erased: locked by every writer"),
    ),
    Column("created_at", UtcDateTime, nullable=False, info=_accountable("participation", "when it was met")),
)

privacy_requests = Table(
    "privacy_requests",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True, info=impersonal("names the request")),
    Column("type", String(16), nullable=False, info=impersonal("access or erasure")),
    Column("status", String(20), nullable=False, info=impersonal("where the request stands")),
    Column(
        "subject_id",
        Uuid(as_uuid=False),
        nullable=False,
        index=True,
        info=_accountable("identifier", "whose request it is"),
    ),
    Column("version", Integer, nullable=False, info=impersonal("counts moves: each is a compare-and-set")),
    Column("received_at", UtcDateTime, nullable=False, info=impersonal("when the month of Art. 12(3) began")),
    Column("due_at", UtcDateTime, nullable=False, info=impersonal("when the answer is due")),
    Column(
        "requested_by",
        _JSON,
        nullable=False,
        info=_accountable("access", "who asked, sealed under the asker's key"),
    ),
    Column(
        "reason",
        _JSON,
        nullable=True,
        info=_accountable("access", "why it was refused, extended or held, sealed (Art. 12(4))"),
    ),
    Column("attempts", Integer, nullable=False, default=0, info=impersonal("how often it was run")),
    Column("last_error", String(64), nullable=True, info=impersonal("the code of the last failure")),
    Column("may_approve_alone", Boolean, nullable=False, info=impersonal("whether the asker may approve it")),
    Column("intent_id", String(36), nullable=True, info=impersonal("the entry that announced the erasure")),
    Column("before", _JSON, nullable=True, info=impersonal("what an erasure found: counts, models, sinks")),
    Column("swept_at", UtcDateTime, nullable=True, info=impersonal("when an erasure looked a last time")),
    Column(
        "package_blob",
        Text,
        nullable=True,
        info=personal("copy", "where the export package lies", basis=_DUTY, erase="delete", export="no"),
    ),
    Column(
        "package_key", String(64), nullable=True, info=impersonal("the id of the key it is encrypted under")
    ),
    Column("package_bytes", BigInteger, nullable=True, info=impersonal("the size of the package")),
    Column("package_expires_at", UtcDateTime, nullable=True, info=impersonal("when the package is removed")),
    Column("manifest_digest", String(64), nullable=True, info=impersonal("hash of the package's manifest")),
    Column(
        "receipt",
        Text,
        nullable=True,
        info=_accountable("access", "the signed erasure receipt; it names nobody"),
    ),
    Column("finished_at", UtcDateTime, nullable=True, info=impersonal("when the request was closed")),
    Index("ix_privacy_requests_open", "status", "due_at"),
    Index("ix_privacy_requests_unswept", "type", "status", "swept_at"),
    Index("ix_privacy_requests_packages", "package_expires_at"),
)

privacy_holds = Table(
    "privacy_holds",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True, info=impersonal("names the hold")),
    Column(
        "subject_id",
        Uuid(as_uuid=False),
        nullable=False,
        index=True,
        info=_accountable("identifier", "whose data must be kept (Art. 17(3))"),
    ),
    Column("reason", _JSON, nullable=False, info=_accountable("access", "the legal reason, sealed")),
    Column(
        "placed_by",
        _JSON,
        nullable=False,
        info=_accountable("access", "who placed it, sealed under their key"),
    ),
    Column("placed_at", UtcDateTime, nullable=False, info=impersonal("when the hold began")),
    Column("lifted_at", UtcDateTime, nullable=True, info=impersonal("when the hold ended")),
)
