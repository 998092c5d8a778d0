"""Cosignatures of witnesses; what a SIEM refused, and why it is away; the settings of the last start."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from audit.triggers import statements

revision = "main0003"
down_revision = "main0002"
POSITION = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the tables and columns."""
    op.create_table(
        "audit_cosignatures",
        sa.Column("size", POSITION, autoincrement=False, nullable=False),
        sa.Column("witness", sa.String(length=255), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("size", "witness"),
    )
    op.create_table(
        "siem_dead_letters",
        sa.Column("sink", sa.String(length=255), nullable=False),
        sa.Column("seq", POSITION, autoincrement=False, nullable=False),
        sa.Column("reason", sa.String(length=255), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("sink", "seq"),
    )
    op.create_table(
        "settings_at_start",
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("mode", "name"),
    )
    op.add_column("siem_cursors", sa.Column("down_since", TIME))
    op.add_column("siem_cursors", sa.Column("failures", sa.Integer()))
    op.add_column("siem_cursors", sa.Column("problem", sa.String(length=255)))
    op.add_column("siem_cursors", sa.Column("answer", sa.String(length=255)))
    rotations = sa.text("event_type = 'keys.rotated'")
    op.create_index(
        "ix_audit_log_rotations", "audit_log", ["seq"], sqlite_where=rotations, postgresql_where=rotations
    )
    for statement in statements(op.get_bind().dialect.name, ("audit_cosignatures",)):
        op.execute(sa.text(statement))
