"""How clients and people prove themselves, what they were allowed, and what must not be shown twice."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "main0004"
down_revision = "main0003"
TIME = sa.DateTime(timezone=True)
JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
ID = sa.Uuid(as_uuid=False)


def upgrade() -> None:
    """Add the tables and columns."""
    for name, kind in (
        ("jwks", JSON),
        ("subject_dn", JSON),
        ("token_format", sa.String(length=8)),
        ("redirect_uris", JSON),
        ("outside_index", sa.String(length=64)),
    ):
        op.add_column("clients", sa.Column(name, kind))
    op.create_index("clients_outside", "clients", ["outside_index"], unique=True)
    _tokens()
    _authorizations()
    _people()


def _tokens() -> None:
    for name, kind in (
        ("user_id", ID),
        ("family_id", ID),
        ("thumbprint", sa.String(length=43)),
        ("is_jwt", sa.Boolean()),
        ("used_at", TIME),
    ):
        op.add_column("tokens", sa.Column(name, kind))
    op.drop_index("tokens_client", "tokens")
    op.create_index("tokens_client", "tokens", ["client_id", "issued_at"])
    op.create_index("tokens_family", "tokens", ["family_id"])
    op.create_index("tokens_user", "tokens", ["user_id"])
    _once("revoked_tokens", "token_hash")
    _once("used_assertions", "jti_hash")


def _once(table: str, key: str) -> None:
    op.create_table(
        table,
        sa.Column(key, sa.String(length=64), primary_key=True),
        sa.Column("client_id", ID, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
    )
    op.create_index(f"{table}_client", table, ["client_id"])
    op.create_index(f"{table}_expiry", table, ["expires_at"])


def _authorizations() -> None:
    op.create_table(
        "authorization_codes",
        sa.Column("code_hash", sa.String(length=64), primary_key=True),
        sa.Column("client_id", ID, nullable=False),
        sa.Column("user_id", ID, nullable=False),
        sa.Column("family_id", ID, nullable=False),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("code_challenge", sa.String(length=43), nullable=False),
        sa.Column("issued_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("used_at", TIME),
    )
    op.create_index("authorization_codes_client", "authorization_codes", ["client_id"])
    op.create_index("authorization_codes_user", "authorization_codes", ["user_id"])
    op.create_index("authorization_codes_family", "authorization_codes", ["family_id"])
    op.create_index("authorization_codes_expiry", "authorization_codes", ["expires_at"])


def _people() -> None:
    op.create_table(
        "users",
        sa.Column("user_id", ID, primary_key=True),
        sa.Column("subject_id", ID, nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("name", JSON, nullable=False),
        sa.Column("name_index", sa.String(length=64), nullable=False),
        sa.Column("password_hash", JSON),
        sa.Column("totp", JSON),
        sa.Column("totp_step", sa.BigInteger()),
        sa.Column("outside_index", sa.String(length=64)),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("added_at", TIME, nullable=False),
        sa.Column("last_seen_at", TIME),
    )
    op.create_index("users_subject", "users", ["subject_id"])
    op.create_index("users_name", "users", ["name_index"], unique=True)
    op.create_index("users_outside", "users", ["outside_index"], unique=True)
    op.create_table(
        "sessions",
        sa.Column("session_hash", sa.String(length=64), primary_key=True),
        sa.Column("user_id", ID, sa.ForeignKey("users.user_id", ondelete="CASCADE"), nullable=False),
        sa.Column("method", sa.String(length=16), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
    )
    op.create_index("sessions_user", "sessions", ["user_id"])
    op.create_index("sessions_expiry", "sessions", ["expires_at"])
