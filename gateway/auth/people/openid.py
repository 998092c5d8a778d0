"""Signing in through an outside OpenID provider (OpenID Connect Core 1.0): a code with PKCE, state and nonce.

All three come from one secret in the browser's cookie, so that an answer is taken from the browser that asked, for
what it asked, and nothing is stored meanwhile (RFC 9700, sections 2.1 and 4.7).
"""

from __future__ import annotations

import base64
import hmac
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

from gateway.auth.issuers.errors import ExchangeFailed, IssuerAway
from gateway.auth.issuers.exchange import Line
from gateway.auth.issuers.keys import Provider
from gateway.auth.issuers.metadata import endpoint_of
from gateway.auth.jose import (
    BadJwt,
    Fault,
    check_audience,
    check_issuer,
    check_times,
    read_jwt,
    text_claim,
    time_claim,
)
from gateway.auth.people.openid_settings import ProviderSettings
from gateway.errors import Busy, GatewayError

AGE_S = 600
LEEWAY_S = 60.0
LONGEST_SUBJECT = 255
LONGEST_CODE = 2048
MOST_EXCHANGES = 4
_SECRET_BYTES = 32
_exchanges = threading.BoundedSemaphore(MOST_EXCHANGES)


class ProviderAway(Busy):
    """The OpenID provider does not answer, or not as it should."""

    code, title = "PROVIDER_AWAY", "The OpenID provider does not answer: try again later"


class ProviderRefused(GatewayError):
    """What came back from the OpenID provider lets nobody in; `reason` says why, to the log alone."""

    status, code, title = 403, "PROVIDER_REFUSED", "The sign-in at the provider did not succeed"

    def __init__(self, reason: str) -> None:
        super().__init__("Start again from the sign-in page of this gateway")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Asking:
    """One try to sign in: what ties the provider's answer to the browser that asked."""

    secret: str = field(repr=False)
    after: str

    @property
    def cookie(self) -> str:
        """What the browser keeps meanwhile."""
        return f"{self.secret}.{base64.urlsafe_b64encode(self.after.encode()).decode()}"

    def derived(self, purpose: str) -> str:
        """A value for one purpose, from which no other can be told; 43 characters, as PKCE wants at least."""
        made = hmac.new(self.secret.encode(), f"flg-openid|{purpose}".encode(), sha256).digest()
        return base64.urlsafe_b64encode(made).rstrip(b"=").decode()


def new_asking(after: str) -> Asking:
    """A try that leads on to a place of this gateway."""
    return Asking(secrets.token_urlsafe(_SECRET_BYTES), after)


def asking_of(cookie: str) -> Asking | None:
    """The try that a browser's cookie tells of."""
    secret, dot, after = cookie.partition(".")
    if len(secret) < _SECRET_BYTES or not dot or not cookie.isascii():
        return None
    try:
        return Asking(secret, base64.urlsafe_b64decode(after).decode())
    except ValueError:
        return None


def authorization_url(settings: ProviderSettings, asking: Asking, redirect_uri: str) -> str:
    """Where the browser goes to sign in there.

    Raises:
        ProviderAway: the provider's metadata cannot be had.
    """
    endpoint = _endpoint(settings, "authorization_endpoint")
    verifier = sha256(asking.derived("verifier").encode()).digest()
    asked = {
        "response_type": "code",
        "client_id": settings.client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(settings.scopes),
        "state": asking.derived("state"),
        "nonce": asking.derived("nonce"),
        "code_challenge": base64.urlsafe_b64encode(verifier).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked, quote_via=quote)}"


def provider_subject(
    settings: ProviderSettings,
    asking: Asking | None,
    answer: Mapping[str, str],
    redirect_uri: str,
    now: datetime,
) -> str:
    """The `sub` of who signed in there, proven by the provider's ID token.

    Args:
        settings: the provider.
        asking: what this browser asked; None if it asked nothing.
        answer: the parameters that came back with the browser.
        redirect_uri: where they came.
        now: the time.

    Raises:
        ProviderRefused: the answer is not to this browser's question, or tells of no sign-in that counts.
        ProviderAway: the provider does not answer.
    """
    if asking is None or not hmac.compare_digest(
        asking.derived("state").encode(), answer.get("state", "").encode()
    ):
        raise ProviderRefused("state")
    _check_sender(settings, answer)
    code = answer.get("code", "")
    if "error" in answer or not 0 < len(code) <= LONGEST_CODE:
        raise ProviderRefused("no code")
    text = _exchanged(settings, asking, code, redirect_uri)
    try:
        return _subject_of(settings, text, asking.derived("nonce"), now)
    except BadJwt as bad:
        raise ProviderRefused(f"id_token: {bad.reason.value}") from None
    except IssuerAway:
        raise ProviderAway from None


def _check_sender(settings: ProviderSettings, answer: Mapping[str, str]) -> None:
    """Take the answer of this provider alone, in the words of RFC 9207, section 2.4."""
    must_say = _metadata(settings).get("authorization_response_iss_parameter_supported") is True
    said = answer.get("iss")
    if said != settings.issuer and (said is not None or must_say):
        raise ProviderRefused("iss")


def _exchanged(settings: ProviderSettings, asking: Asking, code: str, redirect_uri: str) -> str:
    """The ID token for the code."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": asking.derived("verifier"),
    }
    endpoint, basic = _endpoint(settings, "token_endpoint"), None
    methods = _metadata(settings).get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    if isinstance(methods, list) and "client_secret_basic" not in methods:
        form |= {"client_id": settings.client_id, "client_secret": settings.secret()}
    else:
        basic = quote_plus(settings.client_id), quote_plus(settings.secret())  # RFC 6749, section 2.3.1
    if not _exchanges.acquire(blocking=False):
        raise ProviderAway
    line = Line(settings.ca_file)
    try:
        told = line.post(endpoint, form, basic).content
    except ExchangeFailed as failed:
        raise (ProviderRefused("code") if failed.is_answer else ProviderAway()) from None
    finally:
        line.close()
        _exchanges.release()
    text = told.get("id_token")
    if not isinstance(text, str):
        raise ProviderRefused("no id_token")
    return text


def _subject_of(settings: ProviderSettings, text: str, nonce: str, now: datetime) -> str:
    """Validate an ID token (OpenID Connect Core 1.0, section 3.1.3.7). Raises BadJwt, IssuerAway."""
    jwt = read_jwt(text, settings.algorithms)
    if jwt.typ not in ("", "jwt"):  # an access token is `at+jwt`, and may have the same members
        raise BadJwt(Fault.TYPE)
    _provider(settings).verify(jwt)
    claims: Mapping[str, Any] = jwt.claims
    check_issuer(claims, settings.issuer)
    check_audience(claims, settings.client_id)
    is_for_many = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if claims.get("azp", None if is_for_many else settings.client_id) != settings.client_id:
        raise BadJwt(Fault.AUDIENCE)
    check_times(claims, now, LEEWAY_S)
    if time_claim(claims, "iat") < now.timestamp() - AGE_S - LEEWAY_S:
        raise BadJwt(Fault.EXPIRED)
    if not hmac.compare_digest(text_claim(claims, "nonce").encode(), nonce.encode()):
        raise BadJwt(Fault.CLAIM)
    subject = text_claim(claims, "sub")
    if len(subject) > LONGEST_SUBJECT:
        raise BadJwt(Fault.CLAIM)
    return subject


def _endpoint(settings: ProviderSettings, name: str) -> str:
    try:
        return endpoint_of(_metadata(settings), name)
    except ExchangeFailed:
        raise ProviderAway from None


def _metadata(settings: ProviderSettings) -> Mapping[str, Any]:
    try:
        return _provider(settings).metadata()
    except IssuerAway:
        raise ProviderAway from None


def _provider(settings: ProviderSettings) -> Provider:
    return _kept_provider(settings.issuer, settings.algorithms, settings.ca_file)


@lru_cache(maxsize=4)
def _kept_provider(issuer: str, algorithms: tuple[str, ...], ca_file: str) -> Provider:
    """Its keys and metadata are fetched once and kept by `Provider`."""
    return Provider(issuer, algorithms=algorithms, ca_file=ca_file)
