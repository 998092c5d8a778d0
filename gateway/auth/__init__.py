"""Who may come in: clients, tokens, scopes, rate limits, and the record of who was turned away.

Importing this package stays light, so that a command that adds a client loads no web framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.auth.admission import admit, current_client, install_auth
    from gateway.auth.scopes import Role, Scope
    from gateway.auth.tokens import AuthenticatedClient

_HOMES = {
    "AuthenticatedClient": "gateway.auth.tokens",
    "Role": "gateway.auth.scopes",
    "Scope": "gateway.auth.scopes",
    "admit": "gateway.auth.admission",
    "current_client": "gateway.auth.admission",
    "install_auth": "gateway.auth.admission",
}

__all__ = ["AuthenticatedClient", "Role", "Scope", "admit", "current_client", "install_auth"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
