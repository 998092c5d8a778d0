"""The tables of the key store: a database of its own, so that no backup of the data holds a key (RULES 1).

Every secret is wrapped with the master key before it gets here.
"""

from __future__ import annotations

from sqlalchemy import Column, Integer, LargeBinary, MetaData, String, Table, UniqueConstraint

from audit.datamap import UtcDateTime, impersonal, personal

metadata = MetaData()

_WHOSE = personal(
    "identifier", "whose key it is (a random id, no name)", erase="delete", retention="the key's", export="no"
)

subject_keys = Table(
    "subject_keys",
    metadata,
    Column(
        "key_id",
        String(64),
        primary_key=True,
        info=impersonal("commits a ciphertext to its key: a hash of it"),
    ),
    Column("subject", String(64), nullable=False, info=_WHOSE),
    Column("retention", String(16), nullable=False, info=impersonal("which retention class the key serves")),
    Column("period", String(10), nullable=False, info=impersonal("the quarter or day the key serves")),
    Column("wrapped", LargeBinary, nullable=False, info=impersonal("the key under the master key")),
    Column("created_at", UtcDateTime, nullable=False, info=impersonal("when the key was made")),
    UniqueConstraint("subject", "retention", "period", name="uq_subject_keys_one_a_period"),
)

pseudonyms = Table(
    "pseudonyms",
    metadata,
    Column("subject", String(64), primary_key=True, info=_WHOSE),
    Column(
        "pseudonym",
        String(36),
        nullable=False,
        unique=True,
        info=personal(
            "identifier",
            "names the subject to a SIEM without naming it (RULES 28)",
            erase="delete",
            export="no",
        ),
    ),
    Column("created_at", UtcDateTime, nullable=False, info=impersonal("when the pseudonym was drawn")),
)

index_keys = Table(
    "index_keys",
    metadata,
    Column("name", String(32), primary_key=True, info=impersonal("what the key is for")),
    Column("wrapped", LargeBinary, nullable=False, info=impersonal("the look-up key under the master key")),
    Column("created_at", UtcDateTime, nullable=False, info=impersonal("when the key was made")),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    Column("kid", String(16), primary_key=True, info=impersonal("the name of the public key")),
    Column("use", String(16), nullable=False, info=impersonal("what the key signs")),
    Column("generation", Integer, nullable=False, info=impersonal("counts rotations; the newest signs")),
    Column("public", LargeBinary, nullable=False, info=impersonal("the public key, raw")),
    Column("wrapped", LargeBinary, nullable=False, info=impersonal("the private key under the master key")),
    Column("created_at", UtcDateTime, nullable=False, info=impersonal("when the key was made")),
    Column("held_at", String(255), info=impersonal("where the private key is, if not in `wrapped`")),
    Column("awaits", String(36), info=impersonal("the entry that announces the key; it signs after that")),
    Column("retires_at", UtcDateTime, info=impersonal("until when it signs beside a newer one")),
    UniqueConstraint("use", "generation", name="uq_signing_keys_one_a_generation"),
)

round_seeds = Table(
    "round_seeds",
    metadata,
    Column("round_id", String(64), primary_key=True, info=impersonal("the round whose noise it draws")),
    Column("state", String(8), nullable=False, info=impersonal("sealed or opened")),
    Column("wrapped", LargeBinary, nullable=False, info=impersonal("the seed under the master key")),
    Column("created_at", UtcDateTime, nullable=False, info=impersonal("when the seed was drawn")),
    Column("opened_at", UtcDateTime, nullable=True, info=impersonal("when the seed was first used")),
)
