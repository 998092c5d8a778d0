"""Signing keys that are announced before they sign, sign side by side for a time, or are held elsewhere."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "keystore0002"
down_revision = "keystore0001"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("signing_keys", sa.Column("held_at", sa.String(length=255)))
    op.add_column("signing_keys", sa.Column("awaits", sa.String(length=36)))
    op.add_column("signing_keys", sa.Column("retires_at", sa.DateTime(timezone=True)))
