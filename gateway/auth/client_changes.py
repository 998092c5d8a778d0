"""How an operator changes what a client proves itself with; what was issued on the old proof ends with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, select, update

from audit.draft import Personal
from audit.events import EventType
from gateway.auth.proof.key_set import checked_key_set
from gateway.auth.proof.subject_dn import checked_subject_dn
from gateway.auth.proof.terms import ADDABLE, WITH_KEYS, check_redirect_uris, sealed_proof
from gateway.auth.roster import AuthMethod, ClientStatus, find_row
from gateway.auth.secrets import SecretKind, digest, new_secret
from gateway.auth.tokens import end_tokens_of_client
from gateway.errors import BadRequest, Conflict, NotFound
from gateway.services import Services
from gateway.tables import clients


class NothingToChange(BadRequest):
    """A change was asked for that changes nothing, or what this client does not have."""

    code = "NOTHING_TO_CHANGE"
    title = "Say what is to be another: keys, subject, secret or redirect URIs"


@dataclass(frozen=True, slots=True)
class ClientChange:
    """What is to be another; None leaves it as it is.

    Args:
        jwks: the public keys that take the place of all there were.
        subject_dn: the subject of its certificate.
        rotates_secret: it gets a new secret.
        redirect_uris: those that take the place of all there were; empty: it acts for people no more.
    """

    jwks: Any = field(default=None, repr=False)
    subject_dn: str | None = field(default=None, repr=False)
    rotates_secret: bool = False
    redirect_uris: Sequence[str] | None = None

    @property
    def names(self) -> list[str]:
        """What is changed, for the audit entry."""
        told = {
            "jwks": self.jwks is not None,
            "subject_dn": self.subject_dn is not None,
            "secret": self.rotates_secret,
            "redirect_uris": self.redirect_uris is not None,
        }
        return [name for name, is_told in told.items() if is_told]

    @property
    def ends_tokens(self) -> bool:
        """Whether what was issued so far must end: on another proof, or for people for whom it acts no more."""
        ends_consents = self.redirect_uris is not None and not self.redirect_uris
        return ends_consents or self.names not in ([], ["redirect_uris"])


def change_client(services: Services, client_id: str, change: ClientChange) -> str:
    """Change a client; with another proof, or without redirect URIs, all its tokens end at the commit.

    Returns:
        The new secret, which is shown this once; empty if there is none.

    Raises:
        NotFound: there is no such client.
        NothingToChange: nothing is to be another, or the client proves itself in another way.
        Conflict: it was revoked, or proves itself by its registration token.
        TermsRefused, KeySetRefused, SubjectDnRefused: the new proof cannot be taken.
    """
    found = find_row(services, client_id)
    secret = new_secret(SecretKind.CLIENT_SECRET) if change.rotates_secret else ""
    columns = _columns(services, found, change, secret)
    entry = services.trail.draft(
        EventType.CLIENT_CHANGED,
        resource="clients",
        details={
            "client_id": Personal(found.subject_id, client_id),
            "role": found.role,
            "changed": change.names,
        },
    )
    chosen = clients.c.client_id == client_id
    with services.engine.begin() as conn:
        status = conn.execute(select(clients.c.status).where(chosen).with_for_update()).scalar_one_or_none()
        if status is None:
            raise NotFound("There is no such client")
        if status == ClientStatus.REVOKED:
            raise Conflict("A client that is revoked cannot be changed: add a new one")
        conn.execute(update(clients).where(chosen).values(columns))
        if change.ends_tokens:
            end_tokens_of_client(conn, client_id)
        services.trail.write(conn, entry)
    return secret


def _columns(services: Services, found: Row[Any], change: ClientChange, secret: str) -> dict[str, Any]:
    """The columns that change."""
    auth = AuthMethod(found.auth_method)
    if auth not in ADDABLE:
        raise Conflict(
            "This client was not added here, and has no proof of its own: it registers, or its issuer knows it"
        )
    if not change.names:
        raise NothingToChange
    _insist(auth, "a secret", change.rotates_secret, auth is AuthMethod.CLIENT_SECRET)
    _insist(auth, "keys", change.jwks is not None, auth in WITH_KEYS)
    _insist(auth, "a subject", change.subject_dn is not None, auth is AuthMethod.TLS_CLIENT_AUTH)
    jwks = checked_key_set(change.jwks, auth) if change.jwks is not None else None
    subject_dn = checked_subject_dn(change.subject_dn) if change.subject_dn is not None else None
    columns: dict[str, Any] = dict(
        sealed_proof(services, found.client_id, found.subject_id, jwks=jwks, subject_dn=subject_dn)
    )
    if change.rotates_secret:
        columns["secret_hash"] = digest(secret)
    if change.redirect_uris is not None:
        check_redirect_uris(change.redirect_uris)
        columns["redirect_uris"] = list(change.redirect_uris) or None
    return columns


def _insist(auth: AuthMethod, what: str, is_wished: bool, has_it: bool) -> None:
    if is_wished and not has_it:
        raise NothingToChange(f"A client that proves itself by {auth.value} does not have {what} to change")
