"""A certificate as a client's proof (RFC 8705, section 2), and how it is read from what nginx says."""

from __future__ import annotations

import base64
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from proof_keys import NOON, certificate, jwk, key_set, pem, x5c

from gateway.auth.client_certificate import read_certificate
from gateway.auth.proof.certificate import check_certificate
from gateway.auth.proof.client import OAuthClient
from gateway.auth.proof.presented import ShownCertificate
from gateway.auth.proof.refused import ClientRefused
from gateway.auth.proof.subject_dn import SubjectDnRefused, checked_subject_dn
from gateway.auth.roster import AuthMethod, ClientStatus
from gateway.auth.scopes import Role

CA, SELF = AuthMethod.TLS_CLIENT_AUTH, AuthMethod.SELF_SIGNED_TLS_CLIENT_AUTH
DN = "CN=silo-a,O=Hospital"
MINE, OTHER = certificate(), certificate("P-256", 1, "CN=silo-b,O=Hospital")


def client_by(method: AuthMethod, **proof: Any) -> OAuthClient:
    return OAuthClient(str(uuid4()), str(uuid4()), Role.EDGE, ClientStatus.ACTIVE, method, **proof)


def check(
    client: OAuthClient | None, shown: Any, *, verified: bool = True, later_days: float = 0
) -> OAuthClient:
    proof = ShownCertificate("", read_certificate(pem(shown), is_verified=verified))
    return check_certificate(proof, client, NOON + timedelta(days=later_days))


def test_a_verified_certificate_of_the_registered_subject_is_the_proof() -> None:
    """Section 2.1: the authority vouches for the name; which key it is does not matter."""
    client = client_by(CA, subject_dn=DN)

    assert check(client, MINE) is client
    assert check(client, certificate("Ed25519", 5)) is client


def test_a_certificate_of_the_registered_keys_is_the_proof_whoever_signed_it() -> None:
    """Section 2.2: nginx may say FAILED, or SUCCESS where its authority happens to know it."""
    client = client_by(SELF, jwks=key_set(jwk("P-256", x5c=x5c(MINE))))

    assert check(client, MINE, verified=False) is client
    assert check(client, MINE) is client


@pytest.mark.parametrize(
    ("client", "how", "reason"),
    [
        (client_by(CA, subject_dn=DN), {"verified": False}, "CERTIFICATE_UNKNOWN"),
        (client_by(CA, subject_dn=DN), {"shown": OTHER}, "CERTIFICATE_UNKNOWN"),
        (client_by(CA, subject_dn="O=Hospital,CN=silo-a"), {}, "CERTIFICATE_UNKNOWN"),
        (client_by(CA, subject_dn="CN=silo-a"), {}, "CERTIFICATE_UNKNOWN"),
        (client_by(CA, subject_dn=DN.upper()), {}, "CERTIFICATE_UNKNOWN"),
        (client_by(CA), {}, "CERTIFICATE_UNKNOWN"),
        (client_by(CA, jwks=key_set(jwk("P-256"))), {}, "CERTIFICATE_UNKNOWN"),
        (client_by(SELF, subject_dn=DN), {}, "CERTIFICATE_UNKNOWN"),
        (client_by(SELF, jwks=key_set(jwk("P-256", 1))), {}, "CERTIFICATE_UNKNOWN"),
        (client_by(AuthMethod.CLIENT_SECRET, subject_dn=DN), {}, "CERTIFICATE_UNKNOWN"),
        (client_by(AuthMethod.PRIVATE_KEY_JWT, jwks=key_set(jwk("P-256"))), {}, "CERTIFICATE_UNKNOWN"),
        (client_by(AuthMethod.REGISTRATION, subject_dn=DN), {}, "CERTIFICATE_UNKNOWN"),
        (None, {}, "CERTIFICATE_UNKNOWN"),
        (client_by(CA, subject_dn=DN), {"later_days": 2}, "CERTIFICATE_OUT_OF_TIME"),
        (client_by(CA, subject_dn=DN), {"later_days": -2}, "CERTIFICATE_OUT_OF_TIME"),
        (
            client_by(SELF, jwks=key_set(jwk("P-256"))),
            {"later_days": 2, "verified": False},
            "CERTIFICATE_OUT_OF_TIME",
        ),
    ],
)
def test_no_other_certificate_is(client: OAuthClient | None, how: dict[str, Any], reason: str) -> None:
    """Unverified, another subject, another order, another key, another method, over, not begun; one answer for all."""
    with pytest.raises(ClientRefused) as refused:
        check(client, **{"shown": MINE} | how)

    assert refused.value.reason == reason
    assert refused.value.description == ClientRefused().description


def test_the_thumbprint_is_that_of_rfc_8705() -> None:
    """Section 3.1: base64url, without padding, of the SHA-256 of the DER."""
    der = MINE.public_bytes(Encoding.DER)

    read = read_certificate(pem(MINE))

    assert read.thumbprint == base64.urlsafe_b64encode(sha256(der).digest()).rstrip(b"=").decode()
    assert (read.der, read.subject_dn) == (der, DN)
    assert "Hospital" not in repr(read)


@pytest.mark.parametrize(
    "dn", [DN, "CN=a\\,b,O=c\\+d", "CN=Klinik \\C3\\84", "emailAddress=a@b.example,CN=c", "CN=a+OU=b"]
)
def test_a_subject_is_registered_as_certificates_say_it(dn: str) -> None:
    """RFC 4514, also as `openssl -nameopt RFC2253` writes it."""
    registered = checked_subject_dn(dn)

    assert checked_subject_dn(registered) == registered
    assert read_certificate(pem(certificate(dn=registered))).subject_dn == registered


@pytest.mark.parametrize(
    "dn",
    ["", "silo-a", "CN=a, O=b", "/CN=a/O=b", "CN=", "CN=a,,O=b", "XX=a", "CN=" + "a" * 2000, "C=Germany"],
)
def test_what_is_no_subject_cannot_be_registered(dn: str) -> None:
    """It would never match, and nobody would know why."""
    with pytest.raises(SubjectDnRefused, match="openssl"):
        checked_subject_dn(dn)


@settings(max_examples=40)
@given(st.text(max_size=40))
def test_nothing_but_a_refusal_comes_of_any_subject(text: str) -> None:
    """And what is taken stays the same when it is read again."""
    try:
        registered = checked_subject_dn(text)
    except SubjectDnRefused:
        return

    assert checked_subject_dn(registered) == registered


@settings(max_examples=40)
@given(
    st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=3),
    st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=3),
)
def test_two_subjects_are_never_written_alike(left: list[str], right: list[str]) -> None:
    """Whatever an applicant puts into its name, with commas, plus signs and all, it cannot look like another's."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, part) for part in parts])
        for parts in (left, right)
    ]

    assert (names[0].rfc4514_string() == names[1].rfc4514_string()) == (left == right)
