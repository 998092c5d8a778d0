"""Proof by a signed assertion (RFC 7523, sections 2.2 and 3; RFC 8725): read strictly, and taken once.

An assertion is good for five minutes from its `iat`, or from now if it has none, whatever its `exp` says beyond that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gateway.auth.jose import (
    BadJwt,
    Fault,
    ReadJwt,
    check_times,
    check_type,
    read_jwt,
    read_keys,
    text_claim,
    time_claim,
    verify_jwt,
)
from gateway.auth.proof.client import OAuthClient
from gateway.auth.proof.presented import ShownAssertion
from gateway.auth.proof.refused import ClientRefused
from gateway.auth.roster import AuthMethod, is_client_id

LEEWAY_S = 30.0
LONGEST_LIFE_S = 300.0
LONGEST_EXP_S = 3600.0
LONGEST_JTI = 256
_TYPES = ("", "jwt", "client-authentication+jwt")


@dataclass(frozen=True, slots=True)
class Assertion:
    """An assertion whose claims are as they must be; whether its client signed it is not known yet.

    Args:
        ends_at: from then on it is refused for its age.
    """

    jwt: ReadJwt
    client_id: str
    jti: str
    ends_at: datetime


def read_assertion(shown: ShownAssertion, audiences: frozenset[str], now: datetime) -> Assertion:
    """Take the assertion apart and judge what it says of itself.

    Args:
        shown: what came.
        audiences: what this server goes by: its issuer, its token endpoint.
        now: the time.

    Raises:
        ClientRefused: it is malformed, out of its time, or made for somebody else.
    """
    try:
        jwt = read_jwt(shown.text)
        check_type(jwt, *_TYPES)
        check_times(jwt.claims, now, LEEWAY_S)
        client_id, jti = text_claim(jwt.claims, "sub"), text_claim(jwt.claims, "jti")
        _check_audience(jwt.claims, audiences)
        ends_at_s = _end(jwt.claims, now.timestamp())
    except BadJwt as error:
        raise ClientRefused(_WHY[error.reason], reason=f"ASSERTION_{error.reason.upper()}") from None
    if jwt.claims.get("iss") != client_id or not is_client_id(client_id) or len(jti) > LONGEST_JTI:
        raise ClientRefused(_WHY[Fault.CLAIM], reason="ASSERTION_CLAIM")
    if shown.client_id not in ("", client_id):
        raise ClientRefused("The form names another client than the assertion", reason="ASSERTION_CLAIM")
    return Assertion(jwt, client_id, jti, datetime.fromtimestamp(ends_at_s, UTC))


def check_assertion(assertion: Assertion, client: OAuthClient | None) -> OAuthClient:
    """The client, if it signed the assertion with a registered key.

    Raises:
        ClientRefused: it did not, or proves itself in another way.
    """
    if client is None or client.auth_method is not AuthMethod.PRIVATE_KEY_JWT:
        raise ClientRefused(reason="ASSERTION_KEY")
    keys = read_keys(client.jwks)
    if assertion.jwt.kid is None:
        keys = {kid: key for kid, key in keys.items() if assertion.jwt.algorithm in key.algorithms}
    try:
        verify_jwt(assertion.jwt, keys)
    except BadJwt as error:
        raise ClientRefused(reason=f"ASSERTION_{error.reason.upper()}") from None
    return client


def _check_audience(claims: Mapping[str, Any], audiences: frozenset[str]) -> None:
    """Exactly one audience, and it is this server: what is made for two, the other one could replay here."""
    told = claims.get("aud")
    audience = told[0] if isinstance(told, list) and len(told) == 1 else told
    if not isinstance(audience, str) or audience not in audiences:
        raise BadJwt(Fault.AUDIENCE)


def _end(claims: Mapping[str, Any], now_s: float) -> float:
    """When the assertion's time is over, in epoch seconds."""
    expires_s = time_claim(claims, "exp")
    if expires_s > now_s + LONGEST_EXP_S + LEEWAY_S:
        raise BadJwt(Fault.CLAIM)
    began_s = time_claim(claims, "iat") if "iat" in claims else None
    if began_s is None and expires_s > now_s + LONGEST_LIFE_S + LEEWAY_S:
        raise BadJwt(Fault.CLAIM)
    ends_s = (expires_s if began_s is None else min(expires_s, began_s + LONGEST_LIFE_S)) + LEEWAY_S
    if ends_s <= now_s:
        raise BadJwt(Fault.EXPIRED)
    return ends_s


_FORM = "The assertion must be a JWT signed with EdDSA, ES256 or PS256, with its key named by kid alone"
_CLAIMS = (
    "The assertion must say iss and sub (the client id), aud, jti, and exp: an hour ahead at most, "
    "or five minutes where there is no iat"
)
_WHY: Mapping[Fault, str] = {
    Fault.MALFORMED: _FORM,
    Fault.ALGORITHM: _FORM,
    Fault.HEADER: _FORM,
    Fault.TYPE: "The assertion's typ must be client-authentication+jwt, JWT, or absent",
    Fault.EXPIRED: "The assertion is over: make a new one for each request, and look at the clock",
    Fault.EARLY: "The assertion is not valid yet: look at the clock",
    Fault.AUDIENCE: "The assertion's aud must be this server's issuer or its token endpoint, and nothing else",
    Fault.CLAIM: _CLAIMS,
}
