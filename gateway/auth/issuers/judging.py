"""Whether a token of an outside issuer is good, and what it says: RFC 9068 and RFC 8725, as strict as for our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gateway.auth.issuers.claims import claim_at, name_at, role_of_claims, scopes_of_claims
from gateway.auth.issuers.keys import Provider
from gateway.auth.issuers.settings import Issuer
from gateway.auth.jose import (
    BadJwt,
    Fault,
    ReadJwt,
    certificate_binding,
    check_audience,
    check_issuer,
    check_times,
    check_type,
    time_claim,
)
from gateway.auth.scopes import Role

LEEWAY_S = 30.0
_TYPES = {"at+jwt": "at+jwt", "JWT": "jwt", "none": ""}
_OF_OTHER_JWTS = ("nonce", "at_hash", "c_hash", "events")


@dataclass(frozen=True, slots=True)
class Judged:
    """What a good token says of its bearer."""

    subject: str = field(repr=False)
    role: Role
    scopes: frozenset[str]
    issued_at: datetime | None
    expires_at: datetime | None
    thumbprint: str | None = field(repr=False)


def judge_jwt(issuer: Issuer, provider: Provider, jwt: ReadJwt, now: datetime) -> Judged:
    """Judge a JWT: its kind and its algorithm, then its signature, and only then what it says.

    Raises:
        BadJwt: it is not good.
        IssuerAway: the keys to tell cannot be had now.
    """
    check_type(jwt, *(_TYPES[kind] for kind in issuer.typ))
    if jwt.algorithm not in issuer.algorithms:
        raise BadJwt(Fault.ALGORITHM)
    if jwt.kid is None:
        raise BadJwt(Fault.KEY)
    provider.verify(jwt)
    claims = jwt.claims
    check_issuer(claims, issuer.issuer)
    check_times(claims, now, LEEWAY_S)
    _check_is_for_access(claims)
    return _judged(issuer, claims, now)


def judge_answer(issuer: Issuer, answer: Mapping[str, Any], now: datetime) -> Judged:
    """Judge what an issuer says of a token that is active (RFC 7662, section 2.2).

    Raises:
        BadJwt: it is active, but not for us, not now, or bound to what cannot be checked.
    """
    if "iss" in answer:
        check_issuer(answer, issuer.issuer)
    if str(answer.get("token_type", "bearer")).lower() != "bearer":
        raise BadJwt(Fault.TYPE)
    _check_is_for_access(answer)
    if "exp" in answer:
        check_times(answer, now, LEEWAY_S)
    elif "nbf" in answer and time_claim(answer, "nbf") > now.timestamp() + LEEWAY_S:
        raise BadJwt(Fault.EARLY)
    return _judged(issuer, answer, now)


def _judged(issuer: Issuer, claims: Mapping[str, Any], now: datetime) -> Judged:
    check_audience(claims, issuer.audience)
    if issuer.clients is not None and claim_at(claims, issuer.client_claim) not in issuer.clients:
        raise BadJwt(Fault.CLAIM)
    expires_at = _moment(claims, "exp")
    if expires_at is not None and expires_at <= now:  # the leeway is for clocks ahead of ours alone
        raise BadJwt(Fault.EXPIRED)
    role = role_of_claims(issuer, claims)
    return Judged(
        subject=name_at(claims, issuer.subject_claim),
        role=role,
        scopes=scopes_of_claims(issuer, claims, role),
        issued_at=_moment(claims, "iat"),
        expires_at=expires_at,
        thumbprint=certificate_binding(claims),
    )


def _check_is_for_access(claims: Mapping[str, Any]) -> None:
    """Refuse what the same key signs for another purpose, where the header does not tell: ID tokens, log-out tokens.

    Keycloak says the purpose in a claim `typ`.
    """
    if any(name in claims for name in _OF_OTHER_JWTS) or claims.get("typ", "Bearer") != "Bearer":
        raise BadJwt(Fault.TYPE)


def _moment(claims: Mapping[str, Any], name: str) -> datetime | None:
    return datetime.fromtimestamp(time_claim(claims, name), UTC) if name in claims else None
