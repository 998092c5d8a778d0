"""Credentials travel encrypted, or never leave the machine (RFC 6749, section 1.6; RFC 6750, section 5.3)."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from flask import request

from gateway.errors import BadRequest
from gateway.services import current_services


class InsecureTransport(BadRequest):
    """A credential came in clear over a network."""

    code, title = "INSECURE_TRANSPORT", "Credentials may not travel in clear"

    def __init__(self) -> None:
        super().__init__(
            "Come through the TLS front (behind it, set FLG_TRUSTED_PROXY=true) or from the same machine"
        )


def check_transport() -> None:
    """Let a credential in only over TLS, from the TLS front, or from this machine.

    Raises:
        InsecureTransport: the peer is on a network, and no TLS front is configured.
    """
    if not (request.is_secure or current_services().config.trusted_proxy or _is_here(request.remote_addr)):
        raise InsecureTransport


def _is_here(peer: str | None) -> bool:
    if not peer:  # a Unix socket has no address
        return True
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback
