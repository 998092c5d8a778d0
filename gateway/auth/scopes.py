"""Scopes and roles: a role is a bundle of scopes, and no token carries more than its client's role has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    AUDIT_REVEAL = "audit:reveal"


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
BY_NAME: dict[Role, tuple[Scope, ...]] = {
    Role.DPO: (Scope.AUDIT_READ, Scope.AUDIT_REVEAL),
    Role.AUDITOR: (Scope.AUDIT_REVEAL,),
}
"""What is in no bundle, and given to one person or client of the role by name (RULES 27)."""
NOT_BY_NAME = "that scope is not given by name to this role: " + "; ".join(
    f"{role} may get {', '.join(scopes)}" for role, scopes in BY_NAME.items()
)
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
    Scope.AUDIT_REVEAL: "decrypt personal fields of the audit log, each time with a reason",
}
"""What a scope allows, in words for the person who is asked."""
API_KEY_ROLES = frozenset({Role.PARTICIPANT, Role.EDGE, Role.OPERATOR})
API_KEY_SCOPES = (Scope.CLIENT_REGISTER,)


def granted(role: Role, wished: str | None, extra: Iterable[Scope] = ()) -> tuple[Scope, ...]:
    """The scopes of a new token: all of the role's for no wish or an empty one, else exactly what was wished.

    Args:
        role: the client's role.
        wished: the request's `scope`; `privacy:*` stands for the four privacy scopes.
        extra: what the client was given by name; a token has it only if the wish names it.

    Raises:
        ScopeRefused: the wish has an unknown scope, or one beyond the role.
    """
    if not wished:
        return BUNDLES[role]
    asked, own = frozenset(expanded(wished)), scopes_with(role, extra)
    if not asked <= frozenset(own):
        raise ScopeRefused
    return tuple(scope for scope in own if scope in asked)


def scopes_with(role: Role, extra: Iterable[Scope]) -> tuple[Scope, ...]:
    """The role's scopes, and what was given by name and still may be."""
    given = frozenset(extra)
    return (*BUNDLES[role], *(scope for scope in BY_NAME.get(role, ()) if scope in given))


def given_by_name(role: Role, words: Iterable[str]) -> tuple[Scope, ...]:
    """What an operator gives by name to one person or client of a role.

    Raises:
        ScopeRefused: one is unknown, in the role already, or never given to it.
    """
    asked, may = frozenset(words), BY_NAME.get(role, ())
    if not asked <= frozenset(may):
        raise ScopeRefused
    return tuple(scope for scope in may if scope in asked)


def read_given(text: str | None) -> tuple[Scope, ...]:
    """What is kept of the scopes that were given by name."""
    return tuple(Scope(word) for word in sorted(scopes_of(text or "")))


def scope_text(scopes: Iterable[str]) -> str:
    """Scopes as RFC 6749, section 3.3, writes them."""
    return " ".join(scopes)


def sufficient(role: Role, scopes: Sequence[Scope]) -> Scope:
    """Of scopes that each would do, the one that a client of the role can get; the first if it can get none."""
    return next((scope for scope in scopes if scope in BUNDLES[role]), scopes[0])


def scopes_of(text: str) -> frozenset[str]:
    """The scopes of a stored token; words that are no scope any more are dropped."""
    return frozenset(word for word in text.split(" ") if word in _KNOWN)


def expanded(wished: str) -> list[Scope]:
    """The scopes that a wish names, one blank between two (RFC 6749, section 3.3): two blanks have a word between them.

    Raises:
        ScopeRefused: one is unknown.
    """
    scopes: list[Scope] = []
    for word in wished.split(" "):
        if word == _PRIVACY_ALL:
            scopes += _PRIVACY
        elif word in _KNOWN:
            scopes.append(Scope(word))
        else:
            raise ScopeRefused
    return scopes


_KNOWN = frozenset(scope.value for scope in Scope)
