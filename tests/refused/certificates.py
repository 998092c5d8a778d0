"""How a client proves itself by its certificate, and what a token is worth that is bound to one (RFC 8705)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from refused.at_the_api import invalid_token
from refused.case import Ask, Case
from refused.jwts import jwk_of
from refused.scene import FRONT, GRANT, TOKEN, Scene
from refused.secrets_shown import refused

from gateway.auth.clients import Move, NewClient, move_client

SIGNED, UNKNOWN_CA, NO_CERTIFICATE = "SUCCESS", "FAILED:self-signed certificate", "NONE"
_MADE_AT = datetime(2026, 11, 1)  # noqa: DTZ001 - x509 takes naive UTC


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its key, as a client holds them."""

    pem: bytes
    key: EllipticCurvePrivateKey

    @property
    def jwks(self) -> dict[str, Any]:
        return {"keys": [jwk_of(self.key, "c1")]}


@cache
def certificate(name: str = "silo-a", *, number: int = 1, days: int = 365) -> Certificate:
    """A self-signed certificate of that name; with another number it has another key."""
    key = generate_private_key(SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    built = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(_MADE_AT)
        .not_valid_after(_MADE_AT + timedelta(days=days))
        .sign(key, SHA256())
    )
    return Certificate(built.public_bytes(Encoding.PEM), key)


def through_the_front(
    scene: Scene, ask: Ask, shown: Certificate | bytes | None, verdict: str = SIGNED, peer: str = FRONT
) -> Ask:
    """The request as the TLS front passes it on, or as somebody who would like to be it."""
    pem = shown.pem if isinstance(shown, Certificate) else shown or b""
    headers = {
        "X-SSL-Client-Cert": quote(pem),
        "X-SSL-Client-Verify": verdict if shown else NO_CERTIFICATE,
        "X-Forwarded-For": scene.address,
        "X-Forwarded-Proto": "https",
    }
    environ = ask.sent.get("environ_base", {}) | {"REMOTE_ADDR": peer}
    return Ask(ask.method, ask.path, ask.sent | {"headers": headers, "environ_base": environ})


def asked_by(
    scene: Scene, new: NewClient, shown: Certificate | bytes | None, verdict: str = SIGNED, peer: str = FRONT
) -> Ask:
    """A token request of a client that proves itself by a certificate."""
    return through_the_front(
        scene, scene.ask(TOKEN, GRANT | {"client_id": new.client_id}), shown, verdict, peer
    )


def good(scene: Scene, *, self_signed: bool) -> Ask:
    """A request that is granted."""
    if self_signed:
        return asked_by(scene, scene.self_signed_client(certificate().jwks), certificate(), UNKNOWN_CA)
    return asked_by(scene, scene.tls_client("CN=silo-a"), certificate())


def of_an_authority(
    shown: Certificate | bytes | None, verdict: str = SIGNED, peer: str = FRONT
) -> Callable[[Scene], Ask]:
    """A client whose certificate's name an authority vouches for (RFC 8705, section 2.1)."""
    return lambda scene: asked_by(scene, scene.tls_client("CN=silo-a"), shown, verdict, peer)


def of_its_own(
    shown: Certificate | bytes | None, verdict: str = UNKNOWN_CA, peer: str = FRONT
) -> Callable[[Scene], Ask]:
    """A client that registered its own certificate (RFC 8705, section 2.2)."""
    return lambda scene: asked_by(scene, scene.self_signed_client(certificate().jwks), shown, verdict, peer)


def _of_a_client_with_a_secret(scene: Scene) -> Ask:
    return asked_by(scene, scene.client(), certificate())


def _here(of: Callable[[Scene], Ask]) -> Callable[[Scene], Ask]:
    """Sent by somebody on this machine who is no front."""

    def forged(scene: Scene) -> Ask:
        ask = of(scene)
        environ = ask.sent["environ_base"] | {"REMOTE_ADDR": scene.address}
        return Ask(ask.method, ask.path, ask.sent | {"environ_base": environ})

    return forged


def _shut_out(scene: Scene) -> Ask:
    new = scene.tls_client("CN=silo-a")
    move_client(scene.services, new.client_id, Move.SUSPEND)
    return asked_by(scene, new, certificate())


def _beside_a_secret(scene: Scene) -> Ask:
    """A client with a certificate shows a secret instead."""
    ask = good(scene, self_signed=False)
    return Ask(
        ask.method, ask.path, ask.sent | {"data": ask.sent["data"] | {"client_secret": "canary-of-a-secret"}}
    )


def bound_token(scene: Scene, **about: str) -> str:
    """A token bound to silo-a's certificate, which opens the API with it."""
    new = scene.tls_client("CN=silo-a", role="operator", **about)
    token = scene.canary(str(scene.send(asked_by(scene, new, certificate())).get_json()["access_token"]))
    assert scene.send(through_the_front(scene, scene.ask_api(token), certificate())).status_code == 200
    return token


def bound(
    shown: Certificate | bytes | None, verdict: str = SIGNED, *, by_the_front: bool = True, **about: str
) -> Case:
    """A bound token, with something else than its certificate."""

    def of(scene: Scene) -> Ask:
        peer = FRONT if by_the_front else scene.address
        return through_the_front(scene, scene.ask_api(bound_token(scene, **about)), shown, verdict, peer)

    return invalid_token(of, "RFC 8705, 3")


CASES = {
    "no certificate": refused(of_an_authority(None), "RFC 8705, 2", reason="PROOF_MISSING"),
    "a certificate of another name": refused(
        of_an_authority(certificate("silo-b")), "RFC 8705, 2.1.2", reason="CERTIFICATE_UNKNOWN"
    ),
    "a certificate of the name, without the authority": refused(
        of_an_authority(certificate(number=2), UNKNOWN_CA), "RFC 8705, 2.1", reason="CERTIFICATE_UNKNOWN"
    ),
    "a certificate that is over": refused(
        of_an_authority(certificate(days=10)), "RFC 8705, 2.1", reason="CERTIFICATE_OUT_OF_TIME"
    ),
    "a certificate that cannot be read": refused(
        of_an_authority(b"-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----\n"),
        "RFC 8705, 2",
        reason="PROOF_MISSING",
    ),
    "a certificate that somebody names who is no front": refused(
        _here(of_an_authority(certificate())), "RFC 9700, 4.13", reason="CERTIFICATE_FORGED"
    ),
    "another self-signed certificate of the name": refused(
        of_its_own(certificate(number=2)), "RFC 8705, 2.2", reason="CERTIFICATE_UNKNOWN"
    ),
    "a self-signed certificate that is over": refused(
        lambda scene: asked_by(
            scene, scene.self_signed_client(certificate(days=10).jwks), certificate(days=10), UNKNOWN_CA
        ),
        "RFC 8705, 2.2",
        reason="CERTIFICATE_OUT_OF_TIME",
    ),
    "a self-signed certificate named by no front": refused(
        _here(of_its_own(certificate())), "RFC 9700, 4.13", reason="CERTIFICATE_FORGED"
    ),
    "a certificate of a client with a secret": refused(
        _of_a_client_with_a_secret, "RFC 6749, 2.3", reason="CERTIFICATE_UNKNOWN"
    ),
    "a secret of a client with a certificate": refused(_beside_a_secret, "RFC 6749, 2.3"),
    "a certificate of a suspended client": refused(_shut_out, reason="CLIENT_NOT_ACTIVE"),
    "a bound token without a certificate": bound(None),
    "a bound token with another certificate": bound(certificate("silo-b")),
    "a bound token with another certificate of the name": bound(certificate(number=2)),
    "a bound token, its certificate named by no front": bound(certificate(), by_the_front=False),
    "a bound JWT without a certificate": bound(None, token_format="jwt"),
    "a bound JWT with another certificate": bound(certificate("silo-b"), token_format="jwt"),
    "a bound JWT, its certificate named by no front": bound(
        certificate(), by_the_front=False, token_format="jwt"
    ),
}
