"""What an issuer publishes of itself, found by its name (RFC 8414, OpenID Connect Discovery 1.0), and its keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from gateway.auth.issuers.errors import ExchangeFailed
from gateway.auth.issuers.exchange import Line
from gateway.auth.issuers.settings import check_url
from gateway.auth.jwk import Key, read_keys

MOST_KEYS = 128


@dataclass(frozen=True, slots=True)
class Published:
    """The keys of an issuer, its metadata if they were looked up by it, and how long both may be kept."""

    keys: Mapping[str, Key] = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)
    max_age_s: float | None


def fetch_published(line: Line, issuer: str, jwks_uri: str | None, algorithms: tuple[str, ...]) -> Published:
    """Fetch an issuer's keys; without a `jwks_uri` its metadata says where they are.

    Raises:
        ExchangeFailed: it does not answer, or not with metadata of its own and a key set. A set
            without a usable key is one: so an issuer ends all of them.
    """
    metadata: Mapping[str, Any] = {}
    if jwks_uri is None:
        metadata = fetch_metadata(line, issuer)
        jwks_uri = endpoint_of(metadata, "jwks_uri")
    answer = line.get(jwks_uri)
    return Published(_read(answer.content, algorithms), metadata, answer.max_age_s)


def fetch_metadata(line: Line, issuer: str) -> Mapping[str, Any]:
    """The metadata, at the place of OpenID Connect or else of RFC 8414.

    Raises:
        ExchangeFailed: there is none at both, or it is another issuer's (RFC 8414, section 3.3).
    """
    first, second = metadata_urls(issuer)
    try:
        metadata = line.get(first).content
    except ExchangeFailed as failed:
        if not failed.is_answer:
            raise
        metadata = line.get(second).content
    if metadata.get("issuer") != issuer:
        raise ExchangeFailed("its metadata names another issuer", is_answer=True)
    return metadata


def metadata_urls(issuer: str) -> tuple[str, str]:
    """Where an issuer's metadata may be: OpenID Connect appends to the path, RFC 8414, section 3.1, puts before it.

    >>> metadata_urls("https://idp.example/realms/fl")[1]
    'https://idp.example/.well-known/oauth-authorization-server/realms/fl'
    """
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    places = (f"{path}/.well-known/openid-configuration", f"/.well-known/oauth-authorization-server{path}")
    first, second = (urlunsplit((parts.scheme, parts.netloc, place, "", "")) for place in places)
    return first, second


def endpoint_of(metadata: Mapping[str, Any], name: str) -> str:
    """A URL of the metadata.

    Raises:
        ExchangeFailed: it is missing, or no https URL (plain http: of an issuer on this machine alone, so that no
            other can make the gateway ask what listens here).
    """
    try:
        url = check_url(str(metadata[name]))
    except (KeyError, ValueError):
        url = ""
    is_plain = url.startswith("http:") and str(metadata.get("issuer")).startswith("http:")
    if not is_plain and not url.startswith("https:"):
        raise ExchangeFailed(f"its metadata has no usable {name}", is_answer=True)
    return url


def _read(jwks: Mapping[str, Any], algorithms: tuple[str, ...]) -> Mapping[str, Key]:
    members = jwks.get("keys")
    if not isinstance(members, list):
        raise ExchangeFailed("its answer is no key set", is_answer=True)
    if len(members) > MOST_KEYS:
        raise ExchangeFailed("it has too many keys", is_answer=True)
    return read_keys(jwks, algorithms)
