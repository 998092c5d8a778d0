"""How a client proves who it is: a secret, a signed assertion, or the certificate of its TLS connection.

Importing this package stays light, so that a command that adds a client loads no web framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.auth.methods import METHODS, methods_offered
    from gateway.auth.proof.authentication import authenticate
    from gateway.auth.proof.client import OAuthClient, confirm, find_client
    from gateway.auth.proof.refused import ClientRefused

_HOMES = {
    "ClientRefused": "gateway.auth.proof.refused",
    "METHODS": "gateway.auth.methods",
    "OAuthClient": "gateway.auth.proof.client",
    "authenticate": "gateway.auth.proof.authentication",
    "confirm": "gateway.auth.proof.client",
    "find_client": "gateway.auth.proof.client",
    "methods_offered": "gateway.auth.methods",
}

__all__ = [
    "METHODS",
    "ClientRefused",
    "OAuthClient",
    "authenticate",
    "confirm",
    "find_client",
    "methods_offered",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
