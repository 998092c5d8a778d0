"""What `FLG_TRUSTED_ISSUERS` says: whose tokens are taken, meant for whom, and what their values are worth here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from gateway.auth.jwk import ALGORITHMS
from gateway.auth.scopes import Role, Scope
from gateway.errors import ConfigError

SETTING = "FLG_TRUSTED_ISSUERS"
_FORM = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)
_SECRET = re.compile(r"[\x21-\x7e]{1,1024}")


def check_url(text: str) -> str:
    """The text, if it is a URL that may be trusted: https, or on this machine. Raises ValueError."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("must be a URL") from None
    if not host or parts.scheme not in ("http", "https") or parts.username is not None:
        raise ValueError("must be an absolute https URL, without a user in it")
    if not re.fullmatch(r"[\x21-\x7e]+", text) or "#" in text:
        raise ValueError("must be a URL without fragment and blanks")
    if parts.scheme == "http" and not _is_here(host):
        raise ValueError("must be https: plain http is for this machine alone")
    return text


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _name(text: str) -> str:
    if "?" in text:
        raise ValueError("must be a URL without query (RFC 8414, section 2)")
    return check_url(text)


Url = Annotated[str, StringConstraints(max_length=1024), AfterValidator(check_url)]
Name = Annotated[str, StringConstraints(max_length=1024), AfterValidator(_name)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^\S+$")]
Words = Annotated[tuple[Word, ...], Field(min_length=1, max_length=256)]
Algorithms = Annotated[
    tuple[Literal["EdDSA", "Ed25519", "ES256", "PS256", "RS256"], ...], Field(min_length=1)
]
Types = Annotated[tuple[Literal["at+jwt", "JWT", "none"], ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True, config=_FORM)
class Introspecting:
    """Where an issuer is asked about its tokens (RFC 7662), and how the gateway proves itself there.

    `cache_s`: how long an answer may be repeated; so long a token can live on that the issuer has ended.
    `opaque`: whether texts that are no JWT are this issuer's to judge.
    """

    endpoint: Url
    client_id: Word
    client_secret_file: Word
    cache_s: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 5.0
    opaque: bool = True

    def secret(self) -> str:
        """The secret, read anew each time, so that a renewed file needs no restart.

        Raises:
            ConfigError: the file cannot be read, or does not hold one line.
        """
        where = f"{SETTING}: introspection.client_secret_file"
        try:
            secret = Path(self.client_secret_file).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"{where}: the file cannot be read") from None
        if not _SECRET.fullmatch(secret):
            raise ConfigError(f"{where}: the file must hold one line without blanks")
        return secret


@dataclass(frozen=True, slots=True, config=_FORM)
class Issuer:
    """An outside issuer, as far as the operator trusts it; docs/outside-issuers.md tells what each member means."""

    issuer: Name
    audience: Word
    jwks_uri: Url | None = None
    algorithms: Algorithms = ALGORITHMS  # type: ignore[assignment]
    typ: Types = ("at+jwt",)
    subject_claim: Word = "sub"
    client_claim: Word = "client_id"
    clients: Words | None = None
    scope_claim: Word = "scope"
    scopes: Mapping[Word, tuple[Scope, ...]] | None = None
    role_claim: Word | None = None
    roles: Mapping[Word, Role] = Field(default_factory=dict)
    introspection: Introspecting | None = None
    ca_file: str = ""

    @property
    def signs(self) -> bool:
        """Whether its JWTs are judged by their signature; else it is asked about each of them."""
        return self.jwks_uri is not None or self.introspection is None

    @property
    def takes_opaque(self) -> bool:
        """Whether it is asked about texts that are no JWT."""
        return self.introspection is not None and self.introspection.opaque


_FORMS = TypeAdapter(Annotated[tuple[Issuer, ...], Field(max_length=32)])


def parse_issuers(text: str) -> tuple[Issuer, ...]:
    """The outside issuers of the setting's text; none for an empty one.

    Raises:
        ConfigError: it is no JSON list, or a member is missing, unknown or has a bad value; it is named, and no
            value is repeated.
    """
    if not text.strip():
        return ()
    try:
        found = _FORMS.validate_json(text)
        json.loads(text, object_pairs_hook=_each_once)
    except ValidationError as error:
        raise ConfigError("; ".join(_faults(error))) from None
    except _Twice:
        raise ConfigError(f"{SETTING}: an object has a member twice") from None
    for name, count in _doubled(found):
        raise ConfigError(f"{SETTING}: {count} objects have the issuer {name}: write one")
    if sum(issuer.takes_opaque for issuer in found) > 1:
        raise ConfigError(
            f"{SETTING}: two issuers would be asked about the same opaque token: set introspection.opaque to false "
            "at all but one, since a token of one issuer must not be shown to another"
        )
    return found


class _Twice(Exception):
    pass


def _each_once(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _Twice


def _faults(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False, include_input=False, include_context=False)[:3]:
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in fault["loc"])
        yield f"{SETTING}{place}: {fault['msg'].removeprefix('Value error, ')}"


def _doubled(found: tuple[Issuer, ...]) -> Iterator[tuple[str, int]]:
    names = [issuer.issuer for issuer in found]
    return ((name, names.count(name)) for name in names if names.count(name) > 1)
