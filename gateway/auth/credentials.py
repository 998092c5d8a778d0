"""Client authentication by secret (RFC 6749, section 2.3.1): one answer, in one time, for every wrong one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from authlib.oauth2.rfc6749 import ClientMixin
from authlib.oauth2.rfc6749.errors import InvalidClientError, InvalidRequestError, InvalidScopeError
from flask import g, request
from sqlalchemy import select

from audit.reading import reading
from gateway.auth.origin import address_of, proven
from gateway.auth.rate_limits import count_auth_failure
from gateway.auth.roster import ClientStatus, is_client_id
from gateway.auth.scopes import Role, ScopeRefused, granted, scope_text
from gateway.auth.secrets import matches
from gateway.auth.tokens import AuthenticatedClient
from gateway.services import Services, current_services
from gateway.tables import clients

METHODS = ("client_secret_basic", "client_secret_post")
_NOBODY = str(UUID(int=0))


class ClientRefused(InvalidClientError):  # type: ignore[misc]
    """The client is unknown, its secret wrong, or it may not come in: the answer does not say which."""

    def __init__(self) -> None:
        super().__init__("The client id or its secret is wrong, or the client is suspended", status_code=401)

    def get_headers(self) -> list[tuple[str, str]]:
        """The JSON headers and the challenge."""
        plain = [pair for pair in super().get_headers() if pair[0] != "WWW-Authenticate"]
        return [*plain, ("WWW-Authenticate", 'Basic realm="fl-gateway", charset="UTF-8"')]


@dataclass(frozen=True, slots=True, repr=False)  # Authlib logs clients: this one says nothing of itself
class OAuthClient(ClientMixin):  # type: ignore[misc]
    """A client as the authorization server sees it."""

    client_id: str
    subject_id: str
    role: Role
    status: ClientStatus
    secret_hash: str | None

    def get_client_id(self) -> str:
        """Its id."""
        return self.client_id

    def check_grant_type(self, grant_type: str) -> bool:
        """Client credentials, and nothing else."""
        return grant_type == "client_credentials"

    def get_allowed_scope(self, scope: str | None) -> str:
        """The scope of a new token."""
        try:
            return scope_text(granted(self.role, scope))
        except ScopeRefused as error:
            raise InvalidScopeError("A scope is unknown or beyond the client's role") from error

    def authenticated(self) -> AuthenticatedClient:
        """The client as the one who acts."""
        return AuthenticatedClient(self.client_id, self.subject_id, self.role, frozenset())


@dataclass(frozen=True, slots=True)
class _Presented:
    """What the request says of its client."""

    client_id: str
    secret: str = field(repr=False)
    method: str


def authenticate(oauth_request: Any) -> OAuthClient:
    """The client that sent the request; it becomes the actor of the request's entries.

    Raises:
        ClientRefused: no credentials, or wrong ones.
        InvalidRequestError: two of them.
        RateLimited: too many wrong secrets for this client from this address; a right one is never refused.
    """
    shown = _presented()
    g.claimed_client_id = shown.client_id
    client = _find(current_services(), shown.client_id)
    right = matches(shown.secret, client.secret_hash if client else None)
    if client is None or not right:
        count_auth_failure(address_of(g.origin), shown.client_id if is_client_id(shown.client_id) else "")
        raise ClientRefused
    g.origin = proven(client.authenticated(), g.origin)
    if client.status is not ClientStatus.ACTIVE:
        raise ClientRefused
    oauth_request.auth_method = shown.method
    return client


def _presented() -> _Presented:
    basic, form = request.authorization, request.form
    has_basic = basic is not None and basic.type == "basic"
    if has_basic and "client_secret" in form:
        raise InvalidRequestError("Send the secret once: in the Authorization header or in the form")
    if basic is not None and has_basic:
        client_id, secret, method = basic.username or "", basic.password or "", METHODS[0]
        if form.get("client_id", client_id) != client_id:
            raise InvalidRequestError("The form names another client than the Authorization header")
    else:
        client_id, secret, method = form.get("client_id", ""), form.get("client_secret", ""), METHODS[1]
    if not client_id and not secret:
        raise ClientRefused
    return _Presented(client_id, secret, method)


def _find(services: Services, client_id: str) -> OAuthClient | None:
    """The client of that id; what is no id at all costs the same query."""
    wanted = client_id if is_client_id(client_id) else _NOBODY
    with reading(services.engine) as conn:
        row = conn.execute(select(clients).where(clients.c.client_id == wanted)).one_or_none()
    if row is None:
        return None
    return OAuthClient(
        row.client_id, row.subject_id, Role(row.role), ClientStatus(row.status), row.secret_hash
    )
