"""The authorization code grant with PKCE (RFC 6749, section 4.1; RFC 7636; RFC 9700): a client acts for a person."""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any, NoReturn

from authlib.oauth2.rfc6749 import AuthorizationCodeGrant
from authlib.oauth2.rfc6749.errors import AccessDeniedError, InvalidGrantError, InvalidRequestError
from authlib.oauth2.rfc7636 import CodeChallenge

from audit.draft import Personal
from audit.events import EventType
from compliance.errors import SubjectErased, SubjectErasing
from gateway.auth.discovery import settled_issuer
from gateway.auth.grants.codes import StoredCode, find_code, insert_code, use_code
from gateway.auth.grants.families import (
    FamilyEnded,
    Shown,
    ShownTwice,
    end_reused,
    hold_parties,
    person_for,
    shared_scope,
)
from gateway.auth.grants.issue import answer_of, entry_of
from gateway.auth.grants.refresh import store_pair
from gateway.auth.grants.wish import Wish, read_wish
from gateway.auth.issuing import new_access_token
from gateway.auth.methods import METHODS
from gateway.auth.people import Person
from gateway.auth.people.sessions import stands
from gateway.auth.proof import OAuthClient
from gateway.auth.redirects import with_answer
from gateway.auth.secrets import SecretKind, new_secret
from gateway.services import Services, current_services

_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636, section 4.1


class CodeRefused(InvalidGrantError):  # type: ignore[misc]
    """A code that opens nothing; the answer does not say why."""

    description = "The code is unknown, used, expired, or was given for another client or redirect_uri"


class S256Challenge(CodeChallenge):  # type: ignore[misc]
    """PKCE; unlike Authlib's it knows S256 alone, compares in constant time and takes no line end for a verifier's."""

    def validate_code_challenge(self, grant: AuthorizationCode, redirect_uri: str) -> None:
        """Nothing is left to do: `read_wish` has judged the challenge."""

    def validate_code_verifier(self, grant: AuthorizationCode, _result: object) -> None:
        """Let only the one exchange the code who asked for it (RFC 7636, section 4.6)."""
        verifier = grant.request.form.get("code_verifier")
        if not verifier:
            raise InvalidRequestError("The parameter code_verifier is missing")
        if not _VERIFIER.fullmatch(verifier):
            raise InvalidRequestError("A code_verifier has 43 to 128 letters, digits and marks of - . _ ~")
        if not hmac.compare_digest(challenge_of(verifier), grant.request.authorization_code.code_challenge):
            raise InvalidGrantError("The code_verifier does not fit the code_challenge")


class AuthorizationCode(AuthorizationCodeGrant):  # type: ignore[misc]
    """Authlib's frame: asks the person, sends the code, and exchanges it once."""

    TOKEN_ENDPOINT_AUTH_METHODS = METHODS
    wish: Wish

    @staticmethod
    def validate_no_multiple_request_parameter(_request: Any) -> None:
        """Nothing is left to do: `read_wish` looks at all parameters, and knows whether it may redirect."""

    def validate_authorization_request(self) -> str:
        """Judge what the client wishes; answers where its answer goes."""
        self.wish = read_wish(self.request.payload.datalist, self.server.query_client)
        self.request.client, self.request.scope = self.wish.client, self.wish.scope
        return self.wish.redirect_uri

    def create_authorization_response(self, redirect_uri: str, grant_user: Person | None) -> str:
        """The URI that takes the person's answer to the client, with a new code (RFC 9207: and who answers).

        Raises:
            AccessDeniedError: the person said no, or may do nothing of it.
        """
        scope = shared_scope(self.wish.scope, grant_user) if grant_user else ""
        if grant_user is None or not scope:
            raise AccessDeniedError("The person did not allow it", redirect_uri=redirect_uri)
        services, code = current_services(), new_secret(SecretKind.AUTHORIZATION_CODE)
        try:
            _store(services, code, self.wish, grant_user, scope)
        except (FamilyEnded, SubjectErased, SubjectErasing) as error:
            raise AccessDeniedError("The person did not allow it", redirect_uri=redirect_uri) from error
        state = {"state": self.wish.state} if self.wish.state else {}
        return with_answer(redirect_uri, {"code": code, **state, "iss": settled_issuer(services.config)})

    def query_authorization_code(self, code: str, client: OAuthClient) -> StoredCode:
        """The code, if it is good and this client's.

        Raises:
            CodeRefused: it is not; one that was used before takes all with it that followed from it.
        """
        services = current_services()
        found = find_code(services, code)
        if found is not None and found.is_used:
            _end_reused(services, found, client)
        if found is None or found.family.client_id != client.client_id:
            raise CodeRefused
        if services.clock() >= found.expires_at:
            raise CodeRefused
        return found

    def create_token_response(self) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        """Exchange the code; the code's end, the tokens and their entry commit together."""
        services, code = current_services(), self.request.authorization_code
        person = person_for(services, code.family)
        if person is None:
            raise CodeRefused
        try:
            answer = self._exchange(services, code, person)
        except ShownTwice:
            _end_reused(services, code, self.request.client)
        except (FamilyEnded, SubjectErased, SubjectErasing) as error:
            raise CodeRefused from error
        return 200, answer, self.TOKEN_RESPONSE_HEADER

    def _exchange(self, services: Services, code: StoredCode, person: Person) -> dict[str, Any]:
        family, client, refresh_token = code.family, self.request.client, new_secret(SecretKind.REFRESH_TOKEN)
        token = new_access_token(
            services, client, tuple(family.scope.split()), user=person, thumbprint=self.request.thumbprint
        )
        entry = entry_of(services, self.request, token, person)
        with services.engine.begin() as conn:
            hold_parties(conn, client, person)
            use_code(conn, code, services.clock())
            store_pair(conn, services, token, refresh_token, family)
            services.trail.write(conn, entry)
        return answer_of(token, refresh_token=refresh_token)


def challenge_of(verifier: str) -> str:
    """The S256 challenge of a verifier."""
    return urlsafe_b64encode(sha256(verifier.encode("ascii")).digest()).rstrip(b"=").decode()


def _store(services: Services, code: str, wish: Wish, person: Person, scope: str) -> None:
    """Keep the code and the person's consent, in one transaction.

    Raises:
        FamilyEnded: the person's session or access ended since the page was asked for.
    """
    client = wish.client
    entry = services.trail.draft(
        EventType.ACCESS_GRANTED,
        resource="clients",
        details={"scope": scope, "client_id": Personal(client.subject_id, client.client_id)},
        actor=person.acting(),
    )
    with services.engine.begin() as conn:
        hold_parties(conn, client, person)
        if not stands(conn, person):
            raise FamilyEnded
        insert_code(conn, code, wish, person, scope, services.clock())
        services.trail.write(conn, entry)


def _end_reused(services: Services, code: StoredCode, client: OAuthClient) -> NoReturn:
    try:
        end_reused(services, code.family, client, Shown.CODE)
    except (FamilyEnded, SubjectErased, SubjectErasing) as error:
        raise CodeRefused from error
    raise CodeRefused
