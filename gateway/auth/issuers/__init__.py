"""Issuers outside of the gateway (`FLG_TRUSTED_ISSUERS`): whose tokens are taken, and what they are worth here."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache

from gateway.auth.issuers.errors import ExchangeFailed, IssuerAway
from gateway.auth.issuers.introspection import Introspector
from gateway.auth.issuers.judging import Judged, judge_answer, judge_jwt
from gateway.auth.issuers.keys import Provider
from gateway.auth.issuers.outside_clients import client_behind
from gateway.auth.issuers.settings import Issuer, parse_issuers
from gateway.auth.jose import BadJwt, Fault, ReadJwt
from gateway.auth.tokens import AuthenticatedClient, BearerToken, TokenKind
from gateway.auth.windows import LocalWindows
from gateway.services import Services

__all__ = [
    "ExchangeFailed",
    "Issuer",
    "IssuerAway",
    "Provider",
    "find_outside",
    "outside_issuers",
    "parse_issuers",
]

OUR_PREFIX = "flg_"
TELL_EVERY = timedelta(minutes=1)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TrustedIssuer:
    """An issuer as it is trusted, and the ways to find out whether a token is of its making."""

    trust: Issuer
    provider: Provider
    introspector: Introspector | None
    told_at: dict[str, datetime] = field(default_factory=dict)
    changes: LocalWindows = field(default_factory=lambda: LocalWindows(60))

    def judge(self, services: Services, text: str, jwt: ReadJwt | None) -> Judged:
        """Judge a token by its signature, or by asking.

        Raises:
            BadJwt: it is not good.
            IssuerAway: it cannot be told now.
        """
        if self.introspector is None or (jwt is not None and self.trust.signs):
            if jwt is None:
                raise BadJwt(Fault.MALFORMED)
            return judge_jwt(self.trust, self.provider, jwt, services.clock())
        answer = self.introspector.ask(text)
        if answer is None:
            raise BadJwt(Fault.EXPIRED)
        return judge_answer(self.trust, answer, services.clock())

    def tell_refusal(self, reason: str, now: datetime) -> None:
        """Write why a token was refused into the process's log, once a minute for each reason: never what it says."""
        told_at = self.told_at.get(reason)
        if told_at is None or now - told_at >= TELL_EVERY:
            self.told_at[reason] = now
            log.warning("a token of the issuer %s is refused: %s", self.trust.issuer, reason)


@lru_cache(maxsize=8)
def outside_issuers(text: str) -> Mapping[str, TrustedIssuer]:
    """The issuers of `FLG_TRUSTED_ISSUERS` by name, with what is known of their keys in this process.

    Raises:
        ConfigError: the setting cannot be read.
    """
    return {trust.issuer: _opened(trust) for trust in parse_issuers(text)}


def find_outside(services: Services, text: str, jwt: ReadJwt | None) -> BearerToken | None:
    """The token of an outside issuer, with the client of ours that is behind it; None if nobody vouches for it.

    Args:
        services: the stores.
        text: the token.
        jwt: the token as a JWT; None if it is none.

    Raises:
        IssuerAway: its issuer does not answer, so that nobody can say.
    """
    issuers = outside_issuers(services.config.trusted_issuers)
    if not issuers or text.startswith(OUR_PREFIX):
        return None
    issuer = _of_jwt(issuers, jwt) if jwt else _of_opaque(issuers)
    if issuer is None:
        return None
    name = issuer.trust.issuer
    try:
        judged = issuer.judge(services, text, jwt)
    except BadJwt as bad:
        issuer.tell_refusal(bad.reason.value, services.clock())
        return None
    row = client_behind(services, name, judged, issuer.changes)
    if row is None:
        issuer.tell_refusal("no scope", services.clock())
        return None
    client = AuthenticatedClient(row.client_id, row.subject_id, judged.role, judged.scopes, issuer=name)
    return BearerToken(
        client,
        TokenKind.ACCESS,
        row.status,
        judged.issued_at,
        judged.expires_at,
        row.last_seen_at,
        thumbprint=judged.thumbprint,
    )


def _opened(trust: Issuer) -> TrustedIssuer:
    provider = Provider(trust.issuer, trust.jwks_uri, algorithms=trust.algorithms, ca_file=trust.ca_file)
    asking = trust.introspection
    return TrustedIssuer(trust, provider, Introspector(asking, ca_file=trust.ca_file) if asking else None)


def _of_jwt(issuers: Mapping[str, TrustedIssuer], jwt: ReadJwt) -> TrustedIssuer | None:
    told = jwt.claims.get("iss")
    return issuers.get(told) if isinstance(told, str) else None


def _of_opaque(issuers: Mapping[str, TrustedIssuer]) -> TrustedIssuer | None:
    return next((issuer for issuer in issuers.values() if issuer.trust.takes_opaque), None)
