"""Client selection, invitations, pauses and extensions of rounds; switches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "main0002"
down_revision = "main0001"
JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the columns and tables."""
    for column in (
        sa.Column("selection", JSON),
        sa.Column("acceptance", JSON),
        sa.Column("paused_at", TIME),
        sa.Column("extension_s", sa.Integer()),
        sa.Column("extensions_left", sa.Integer()),
    ):
        op.add_column("rounds", column)
    op.add_column("clients", sa.Column("last_chosen_at", TIME))
    op.create_index("clients_eligible", "clients", ["status", "role", "last_seen_at"])
    op.create_index("clients_age", "clients", ["registered_at", "client_id"])
    op.create_table(
        "invitations",
        sa.Column("invitation_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("round_id", sa.Integer(), nullable=False),
        sa.Column("client_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("invited_at", TIME),
        sa.Column("delivered_at", TIME),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.round_id"]),
        sa.PrimaryKeyConstraint("invitation_id"),
        sa.UniqueConstraint("round_id", "client_id", name="invitations_once"),
    )
    op.create_index("invitations_client", "invitations", ["client_id", "status"])
    op.create_index("invitations_round", "invitations", ["round_id", "status", "rank"])
    op.create_index("ix_privacy_requests_unswept", "privacy_requests", ["type", "status", "swept_at"])
    op.create_index("ix_privacy_requests_packages", "privacy_requests", ["package_expires_at"])
    op.create_table(
        "switches",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("is_on", sa.Boolean(), nullable=False),
        sa.Column("changed_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
