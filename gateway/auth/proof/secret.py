"""Proof by a client secret (RFC 6749, section 2.3.1): one answer, in one time, for every wrong one."""

from __future__ import annotations

from gateway.auth.proof.client import OAuthClient
from gateway.auth.proof.presented import ShownSecret
from gateway.auth.proof.refused import ClientRefused
from gateway.auth.roster import AuthMethod
from gateway.auth.secrets import matches


def check_secret(shown: ShownSecret, client: OAuthClient | None) -> OAuthClient:
    """The client, if the secret is its own; a client that has none costs the same comparison.

    Raises:
        ClientRefused: it is not.
    """
    has_secret = client is not None and client.auth_method is AuthMethod.CLIENT_SECRET
    right = matches(shown.secret, client.secret_hash if client and has_secret else None)
    if client is None or not right:
        raise ClientRefused
    return client
