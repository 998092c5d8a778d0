"""JWTs of our own (RFC 9068): a signature says who and what, the database only whether that still stands."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from sqlalchemy import bindparam, select

from audit.reading import glance
from gateway.auth.discovery import fixed_issuer, is_own_issuer
from gateway.auth.jose import (
    BadJwt,
    Fault,
    ReadJwt,
    certificate_binding,
    check_audience,
    check_times,
    check_type,
    scope_words,
    text_claim,
    time_claim,
    verify_jwt,
)
from gateway.auth.roster import is_client_id
from gateway.auth.scopes import scopes_of
from gateway.auth.tokens.keys import own_keys
from gateway.auth.tokens.standing import client_standing, person_standing
from gateway.auth.tokens.token import ACTIVE, AuthenticatedClient, BearerToken, TokenKind
from gateway.services import Services
from gateway.storage.lookup import LookUp
from gateway.storage.verdicts import PART_S
from gateway.tables import revoked_tokens

TYPE = "at+jwt"
LEEWAY_S = 5.0
MOST_KEPT = 500
_REVOKED = select(revoked_tokens.c.token_hash)
_ENDS = revoked_tokens.c.expires_at
_LIST = _REVOKED.where(bindparam("now") < _ENDS).order_by(_ENDS.desc()).limit(MOST_KEPT + 1)
_ONE = LookUp(_REVOKED.where(revoked_tokens.c.token_hash == bindparam("digest")), "digest")


def hash_of_jwt(text: str) -> str:
    """What a JWT is known by in our tables: the hash of what was signed, whatever form its signature has."""
    return sha256(text.rpartition(".")[0].encode()).hexdigest()


def is_own(services: Services, jwt: ReadJwt) -> bool:
    """Whether a JWT says that it is ours: by its issuer, or by its key where no issuer is settled."""
    settled = fixed_issuer(services.config)
    return jwt.claims.get("iss") == settled if settled else jwt.kid in own_keys(services)


def judge_own(services: Services, jwt: ReadJwt) -> BearerToken | None:
    """The token that a JWT of our own is; None if it was ended, or its client is gone.

    Raises:
        BadJwt: it is not of our making, not for us, over, or bound to what we cannot check.
    """
    claims = jwt.claims
    check_type(jwt, TYPE)
    if not is_own_issuer(services.config, issuer := text_claim(claims, "iss")):
        raise BadJwt(Fault.ISSUER)
    check_audience(claims, issuer)
    check_times(claims, services.clock(), LEEWAY_S)
    # Before what costs more than it can save: so a forgery costs less than a good token.
    verify_jwt(jwt, own_keys(services))
    if not all(is_client_id(text_claim(claims, name)) for name in ("client_id", "sub")):
        raise BadJwt(Fault.CLAIM)
    text_claim(claims, "jti")
    time_claim(claims, "iat")
    scopes, thumbprint = scopes_of(" ".join(scope_words(claims))), certificate_binding(claims)
    token_hash = hash_of_jwt(jwt.text)
    if _is_revoked(services, token_hash):
        return None
    return _spoken_for(services, claims, scopes, thumbprint, token_hash)


def _is_revoked(services: Services, token_hash: str) -> bool:
    """Whether a JWT was ended before its time: most days so few are that all of them are kept at hand."""

    def load() -> frozenset[str]:
        with glance(services.engine) as conn:
            return frozenset(conn.execute(_LIST, {"now": services.clock()}).scalars())

    moved = services.state.endings.of_any()
    kept = services.verdicts.find("revoked tokens", load, epoch=moved, longest_s=PART_S)
    if kept is not None and (token_hash in kept or len(kept) <= MOST_KEPT):
        return token_hash in kept
    return _ONE.one(services.engine, token_hash) is not None


def _spoken_for(
    services: Services,
    told: Mapping[str, Any],
    scopes: frozenset[str],
    thumbprint: str | None,
    token_hash: str,
) -> BearerToken | None:
    """The token with its client and person as they stand now."""
    client = client_standing(services, told["client_id"])
    person = None if told["sub"] == told["client_id"] else person_standing(services, told["sub"])
    if client is None or (person is None and told["sub"] != told["client_id"]):
        return None
    owner = person or client
    return BearerToken(
        AuthenticatedClient(
            told["client_id"], owner.subject_id, owner.role, scopes, told["sub"] if person else None
        ),
        TokenKind.ACCESS,
        client.status if client.status != ACTIVE else owner.status,
        datetime.fromtimestamp(time_claim(told, "iat"), UTC),
        datetime.fromtimestamp(time_claim(told, "exp"), UTC),
        client.last_seen_at,
        thumbprint,
        token_hash=token_hash,
        is_jwt=True,
    )
