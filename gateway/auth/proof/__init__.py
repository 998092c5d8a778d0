"""How a client proves who it is: a secret, a signed assertion, or the certificate of its TLS connection."""

from __future__ import annotations

from gateway.auth.methods import METHODS, methods_offered
from gateway.auth.proof.authentication import authenticate
from gateway.auth.proof.client import OAuthClient, confirm, find_client
from gateway.auth.proof.refused import ClientRefused

__all__ = [
    "METHODS",
    "ClientRefused",
    "OAuthClient",
    "authenticate",
    "confirm",
    "find_client",
    "methods_offered",
]
