"""The privacy desk's clock, owners and approvals; links to packages; holds with matter, scope and review."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "main0005"
down_revision = "main0004"
TIME = sa.DateTime(timezone=True)
JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
ID = sa.Uuid(as_uuid=False)


def upgrade() -> None:
    """Add the tables and columns."""
    _requests()
    _links()
    _holds()


def _requests() -> None:
    for name, kind in (
        ("reference", JSON),
        ("reference_index", sa.String(length=64)),
        ("extended_at", TIME),
        ("extension_reason", JSON),
        ("paused_at", TIME),
        ("owner", JSON),
        ("owned_at", TIME),
        ("alarms", JSON),
        ("refusal", sa.String(length=32)),
        ("exemption", sa.String(length=1)),
        ("duplicate_of", ID),
        ("first_approval", JSON),
        ("correction", JSON),
        ("statement", sa.Text()),
        ("commitment_key", JSON),
    ):
        op.add_column("privacy_requests", sa.Column(name, kind))
    paused = sa.Column("paused_s", sa.BigInteger(), nullable=False, server_default="0")
    op.add_column("privacy_requests", paused)
    op.create_index("ix_privacy_requests_reference", "privacy_requests", ["reference_index"])


def _links() -> None:
    op.create_table(
        "package_links",
        sa.Column("link_hash", sa.String(length=64), primary_key=True),
        sa.Column("request_id", ID, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("used_at", TIME),
    )
    op.create_index("ix_package_links_request_id", "package_links", ["request_id"])
    op.create_index("ix_package_links_expires_at", "package_links", ["expires_at"])


def _holds() -> None:
    # Holds placed before covered everything; they are to be looked at again at once.
    op.execute("ALTER TABLE privacy_holds RENAME COLUMN reason TO matter")  # alembic cannot on SQLite
    for column in (
        sa.Column("scope", JSON, nullable=False, server_default='["*"]'),
        sa.Column("basis", sa.String(length=16), nullable=False, server_default="e"),
        sa.Column("review_at", TIME, nullable=False, server_default="1970-01-01 00:00:00+00:00"),
        sa.Column("release_asked_by", JSON),
        sa.Column("release_asked_at", TIME),
    ):
        op.add_column("privacy_holds", column)
