"""A client as the authorization server sees it: what it may ask for, and what its proof is compared with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

from authlib.oauth2.rfc6749 import ClientMixin
from authlib.oauth2.rfc6749.errors import InvalidScopeError
from sqlalchemy import Connection, Row, bindparam, select

from audit.errors import KeyDestroyed
from audit.reading import reading
from gateway.auth.proof.refused import ClientRefused
from gateway.auth.redirects import is_registered
from gateway.auth.roster import AuthMethod, ClientStatus, is_client_id
from gateway.auth.scopes import Role, Scope, ScopeRefused, granted, read_given, scope_text
from gateway.auth.tokens import AuthenticatedClient
from gateway.services import Services
from gateway.tables import clients

_NOBODY = str(UUID(int=0))
_WITHOUT_PROOF = frozenset({AuthMethod.REGISTRATION, AuthMethod.OUTSIDE})
_BY_ID = select(clients).where(clients.c.client_id == bindparam("id"))
_HELD = _BY_ID.with_for_update(read=True)


@dataclass(frozen=True, slots=True, repr=False)  # Authlib logs clients: this one says nothing of itself
class OAuthClient(ClientMixin):  # type: ignore[misc]
    """A client that keeps a secret or a key: there are no others (RFC 9700, section 2.1).

    Args:
        token_format: `opaque` or `jwt`.
        redirect_uris: where codes of people may be sent, compared whole; none: it acts for no people.
        jwks: the public keys that it signs with, or that its certificate is compared with.
        subject_dn: the subject of its certificate (RFC 4514).
        mark: changes whenever what it proves itself with is changed.
        extra: scopes that it was given by name.
    """

    client_id: str
    subject_id: str
    role: Role
    status: ClientStatus
    auth_method: AuthMethod
    secret_hash: str | None = None
    token_format: str = "opaque"  # noqa: S105 - a format's name
    redirect_uris: tuple[str, ...] = ()
    jwks: dict[str, Any] | None = None
    subject_dn: str | None = None
    mark: str = ""
    extra: tuple[Scope, ...] = ()

    def get_client_id(self) -> str:
        """Its id."""
        return self.client_id

    def get_default_redirect_uri(self) -> None:
        """None: a client always says where a code is to be sent."""

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Whether it is registered (`gateway.auth.redirects`)."""
        return is_registered(redirect_uri, self.redirect_uris)

    def check_response_type(self, response_type: str) -> bool:
        """Codes, for clients that act for people."""
        return response_type == "code" and bool(self.redirect_uris)

    def check_grant_type(self, grant_type: str) -> bool:
        """For itself if it proves itself; for people if it says where their codes are to be sent."""
        match grant_type:
            case "client_credentials":
                return self.auth_method not in _WITHOUT_PROOF
            case "authorization_code" | "refresh_token":
                return bool(self.redirect_uris)
            case _:
                return False

    def get_allowed_scope(self, scope: str | None) -> str:
        """The scope of a new token."""
        try:
            return scope_text(granted(self.role, scope, self.extra))
        except ScopeRefused as error:
            raise InvalidScopeError("A scope is unknown or beyond the client's role") from error

    def authenticated(self) -> AuthenticatedClient:
        """The client as the one who acts."""
        return AuthenticatedClient(self.client_id, self.subject_id, self.role, frozenset())


def find_client(services: Services, client_id: str) -> OAuthClient | None:
    """The client of that id, active or not; None if there is none. What is no id at all costs the same query."""
    wanted = client_id if is_client_id(client_id) else _NOBODY
    with reading(services.engine) as conn:
        row = conn.execute(_BY_ID, {"id": wanted}).one_or_none()
    return _read(services, row) if row is not None else None


def confirm(conn: Connection, client: OAuthClient) -> None:
    """Insist that the proof is still the client's, and hold it so until this transaction ends.

    Who changes it waits, and then ends the tokens that this transaction stores; a change that came first is seen.

    Raises:
        ClientRefused: it was changed, or the client was shut out or erased, since it proved itself.
    """
    row = conn.execute(_HELD, {"id": client.client_id}).one_or_none()
    if row is None or row.status != ClientStatus.ACTIVE or _mark(row) != client.mark:
        raise ClientRefused(reason="PROOF_CHANGED", is_counted=False)


def _mark(row: Row[Any]) -> str:
    """A fingerprint of what is kept of the proof, which is hashed or sealed; it needs no key."""
    kept = [row.auth_method, row.secret_hash, row.jwks, row.subject_dn]
    return sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _read(services: Services, row: Row[Any]) -> OAuthClient | None:
    def opened(column: str, stored: Any) -> Any:
        if stored is None:
            return None
        return services.sealer.open_column(stored, "clients", column, row.client_id)

    try:
        return OAuthClient(
            client_id=row.client_id,
            subject_id=row.subject_id,
            role=Role(row.role),
            status=ClientStatus(row.status),
            auth_method=AuthMethod(row.auth_method),
            secret_hash=row.secret_hash,
            token_format=row.token_format or "opaque",
            redirect_uris=tuple(row.redirect_uris or ()),
            jwks=opened("jwks", row.jwks),
            subject_dn=opened("subject_dn", row.subject_dn),
            mark=_mark(row),
            extra=read_given(row.extra_scopes),
        )
    except KeyDestroyed:  # the person is erased: so is the proof
        return None
