"""Who stands at the other end of the socket: the TLS front, whose word counts, or somebody whose word does not.

What a front says (`X-Forwarded-*`, the client's certificate) is read here and nowhere else, and from nobody but it.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import unquote

from flask import request

from gateway.auth.client_certificate import ClientCertificate, read_certificate
from gateway.auth.fronts import parse_fronts
from gateway.services import current_services

CERTIFICATE, VERDICT = "X-SSL-Client-Cert", "X-SSL-Client-Verify"
_LONGEST_CERTIFICATE = 16_384
_PARSED_CERTIFICATES = 1024
_PEERS = 1024  # few: those of sockets, not the addresses that a front tells


def comes_from_front() -> bool:
    """Whether a TLS front passed this request on."""
    return _is_front(current_services().config.trusted_proxy, request.remote_addr)


def came_by_tls() -> bool:
    """Whether the client spoke TLS, to us or to the front."""
    return request.is_secure or (comes_from_front() and request.headers.get("X-Forwarded-Proto") == "https")


def client_address() -> str:
    """The address of the client; behind a front it is what the front says."""
    if comes_from_front():
        return request.headers.get("X-Forwarded-For", request.remote_addr or "").rpartition(",")[2].strip()
    return request.remote_addr or ""


def asked_url() -> str:
    """The gateway's absolute URL as the client called it, without a slash at its end."""
    return f"{'https' if came_by_tls() else 'http'}://{request.host}"


def presented_certificate() -> ClientCertificate | None:
    """The certificate that the client showed to the TLS front, or None; nobody but a front is believed."""
    escaped = request.headers.get(CERTIFICATE, "")
    if not escaped or not comes_from_front():
        return None
    return _parse_certificate(escaped, request.headers.get(VERDICT, ""))


def forges_certificate() -> bool:
    """Whether somebody who is no front says which certificate a client holds."""
    return bool(request.headers.get(CERTIFICATE) or request.headers.get(VERDICT)) and not comes_from_front()


@lru_cache(maxsize=_PEERS)
def _is_front(fronts: str, peer: str | None) -> bool:
    return parse_fronts(fronts).have(peer)


@lru_cache(maxsize=_PARSED_CERTIFICATES)
def _parse_certificate(escaped: str, verdict: str) -> ClientCertificate | None:
    """What the front's headers say; nginx escapes the PEM text as a URL does, and says NONE for no certificate."""
    if len(escaped) > _LONGEST_CERTIFICATE or not (verdict == "SUCCESS" or verdict.startswith("FAILED")):
        return None
    try:
        return read_certificate(unquote(escaped).encode(), is_verified=verdict == "SUCCESS")
    except ValueError:
        return None
