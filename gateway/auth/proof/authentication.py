"""Client authentication (RFC 6749, section 2.3): one proof a request, by exactly the registered method."""

from __future__ import annotations

from typing import Any, assert_never

from flask import g

from gateway.auth.discovery import settled_issuer
from gateway.auth.origin import address_of, proven
from gateway.auth.proof.assertion import Assertion, check_assertion, read_assertion
from gateway.auth.proof.certificate import check_certificate
from gateway.auth.proof.client import OAuthClient, find_client
from gateway.auth.proof.presented import Shown, ShownAssertion, ShownCertificate, ShownSecret, presented
from gateway.auth.proof.refused import ClientRefused
from gateway.auth.proof.replay import take_once
from gateway.auth.proof.secret import check_secret
from gateway.auth.rate_limits import count_auth_failure
from gateway.auth.roster import ClientStatus, is_client_id
from gateway.config import Config
from gateway.services import Services, current_services


def authenticate(oauth_request: Any) -> OAuthClient:
    """The client that sent the request; it becomes the actor of the request's entries.

    Sets `oauth_request.auth_method`, and `oauth_request.thumbprint` where a certificate was the proof.

    Raises:
        ClientRefused: no proof, or a wrong one.
        InvalidRequestError: two of them.
        RateLimited: too many wrong proofs for this client from this address; a right one is never refused.
    """
    oauth_request.thumbprint = None
    try:
        shown = presented()
        if shown is None:
            raise ClientRefused(is_counted=False)
        g.claimed_client_id = shown.client_id
        client = _proven(current_services(), shown)
    except ClientRefused as refused:
        if refused.is_counted:
            claimed = g.get("claimed_client_id", "")
            count_auth_failure(address_of(g.origin), claimed if is_client_id(claimed) else "")
        raise
    oauth_request.auth_method = shown.method if isinstance(shown, ShownSecret) else client.auth_method.value
    if isinstance(shown, ShownCertificate) and shown.certificate:
        oauth_request.thumbprint = shown.certificate.thumbprint
    return client


def _proven(services: Services, shown: Shown) -> OAuthClient:
    """The client, if its proof is right, it may come in, and the proof was not used before."""
    match shown:
        case ShownSecret():
            return _let_in(check_secret(shown, find_client(services, shown.client_id)))
        case ShownCertificate():
            client = find_client(services, shown.client_id)
            return _let_in(check_certificate(shown, client, services.clock()))
        case ShownAssertion():
            assertion = _read(services, shown)
            client = _let_in(check_assertion(assertion, find_client(services, assertion.client_id)))
            take_once(services, assertion)
            return client
        case _:
            assert_never(shown)


def _read(services: Services, shown: ShownAssertion) -> Assertion:
    assertion = read_assertion(shown, _audiences(services.config), services.clock())
    g.claimed_client_id = assertion.client_id
    return assertion


def _let_in(client: OAuthClient) -> OAuthClient:
    """The client, which has proven itself: what follows is done, or refused, in its name."""
    g.origin = proven(client.authenticated(), g.origin)
    if client.status is not ClientStatus.ACTIVE:
        raise ClientRefused(reason="CLIENT_NOT_ACTIVE", is_counted=False)
    return client


def _audiences(config: Config) -> frozenset[str]:
    """What an assertion may be made for; never what the Host header says, which its sender chooses."""
    issuer = settled_issuer(config)
    return frozenset({issuer, f"{config.public_url.rstrip('/') or issuer}/oauth/token"})
