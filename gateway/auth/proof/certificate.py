"""Proof by the certificate of the TLS connection (RFC 8705, section 2), as the TLS front saw it."""

from __future__ import annotations

from datetime import datetime

from gateway.auth.client_certificate import ClientCertificate
from gateway.auth.peer import forges_certificate
from gateway.auth.proof.client import OAuthClient
from gateway.auth.proof.key_set import has_certificate
from gateway.auth.proof.presented import ShownCertificate
from gateway.auth.proof.refused import ClientRefused
from gateway.auth.roster import AuthMethod


def check_certificate(shown: ShownCertificate, client: OAuthClient | None, now: datetime) -> OAuthClient:
    """The client, if the certificate is the registered one, and in its time.

    Raises:
        ClientRefused: it is not, or there is none that a TLS front vouches for.
    """
    certificate = shown.certificate
    if certificate is None:
        raise ClientRefused(reason="CERTIFICATE_FORGED" if forges_certificate() else "PROOF_MISSING")
    if not certificate.is_valid_at(now):
        raise ClientRefused(reason="CERTIFICATE_OUT_OF_TIME")
    if client is None or not _is_registered(certificate, client):
        raise ClientRefused(reason="CERTIFICATE_UNKNOWN")
    return client


def _is_registered(certificate: ClientCertificate, client: OAuthClient) -> bool:
    match client.auth_method:
        case AuthMethod.TLS_CLIENT_AUTH:  # RFC 8705, section 2.1: the authority says that the name is right
            return certificate.is_verified and client.subject_dn == certificate.subject_dn
        case AuthMethod.SELF_SIGNED_TLS_CLIENT_AUTH:  # section 2.2: whoever signed it
            return client.jwks is not None and has_certificate(client.jwks, certificate)
        case _:
            return False
