"""The check of the outside issuers: their forms, their files, and whether each is there with keys or answers."""

from __future__ import annotations

import ssl
import stat
from collections.abc import Iterator
from pathlib import Path

from gateway.auth.issuers import ExchangeFailed, Issuer, parse_issuers
from gateway.auth.issuers.exchange import Line
from gateway.auth.issuers.introspection import Introspector
from gateway.auth.issuers.metadata import fetch_published
from gateway.auth.issuers.settings import SETTING
from gateway.config import Config
from gateway.doctor.errors import Ailing, Risky

_FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_TIMEOUT_S = 5.0


def trusted_issuers(config: Config) -> str:
    """Each can be read, its secret is nobody else's, and what does not answer now is named."""
    found = parse_issuers(config.trusted_issuers)
    if not found:
        return "none: tokens are our own"
    for issuer in found:
        if issuer.issuer in (config.issuer, config.public_url.rstrip("/")):
            raise Ailing(f"{SETTING}: {issuer.issuer} is this gateway: its own tokens are taken without that")
        insist_authorities(SETTING, issuer.ca_file)
        if issuer.introspection is not None:
            _insist_private(issuer.issuer, issuer.introspection.client_secret_file)
    if away := [said for issuer in found for said in _away(issuer)]:
        raise Risky(f"{len(away)} of {len(found)} cannot be reached now: {'; '.join(away)}")
    return f"{len(found)} of them, with keys or answers"


def insist_authorities(setting: str, ca_file: str) -> None:
    """Demand that authorities for TLS can be read, where a file of them is named. Raises Ailing."""
    try:
        ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:  # of ssl too
        raise Ailing(f"{setting}: ca_file holds no certificates that can be read: {ca_file}") from error


def _insist_private(name: str, path: str) -> None:
    try:
        mode = Path(path).stat().st_mode
        Path(path).open("rb").close()
    except OSError as error:
        raise Ailing(f"{SETTING}: a file of {name} cannot be read ({error.strerror}): {path}") from error
    if mode & _FOR_OTHERS:
        raise Ailing(f"{SETTING}: others can read a secret of {name}: chmod 600 {path}")


def _away(issuer: Issuer) -> Iterator[str]:
    try:
        _ask(issuer)
    except ExchangeFailed as failed:
        said = f"{issuer.issuer} ({failed.why})"
        if failed.is_answer:
            raise Ailing(f"{SETTING}: {said}") from failed
        yield said


def _ask(issuer: Issuer) -> None:
    """Fetch its keys, and ask about a token that nobody has."""
    if issuer.signs:
        line = Line(issuer.ca_file, _TIMEOUT_S)
        try:
            published = fetch_published(line, issuer.issuer, issuer.jwks_uri, issuer.algorithms)
        finally:
            line.close()
        if not published.keys:
            raise ExchangeFailed("it has no key for the algorithms that are taken", is_answer=True)
    if issuer.introspection is not None:
        Introspector(issuer.introspection, ca_file=issuer.ca_file).probe()
