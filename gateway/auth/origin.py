"""Who a request's entries name as their actor: nobody until a credential proves a client."""

from __future__ import annotations

from audit.draft import UNPROVEN, Personal
from gateway.auth.tokens import AuthenticatedClient
from gateway.trail import Origin


def proven(client: AuthenticatedClient, origin: Origin) -> Origin:
    """The origin with the client as actor; the address is sealed under the same person."""
    actor = Personal(client.subject_id, {"client_id": client.client_id, "role": client.role.value})
    return _owned_by(client.subject_id, actor, origin)


def unproven(origin: Origin) -> Origin:
    """The origin without a person: for who proved nothing, or is being erased."""
    return _owned_by(UNPROVEN, Personal(UNPROVEN, "unproven"), origin)


def address_of(origin: Origin) -> str:
    """The peer's address, or nothing."""
    return str(origin.ip_address.value) if origin.ip_address else ""


def _owned_by(subject: str, actor: Personal, origin: Origin) -> Origin:
    address = origin.ip_address and Personal(subject, origin.ip_address.value)
    return Origin(actor, address, origin.request_id, origin.trace_id)
