"""Credentials travel encrypted, or never leave the machine (RFC 6749, section 1.6; RFC 6750, section 5.3)."""

from __future__ import annotations

from flask import request

from gateway.auth.fronts import Fronts
from gateway.auth.peer import comes_from_front
from gateway.errors import BadRequest

_HERE = Fronts(are_here=True, networks=())


class InsecureTransport(BadRequest):
    """A credential came in clear over a network."""

    code, title = "INSECURE_TRANSPORT", "Credentials may not travel in clear"
    is_about_credentials = True

    def __init__(self) -> None:
        super().__init__(
            "Come through the TLS front (which FLG_TRUSTED_PROXY must name) or from the same machine"
        )


def check_transport() -> None:
    """Let a credential in only over TLS, from the TLS front, or from this machine.

    Raises:
        InsecureTransport: the peer is on a network, and no TLS front is configured.
    """
    if not (request.is_secure or comes_from_front() or _HERE.have(request.remote_addr)):
        raise InsecureTransport
