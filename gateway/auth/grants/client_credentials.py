"""The client credentials grant (RFC 6749, section 4.4): a client acts for itself."""

from __future__ import annotations

from typing import Any

from authlib.oauth2.rfc6749 import ClientCredentialsGrant

from compliance.errors import SubjectErased, SubjectErasing
from gateway.auth.grants.issue import answer_of, entry_of
from gateway.auth.issuing import new_access_token, store_access_token
from gateway.auth.methods import METHODS
from gateway.auth.proof import ClientRefused, confirm
from gateway.services import current_services


class ClientCredentials(ClientCredentialsGrant):  # type: ignore[misc]
    """The client credentials grant; unlike Authlib's it writes no token into the debug log."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def create_token_response(self) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        """Issue a token; it and its entry commit together."""
        services, client = current_services(), self.request.client
        scopes = tuple(client.get_allowed_scope(self.request.payload.scope).split())
        token = new_access_token(services, client, scopes, user=None, thumbprint=self.request.thumbprint)
        try:
            entry = entry_of(services, self.request, token)
            with services.engine.begin() as conn:
                confirm(conn, client)
                store_access_token(conn, services, token, client_id=client.client_id)
                services.trail.write(conn, entry)
        except (SubjectErased, SubjectErasing) as error:
            raise ClientRefused from error
        return 200, answer_of(token), self.TOKEN_RESPONSE_HEADER
