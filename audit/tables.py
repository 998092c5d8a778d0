"""The tables of the log. Entries, checkpoints and cosignatures are insert-only (`audit.triggers`)."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    cast,
    text,
)

from audit.datamap import UtcDateTime, impersonal, personal

metadata = MetaData()

_Position = BigInteger().with_variant(Integer, "sqlite")  # on SQLite the row's own number

_CONTENT = personal(
    "activity",
    "the tamper-evident record of what happened; personal fields are ciphertext",
    basis="Art. 6(1)(c)",
    retention="accountability",
    erase="destroy-key",
)

audit_pending = Table(
    "audit_pending",
    metadata,
    Column("id", String(36), primary_key=True, info=impersonal("the entry's UUIDv7")),
    Column("body", Text, nullable=False, info=_CONTENT),
    Column("created_at", UtcDateTime, nullable=False, info=impersonal("when it happened; orders the log")),
    Index("ix_audit_pending_created_at_id", "created_at", "id"),
)

# They are few: an index of nothing else costs the other entries nothing.
_ROTATIONS = text("event_type = 'keys.rotated'")

audit_log = Table(
    "audit_log",
    metadata,
    Column(
        "seq", _Position, primary_key=True, autoincrement=False, info=impersonal("the entry's place, from 0")
    ),
    Column("id", String(36), nullable=False, unique=True, info=impersonal("the entry's UUIDv7")),
    Column("canonical", Text, nullable=False, info=_CONTENT),
    Column("leaf_hash", LargeBinary(32), nullable=False, info=impersonal("RFC 6962 leaf hash of canonical")),
    Column("event_type", String(64), nullable=False, info=impersonal("what happened")),
    Column("time", UtcDateTime, nullable=False, info=impersonal("when it happened")),
    Index("ix_audit_log_event_type_seq", "event_type", "seq"),
    Index("ix_audit_log_rotations", "seq", sqlite_where=_ROTATIONS, postgresql_where=_ROTATIONS),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column(
        "size",
        _Position,
        primary_key=True,
        autoincrement=False,
        info=impersonal("how many entries it covers"),
    ),
    Column("root", LargeBinary(32), nullable=False, info=impersonal("the Merkle root of those entries")),
    Column("note", Text, nullable=False, info=impersonal("the C2SP signed note")),
    Column("created_at", UtcDateTime, nullable=False, info=impersonal("when it was published")),
    Column(
        "peaks", LargeBinary, info=impersonal("roots of the perfect subtrees; they spare a proof the leaves")
    ),
)

audit_cosignatures = Table(
    "audit_cosignatures",
    metadata,
    Column(
        "size",
        _Position,
        primary_key=True,
        autoincrement=False,
        info=impersonal("which checkpoint was cosigned"),
    ),
    Column("witness", String(255), primary_key=True, info=impersonal("name and key id of the witness")),
    Column("line", Text, nullable=False, info=impersonal("the signature line that it gave")),
    Column("created_at", UtcDateTime, nullable=False, info=impersonal("when it came")),
)

audit_subjects = Table(
    "audit_subjects",
    metadata,
    Column(
        "key_id",
        String(64),
        primary_key=True,
        info=personal(
            "identifier",
            "finds the entries that are sealed under a subject's key (RULES 26)",
            retention="accountability",
            erase="destroy-key",
            export="no",
        ),
    ),
    Column("seq", _Position, primary_key=True, autoincrement=False, info=impersonal("the entry's place")),
)

audit_tiles = Table(
    "audit_tiles",
    metadata,
    Column(
        "level",
        Integer,
        primary_key=True,
        autoincrement=False,
        info=impersonal("the tile's level; one of level 0 repeats leaf hashes for proofs"),
    ),
    Column(
        "tile", _Position, primary_key=True, autoincrement=False, info=impersonal("its place in the level")
    ),
    Column(
        "hashes",
        LargeBinary,
        nullable=False,
        info=impersonal("up to 256 hashes, of 256^level entries each; at level 0 also the roots of each 16"),
    ),
)

# SQLite keeps a number or a text in a column of bytes, too: what stands there is read as bytes, and found to be wrong.
LEAF_HASH = cast(audit_log.c.leaf_hash, LargeBinary).label("leaf_hash")
HASHES = cast(audit_tiles.c.hashes, LargeBinary).label("hashes")
ROOT = cast(audit_checkpoints.c.root, LargeBinary).label("root")
PEAKS = cast(audit_checkpoints.c.peaks, LargeBinary).label("peaks")

siem_cursors = Table(
    "siem_cursors",
    metadata,
    Column("sink", String(255), primary_key=True, info=impersonal("the sink's name")),
    Column("seq", _Position, nullable=False, info=impersonal("the last entry it has passed")),
    Column("sent_seq", _Position, nullable=False, info=impersonal("the last entry that was delivered to it")),
    Column("updated_at", UtcDateTime, nullable=False, info=impersonal("when the cursor was saved")),
    Column("down_since", UtcDateTime, info=impersonal("since when it takes nothing; null while it does")),
    Column("failures", Integer, info=impersonal("how many tries in a row have failed; null while none did")),
    Column("problem", String(255), info=impersonal("why it took nothing the last time")),
    Column("answer", String(255), info=impersonal("on what it rests that the last batch was taken")),
)

siem_dead_letters = Table(
    "siem_dead_letters",
    metadata,
    Column(
        "sink", String(255), primary_key=True, info=impersonal("the sink that refused the event for good")
    ),
    Column("seq", _Position, primary_key=True, autoincrement=False, info=impersonal("the entry it was of")),
    Column("reason", String(255), nullable=False, info=impersonal("the sink's verdict, in our words")),
    Column("created_at", UtcDateTime, nullable=False, info=impersonal("when it was refused")),
)
