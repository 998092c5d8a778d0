"""A checkpoint's peaks, so that a proof need not read the last leaves of its tree. Older checkpoints have none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "main0006"
down_revision = "main0005"


def upgrade() -> None:
    """Add the column."""
    op.add_column("audit_checkpoints", sa.Column("peaks", sa.LargeBinary()))
