"""The checkpoints that tell of every change of the log's key, for bundles (`rotations/0001`, …)."""

from __future__ import annotations

from sqlalchemy import Connection, literal_column, select

from audit.entry import parse_entry
from audit.errors import AuditError
from audit.events import EventType
from audit.key_succession import announced
from audit.tables import audit_checkpoints, audit_log


def rotation_notes(conn: Connection) -> list[str]:
    """For each entry that announces a new log key, the first checkpoint that covers it, in order.

    Both keys have signed it: the new one begins there, and the old one ends later. An entry that no checkpoint covers
    yet has none.
    """
    # In the statement itself, and not as a parameter: so the database sees that its index of these entries fits.
    is_rotation = audit_log.c.event_type == literal_column(f"'{EventType.KEYS_ROTATED.value}'")
    rotated = select(audit_log.c.canonical).where(is_rotation)
    notes: list[str] = []
    for canonical in conn.execute(rotated.order_by(audit_log.c.seq)).scalars():
        try:
            entry = parse_entry(canonical.encode())
        except AuditError:
            continue  # somebody rewrote it: it announces nothing, and the verifier finds it where it stands
        covering = select(audit_checkpoints.c.note).where(audit_checkpoints.c.size > entry.seq)
        note = conn.execute(covering.order_by(audit_checkpoints.c.size).limit(1)).scalar()
        if note is not None and announced(entry) is not None:
            notes.append(note)
    return notes
