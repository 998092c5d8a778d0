"""Alembic's entry: runs on the connection that `gateway.storage.migrating` (or a test) hands in."""

from __future__ import annotations

from alembic import context

import audit.tables
import compliance.tables
import gateway.tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=[audit.tables.metadata, compliance.tables.metadata, gateway.tables.metadata],
    transaction_per_migration=False,
)
context.run_migrations()
