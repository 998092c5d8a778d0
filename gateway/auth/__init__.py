"""Who may come in: clients, tokens, scopes, rate limits, and the record of who was turned away."""

from __future__ import annotations

from gateway.auth.admission import admit, current_client, install_auth
from gateway.auth.scopes import Role, Scope
from gateway.auth.tokens import AuthenticatedClient

__all__ = ["AuthenticatedClient", "Role", "Scope", "admit", "current_client", "install_auth"]
