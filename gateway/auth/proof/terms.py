"""What an operator lays down for a client: how it proves itself, what its tokens are, where codes may be sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from audit.events import Retention
from gateway.auth.proof.key_set import checked_key_set
from gateway.auth.proof.subject_dn import checked_subject_dn
from gateway.auth.redirects import BadRedirectUri, check_registrable
from gateway.auth.roster import AuthMethod
from gateway.errors import BadRequest
from gateway.services import Services

MOST_REDIRECT_URIS = 20
ADDABLE = (
    AuthMethod.CLIENT_SECRET,
    AuthMethod.PRIVATE_KEY_JWT,
    AuthMethod.TLS_CLIENT_AUTH,
    AuthMethod.SELF_SIGNED_TLS_CLIENT_AUTH,
)
WITH_KEYS = frozenset({AuthMethod.PRIVATE_KEY_JWT, AuthMethod.SELF_SIGNED_TLS_CLIENT_AUTH})


class TokenFormat(StrEnum):
    """What a client's access tokens are."""

    OPAQUE = "opaque"
    JWT = "jwt"  # RFC 9068


class TermsRefused(BadRequest):
    """What was laid down for a client does not go together."""

    code, title = "CLIENT_TERMS_INVALID", "This does not go together"


@dataclass(frozen=True, slots=True)
class Terms:
    """How a client proves itself, and what it may ask for.

    Args:
        jwks: its public keys, as given or as kept.
        subject_dn: the subject of its certificate.
        redirect_uris: where codes of people may be sent; none: it acts for itself alone.
    """

    auth: AuthMethod = AuthMethod.CLIENT_SECRET
    jwks: Any = field(default=None, repr=False)
    subject_dn: str | None = field(default=None, repr=False)
    token_format: TokenFormat = TokenFormat.OPAQUE
    redirect_uris: tuple[str, ...] = ()


def checked_terms(terms: Terms) -> Terms:
    """The terms as they are kept.

    Raises:
        TermsRefused: a method lacks its keys or its subject, or has what belongs to another.
        KeySetRefused, SubjectDnRefused: the keys or the subject cannot be taken.
    """
    if terms.auth not in ADDABLE:
        raise TermsRefused(f"A client is added with one of {', '.join(method.value for method in ADDABLE)}")
    _insist("--jwks", terms.auth in WITH_KEYS, terms.jwks is not None, terms.auth)
    _insist(
        "--subject-dn", terms.auth is AuthMethod.TLS_CLIENT_AUTH, terms.subject_dn is not None, terms.auth
    )
    check_redirect_uris(terms.redirect_uris)
    return replace(
        terms,
        jwks=checked_key_set(terms.jwks, terms.auth) if terms.jwks is not None else None,
        subject_dn=checked_subject_dn(terms.subject_dn) if terms.subject_dn is not None else None,
        token_format=TokenFormat(terms.token_format),
    )


def terms_columns(services: Services, terms: Terms, client_id: str, subject_id: str) -> dict[str, Any]:
    """Checked terms as the columns of a client's row."""
    return {
        "auth_method": terms.auth.value,
        "token_format": terms.token_format.value,
        "redirect_uris": list(terms.redirect_uris) or None,
        **sealed_proof(services, client_id, subject_id, jwks=terms.jwks, subject_dn=terms.subject_dn),
    }


def sealed_proof(
    services: Services, client_id: str, subject_id: str, **proof: Any
) -> dict[str, dict[str, str]]:
    """Columns of a client's row, `jwks` or `subject_dn`, sealed under its person; what is None is left out."""
    seal, now = services.sealer.seal_column, services.clock()
    return {
        column: seal(subject_id, Retention.PARTICIPATION, "clients", column, client_id, value, now)
        for column, value in proof.items()
        if value is not None
    }


def check_redirect_uris(uris: Iterable[str]) -> None:
    """Let these be registered.

    Raises:
        TermsRefused: one of them is none, or there are too many.
    """
    told = list(uris)
    if len(told) > MOST_REDIRECT_URIS or len(set(told)) < len(told):
        raise TermsRefused(f"At most {MOST_REDIRECT_URIS} redirect URIs are taken, each once")
    for number, uri in enumerate(told, 1):
        try:
            check_registrable(uri)
        except BadRedirectUri as error:
            raise TermsRefused(f"Redirect URI {number}: {error}") from None


def _insist(option: str, is_needed: bool, is_given: bool, auth: AuthMethod) -> None:
    if is_needed and not is_given:
        raise TermsRefused(f"A client that proves itself by {auth.value} needs {option}")
    if is_given and not is_needed:
        raise TermsRefused(f"A client that proves itself by {auth.value} takes no {option}")
