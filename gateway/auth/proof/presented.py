"""What a request shows of its client: a secret, an assertion, or a certificate; one of them (RFC 6749, section 2.3)."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from authlib.oauth2.rfc6749.errors import InvalidRequestError
from flask import request

from gateway.auth.client_certificate import ClientCertificate
from gateway.auth.credentials import are_several
from gateway.auth.methods import BASIC, POST
from gateway.auth.peer import presented_certificate
from gateway.auth.proof.refused import ClientRefused

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LONGEST_ID = 256


@dataclass(frozen=True, slots=True)
class ShownSecret:
    """A client id with a secret, in the header or in the form."""

    client_id: str
    secret: str = field(repr=False)
    method: str


@dataclass(frozen=True, slots=True)
class ShownAssertion:
    """A signed assertion (RFC 7523, section 2.2); the form may name the client too."""

    client_id: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ShownCertificate:
    """A client id with the certificate of the TLS connection (RFC 8705, section 2)."""

    client_id: str
    certificate: ClientCertificate | None


Shown = ShownSecret | ShownAssertion | ShownCertificate


def presented() -> Shown | None:
    """What the request shows; None if it does not even name a client.

    Raises:
        InvalidRequestError: two proofs, two headers, or half of a proof.
        ClientRefused: an Authorization header that cannot be read, or an assertion of another type.
    """
    header, form = request.headers.get("Authorization", ""), request.form
    has_assertion = "client_assertion" in form or "client_assertion_type" in form
    if (bool(header) + ("client_secret" in form) + has_assertion) > 1:
        raise InvalidRequestError("Prove the client once: in the Authorization header or in the form")
    client_id = form.get("client_id", "")
    if header:
        return _basic(header, client_id)
    if has_assertion:
        return _assertion(client_id)
    if "client_secret" in form:
        return ShownSecret(client_id, form["client_secret"], POST)
    return ShownCertificate(client_id, presented_certificate()) if client_id else None


def _assertion(client_id: str) -> ShownAssertion:
    text, kind = request.form.get("client_assertion", ""), request.form.get("client_assertion_type", "")
    if not text or not kind:
        raise InvalidRequestError("client_assertion and client_assertion_type belong together")
    if kind != ASSERTION_TYPE:
        raise ClientRefused(
            f"client_assertion_type must be {ASSERTION_TYPE}", reason="ASSERTION_TYPE_UNKNOWN"
        )
    return ShownAssertion(client_id, text)


def _basic(header: str, named: str) -> ShownSecret:
    """The two parts of a Basic header, each encoded as in a form before they were joined (RFC 6749, section 2.3.1)."""
    if are_several(header):
        raise InvalidRequestError("Send one Authorization header")
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        raise ClientRefused("A client proves itself by Basic authentication, or in the form")
    try:
        joined = base64.b64decode(encoded.strip(), validate=True).decode()
        client_id, colon, secret = (unquote_plus(part, errors="strict") for part in joined.partition(":"))
    except ValueError:  # no base64, no UTF-8, or not even ASCII
        raise ClientRefused("The Authorization header cannot be read") from None
    if not colon:
        raise ClientRefused("The Authorization header cannot be read")
    if named not in ("", client_id):
        raise InvalidRequestError("The form names another client than the Authorization header")
    return ShownSecret(client_id[:_LONGEST_ID], secret, BASIC)
