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
    _log()
    _notices()
    _messages()


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
        ("lifted_at", TIME),
    ):
        op.add_column("privacy_requests", sa.Column(name, kind))
    paused = sa.Column("paused_s", sa.BigInteger(), nullable=False, server_default="0")
    op.add_column("privacy_requests", paused)
    op.create_index("ix_privacy_requests_due", "privacy_requests", ["due_at", "id"])
    op.create_index("ix_privacy_requests_reference", "privacy_requests", ["reference_index"])
    op.create_index("ix_privacy_requests_finished", "privacy_requests", ["finished_at"])

    for name in ("restricted_at", "objected_at"):
        op.add_column("subjects", sa.Column(name, TIME))


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
    # Packages read what a client did page by page, in the order of rounds.
    op.drop_index("client_updates_client", table_name="client_updates")
    op.create_index("client_updates_client", "client_updates", ["client_id", "round_id"])
    op.create_index("invitations_history", "invitations", ["client_id", "round_id"])


def _holds() -> None:
    # Holds placed before covered everything; they are to be looked at again at once.
    op.execute("ALTER TABLE privacy_holds RENAME COLUMN reason TO matter")  # alembic cannot on SQLite
    for column in (
        sa.Column("scope", JSON, nullable=False, server_default='["*"]'),
        sa.Column("basis", sa.String(length=16), nullable=False, server_default="e"),
        sa.Column("review_at", TIME, nullable=False, server_default="1970-01-01 00:00:00+00:00"),
        sa.Column("release_asked_by", JSON),
        sa.Column("release_asked_at", TIME),
        sa.Column("version", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("alarmed_at", TIME),
    ):
        op.add_column("privacy_holds", column)
    op.create_index("ix_privacy_holds_review", "privacy_holds", ["review_at", "id"])
    op.create_index("ix_privacy_holds_lifted", "privacy_holds", ["lifted_at"])
    op.create_index("rounds_completed", "rounds", ["completed_at"])  # what runs out after a round's end


def _log() -> None:
    # The explorer finds entries by type; who may decrypt them is told by name.
    op.create_index("ix_audit_log_event_type_seq", "audit_log", ["event_type", "seq"])
    for table in ("users", "clients"):
        op.add_column(table, sa.Column("extra_scopes", sa.String(length=200)))


def _notices() -> None:
    op.create_table(
        "notices",
        sa.Column("notice_id", ID, primary_key=True),
        sa.Column("target", sa.String(length=255), nullable=False),
        sa.Column("dedupe_key", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("severity", sa.Integer(), nullable=False),
        sa.Column("subject_line", sa.String(length=200), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("problem", sa.String(length=64)),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("sent_at", TIME),
        sa.UniqueConstraint("target", "dedupe_key", name="notices_once"),
    )
    op.create_index("notices_due", "notices", ["status", "due_at"])
    op.create_index("notices_age", "notices", ["created_at"])


def _messages() -> None:
    """What waits at the upgrade gets no value there: it is carried away within moments, and names nobody."""
    op.add_column("outbox", sa.Column("about", ID))
    op.create_index("outbox_about", "outbox", ["about"])
