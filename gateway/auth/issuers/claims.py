"""What the values in a token of an outside issuer are worth here: by the operator's table, and nothing without it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.auth.issuers.settings import Issuer
from gateway.auth.jose import BadJwt, Fault
from gateway.auth.scopes import BUNDLES, Role, Scope

LONGEST_NAME = 255  # OpenID Connect Core, section 2, of `sub`
MOST_WORDS = 512
_MISSING = object()


def scopes_of_claims(issuer: Issuer, claims: Mapping[str, Any], role: Role) -> frozenset[str]:
    """The scopes that a token's values stand for, and never more than its client's role has.

    Raises:
        BadJwt: the claim is neither a string nor a list of strings; `scope` must be a string (RFC 8693, section 4.2).
    """
    table = _OUR_NAMES if issuer.scopes is None else issuer.scopes
    worth = (table.get(word, ()) for word in words_at(claims, issuer.scope_claim))
    return frozenset(scope for scopes in worth for scope in scopes) & frozenset(BUNDLES[role])


def role_of_claims(issuer: Issuer, claims: Mapping[str, Any]) -> Role:
    """The first role of the operator's table that the token has a value for, else that of a participant.

    Raises:
        BadJwt: the claim is neither a string nor a list of strings.
    """
    if not issuer.roles:
        return Role.PARTICIPANT
    words = frozenset(words_at(claims, issuer.role_claim or issuer.scope_claim))
    return next((role for word, role in issuer.roles.items() if word in words), Role.PARTICIPANT)


def name_at(claims: Mapping[str, Any], claim: str) -> str:
    """A claim that names somebody: text of at most 255 characters.

    Raises:
        BadJwt: it is missing, empty, too long, or no text that can be kept.
    """
    told = claim_at(claims, claim)
    if not isinstance(told, str) or not told or len(told) > LONGEST_NAME or not told.isprintable():
        raise BadJwt(Fault.CLAIM)
    return told


def words_at(claims: Mapping[str, Any], claim: str) -> tuple[str, ...]:
    """The words of a claim, a string with blanks between them or a list; none where it is missing.

    Raises:
        BadJwt: it is something else.
    """
    told = claim_at(claims, claim)
    if told is _MISSING:
        return ()
    if isinstance(told, str):
        return tuple(word for word in told.split(" ") if word)
    is_list = isinstance(told, list) and claim != "scope" and len(told) <= MOST_WORDS
    if not is_list or not all(isinstance(word, str) for word in told):
        raise BadJwt(Fault.CLAIM)
    return tuple(told)


def claim_at(claims: Mapping[str, Any], claim: str) -> Any:
    """A claim by its name, or by names with dots between them: `realm_access.roles` is one inside of another."""
    if claim in claims:
        return claims[claim]
    found: Any = claims
    for name in claim.split("."):
        if not isinstance(found, Mapping) or name not in found:
            return _MISSING
        found = found[name]
    return found


_OUR_NAMES: Mapping[str, tuple[Scope, ...]] = {scope.value: (scope,) for scope in Scope}
