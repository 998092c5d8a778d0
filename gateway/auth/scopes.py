"""Scopes and roles: a role is a bundle of scopes, and no token carries more than its client's role has."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Scope(StrEnum):
    """What a token allows."""

    TRAINING_PARTICIPATE = "training:participate"
    MODEL_DOWNLOAD = "model:download"
    ROUND_AGGREGATE = "round:aggregate"
    CLIENT_MANAGE = "client:manage"
    CLIENT_REGISTER = "client:register"
    ROUND_MANAGE = "round:manage"
    PRIVACY_EXPORT = "privacy:export"
    PRIVACY_ERASE = "privacy:erase"
    PRIVACY_MANAGE = "privacy:manage"
    PRIVACY_HOLD = "privacy:hold"
    AUDIT_READ = "audit:read"


class Role(StrEnum):
    """What a client is in the federation."""

    PARTICIPANT = "participant"
    EDGE = "edge"
    OPERATOR = "operator"
    DPO = "dpo"
    AUDITOR = "auditor"
    SIEM = "siem"


class ScopeRefused(ValueError):
    """A wished scope is unknown, or the role does not have it."""

    def __init__(self) -> None:
        super().__init__(
            "a wished scope is unknown or beyond the role: ask for fewer, or for none to get all"
        )


_PRIVACY_ALL = "privacy:*"
_PRIVACY = (Scope.PRIVACY_EXPORT, Scope.PRIVACY_ERASE, Scope.PRIVACY_MANAGE, Scope.PRIVACY_HOLD)
_PARTICIPANT = (Scope.TRAINING_PARTICIPATE, Scope.MODEL_DOWNLOAD)

BUNDLES: dict[Role, tuple[Scope, ...]] = {
    Role.PARTICIPANT: _PARTICIPANT,
    Role.EDGE: (*_PARTICIPANT, Scope.ROUND_AGGREGATE),
    Role.OPERATOR: (Scope.CLIENT_MANAGE, Scope.CLIENT_REGISTER, Scope.ROUND_MANAGE),
    Role.DPO: _PRIVACY,
    Role.AUDITOR: (Scope.AUDIT_READ,),
    Role.SIEM: (Scope.AUDIT_READ,),
}
MEANINGS: dict[Scope, str] = {
    Scope.TRAINING_PARTICIPATE: "take part in training: see rounds and send updates",
    Scope.MODEL_DOWNLOAD: "download models",
    Scope.ROUND_AGGREGATE: "add up updates of others and send the sums",
    Scope.CLIENT_MANAGE: "see the clients of the federation, and end their access",
    Scope.CLIENT_REGISTER: "register new clients",
    Scope.ROUND_MANAGE: "open, pause and close rounds; publish and promote models",
    Scope.PRIVACY_EXPORT: "hand out all that is kept about a person",
    Scope.PRIVACY_ERASE: "erase all that is kept about a person",
    Scope.PRIVACY_MANAGE: "decide on requests of people about their data",
    Scope.PRIVACY_HOLD: "place and lift legal holds",
    Scope.AUDIT_READ: "read the audit log",
}
"""What a scope allows, in words for the person who is asked."""
API_KEY_ROLES = frozenset({Role.PARTICIPANT, Role.EDGE, Role.OPERATOR})
API_KEY_SCOPES = (Scope.CLIENT_REGISTER,)


def granted(role: Role, wished: str | None) -> tuple[Scope, ...]:
    """The scopes of a new token: all of the role's for an empty wish, else exactly what was wished.

    Args:
        role: the client's role.
        wished: the request's `scope`, space-separated; `privacy:*` stands for the four privacy scopes.

    Raises:
        ScopeRefused: the wish has an unknown scope, or one beyond the role.
    """
    words = (wished or "").split()
    if not words:
        return BUNDLES[role]
    asked = frozenset(expanded(words))
    if not asked <= frozenset(BUNDLES[role]):
        raise ScopeRefused
    return tuple(scope for scope in BUNDLES[role] if scope in asked)


def scope_text(scopes: Iterable[str]) -> str:
    """Scopes as RFC 6749, section 3.3, writes them."""
    return " ".join(scopes)


def scopes_of(text: str) -> frozenset[str]:
    """The scopes of a stored token; words that are no scope any more are dropped."""
    return frozenset(word for word in text.split() if word in _KNOWN)


def expanded(words: Iterable[str]) -> list[Scope]:
    """The scopes that a wish names; `privacy:*` stands for the four privacy scopes.

    Raises:
        ScopeRefused: one is unknown.
    """
    scopes: list[Scope] = []
    for word in words:
        if word == _PRIVACY_ALL:
            scopes += _PRIVACY
        elif word in _KNOWN:
            scopes.append(Scope(word))
        else:
            raise ScopeRefused
    return scopes


_KNOWN = frozenset(scope.value for scope in Scope)
