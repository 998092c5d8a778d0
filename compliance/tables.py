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
    Column(
        "restricted_at",
        UtcDateTime,
        nullable=True,
        info=_accountable("participation", "since when its data is kept and not used (Art. 18)"),
    ),
    Column(
        "objected_at",
        UtcDateTime,
        nullable=True,
        info=_accountable("participation", "since when its objection stands (Art. 21)"),
    ),
)

privacy_requests = Table(
    "privacy_requests",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True, info=impersonal("names the request")),
    Column("type", String(16), nullable=False, info=impersonal("which right of Art. 15 to 21 is used")),
    Column("status", String(20), nullable=False, info=impersonal("where the request stands")),
    Column(
        "subject_id",
        Uuid(as_uuid=False),
        nullable=False,
        index=True,
        info=_accountable("identifier", "whose request it is"),
    ),
    Column(
        "reference",
        _JSON,
        nullable=True,
        info=_accountable("identifier", "a silo's opaque name of its patient, sealed under the silo's key"),
    ),
    Column(
        "reference_index",
        String(64),
        nullable=True,
        info=_accountable("identifier", "keyed index of the reference: finds the same person's requests"),
    ),
    Column("version", Integer, nullable=False, info=impersonal("counts moves: each is a compare-and-set")),
    Column("received_at", UtcDateTime, nullable=False, info=impersonal("when the month of Art. 12(3) began")),
    Column("due_at", UtcDateTime, nullable=False, info=impersonal("when the answer is due")),
    Column("extended_at", UtcDateTime, nullable=True, info=impersonal("when the answer got two months more")),
    Column(
        "extension_reason",
        _JSON,
        nullable=True,
        info=_accountable("access", "why, and the notice given to the person, sealed (Art. 12(3))"),
    ),
    Column(
        "paused_at", UtcDateTime, nullable=True, info=impersonal("since when a proof of identity is owed")
    ),
    Column(
        "paused_s", BigInteger, nullable=False, default=0, info=impersonal("how long the clock stood still")
    ),
    Column(
        "owner", _JSON, nullable=True, info=_accountable("access", "who of the staff has it in hand, sealed")
    ),
    Column("owned_at", UtcDateTime, nullable=True, info=impersonal("since when it is in hand")),
    Column("alarms", _JSON, nullable=True, info=impersonal("which alarms of its clock were raised")),
    Column("refusal", String(32), nullable=True, info=impersonal("the code of why it was refused")),
    Column("exemption", String(1), nullable=True, info=impersonal("the letter of Art. 17(3), if exempt")),
    Column(
        "duplicate_of", Uuid(as_uuid=False), nullable=True, info=impersonal("the earlier request like it")
    ),
    Column(
        "first_approval",
        _JSON,
        nullable=True,
        info=_accountable("access", "who approved it first, where two must, sealed under their key"),
    ),
    Column(
        "correction",
        _JSON,
        nullable=True,
        info=_accountable("access", "what is to be put right, sealed (Art. 16)"),
    ),
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
    Column(
        "statement",
        Text,
        nullable=True,
        info=_accountable("access", "the signed answer where nobody can be identified (Art. 11)"),
    ),
    Column(
        "commitment_key",
        _JSON,
        nullable=True,
        info=_accountable("access", "opens the receipt's commitment, sealed until it is handed over"),
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
    Column("lifted_at", UtcDateTime, nullable=True, info=impersonal("when what it restricted was lifted")),
    Index("ix_privacy_requests_open", "status", "due_at"),
    Index("ix_privacy_requests_due", "due_at", "id"),
    Index("ix_privacy_requests_unswept", "type", "status", "swept_at"),
    Index("ix_privacy_requests_packages", "package_expires_at"),
    Index("ix_privacy_requests_reference", "reference_index"),
    Index("ix_privacy_requests_finished", "finished_at"),
)

package_links = Table(
    "package_links",
    metadata,
    Column("link_hash", String(64), primary_key=True, info=impersonal("SHA-256 of the link's secret part")),
    Column(
        "request_id",
        Uuid(as_uuid=False),
        nullable=False,
        index=True,
        info=impersonal("whose package it opens"),
    ),
    Column("created_at", UtcDateTime, nullable=False, info=impersonal("when it was made")),
    Column("expires_at", UtcDateTime, nullable=False, index=True, info=impersonal("when it ends unused")),
    Column("used_at", UtcDateTime, nullable=True, info=impersonal("when it was used: it opens once")),
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
    Column("version", Integer, nullable=False, info=impersonal("counts moves: each is a compare-and-set")),
    Column(
        "matter",
        _JSON,
        nullable=False,
        info=_accountable("access", "the case or claim behind it, sealed") | {"export": "no"},
    ),
    Column("scope", _JSON, nullable=False, info=impersonal("the places it covers; `*` stands for all")),
    Column("basis", String(16), nullable=False, info=impersonal("the letter of Art. 17(3) that it rests on")),
    Column("review_at", UtcDateTime, nullable=False, info=impersonal("when its grounds are looked at again")),
    Column(
        "release_asked_by",
        _JSON,
        nullable=True,
        info=_accountable("access", "who asked to end it, sealed under their key: another must agree"),
    ),
    Column("release_asked_at", UtcDateTime, nullable=True, info=impersonal("when its end was asked for")),
    Column(
        "placed_by",
        _JSON,
        nullable=False,
        info=_accountable("access", "who placed it, sealed under their key"),
    ),
    Column("placed_at", UtcDateTime, nullable=False, info=impersonal("when the hold began")),
    Column("alarmed_at", UtcDateTime, nullable=True, info=impersonal("when its late review was told of")),
    Column("lifted_at", UtcDateTime, nullable=True, info=impersonal("when the hold ended")),
    Index("ix_privacy_holds_review", "review_at", "id"),
    Index("ix_privacy_holds_lifted", "lifted_at"),
)
