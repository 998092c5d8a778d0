"""From the text of a bearer token to what it is: the one way in, through the cache of verdicts."""

from __future__ import annotations

import re

from gateway.auth.jose import LONGEST_JWT, OUTSIDE_ALGORITHMS, BadJwt, ReadJwt, looks_signed, read_jwt
from gateway.auth.secrets import digest
from gateway.auth.tokens.signed import hash_of_jwt, is_own, judge_own
from gateway.auth.tokens.stored import find_stored, has_stored_form
from gateway.auth.tokens.token import BearerToken
from gateway.services import Services
from gateway.storage.verdicts import PART_S

OUR_PREFIX = "flg_"
_FORM = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # b64token of RFC 6750, section 2.1


def find(services: Services, bearer: str) -> BearerToken | None:
    """The token of that text, good or not, or None if there is none.

    A text that can be no token costs no look at the database, and one that only looks like one costs one.
    """
    if has_stored_form(bearer):
        token_hash = digest(bearer)
        return services.verdicts.find(token_hash, lambda: find_stored(services, bearer, token_hash))
    if len(bearer) > LONGEST_JWT or not _FORM.fullmatch(bearer):
        return None
    if looks_signed(bearer):
        signature = bearer.rpartition(".")[2]  # in the key, or a false one would pass after a right one
        return services.verdicts.find(
            hash_of_jwt(bearer) + signature, lambda: _judge(services, bearer), longest_s=PART_S
        )
    if not services.config.trusted_issuers or bearer.startswith(OUR_PREFIX):
        return None
    return services.verdicts.find(digest(bearer), lambda: _ask_outside(services, bearer, None))


def find_own(services: Services, bearer: str) -> BearerToken | None:
    """The same for tokens that we have issued alone; nobody else is asked."""
    if not looks_signed(bearer):
        return find(services, bearer) if has_stored_form(bearer) else None
    try:
        jwt = read_jwt(bearer)
        return judge_own(services, jwt) if is_own(services, jwt) else None
    except BadJwt:
        return None


def _judge(services: Services, bearer: str) -> BearerToken | None:
    try:
        jwt = read_jwt(bearer, OUTSIDE_ALGORITHMS)
        if is_own(services, jwt):
            return judge_own(services, jwt)
    except BadJwt:
        return None
    return _ask_outside(services, bearer, jwt) if services.config.trusted_issuers else None


def _ask_outside(services: Services, bearer: str, jwt: ReadJwt | None) -> BearerToken | None:
    from gateway.auth.issuers import find_outside  # most gateways have no outside issuer

    return find_outside(services, bearer, jwt)
