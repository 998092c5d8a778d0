"""Tells when a login may do more to the log than its work needs (RULES 24)."""

from __future__ import annotations

from sqlalchemy import make_url

from gateway.config import Config
from gateway.doctor.errors import Risky
from gateway.doctor.stores import looked_at
from gateway.storage.rights import APP, SEQUENCER, excess_of

_WHERE = "see docs/postgresql.md"


def database_rights(config: Config) -> str:
    """The logins of gateway and sequencer have the rights of their roles, and no more."""
    if make_url(config.database_url).get_backend_name() != "postgresql":
        return "SQLite has no roles: the log's triggers stand alone"
    _insist(config, config.database_url, "FLG_DATABASE_URL", APP)
    if config.sequencer_database_url:
        _insist(config, config.sequencer_database_url, "FLG_SEQUENCER_DATABASE_URL", SEQUENCER)
    return "the logins may do what they need to, and no more"


def _insist(config: Config, url: str, setting: str, role: str) -> None:
    with looked_at(config, url, "main") as conn:
        excess = excess_of(conn, role)
    if excess:
        raise Risky(
            f"the login of {setting} {excess}: whoever takes the process over can do it too. Let `fl-gateway db grant` "
            f"make the roles, and give this login {role} alone; {_WHERE}"
        )
